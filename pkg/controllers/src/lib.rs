//! The controller-manager's loops and their registry.
