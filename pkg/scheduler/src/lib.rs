//! The scheduler: queue, snapshot, plugin framework and binding.
