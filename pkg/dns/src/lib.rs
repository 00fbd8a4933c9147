//! Cluster DNS, in the process on every node.
