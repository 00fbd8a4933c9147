//! CNI plugin, pod address management, VXLAN overlay and the netlink code they share with the service proxy.
