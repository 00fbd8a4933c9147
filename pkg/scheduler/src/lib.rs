//! The scheduler: queue, snapshot, plugin framework and binding.
//!
//! One loop takes pods from the [`queue`], runs the [`plugins`] over a snapshot of the [`cache`] and assumes the result;
//! binding and everything else that waits for the API runs beside it.

mod algorithm;
mod bind;
mod cache;
mod framework;
mod labels;
mod metrics;
mod node_info;
mod owners;
mod plugins;
mod pod_info;
mod preemption;
mod queue;
mod resources;
mod scheduler;
mod tally;
#[cfg(test)]
mod testing;
mod volume_binding;
mod watch;

pub use scheduler::Scheduler;
