//! Clients of the Container Runtime Interface and of containerd's own API.
