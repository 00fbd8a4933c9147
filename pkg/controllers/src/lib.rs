//! The controller-manager's loops and their registry.
//!
//! Each controller is a module with a `run` function and a row in the [`registry`]. It reads through informers that all
//! controllers share, and writes with the identity of its own service account.

mod account_tokens;
mod autoscaler;
mod cached_pod;
mod certificates;
mod clock;
mod controller;
mod cron_job;
mod daemon_set;
mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod expectations;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod garbage;
mod history;
mod job;
mod manager;
mod metrics;
mod namespace;
mod node;
mod owner;
mod pod_control;
mod pods;
mod policy_status;
mod quota;
mod registry;
mod replica_set;
mod replicas;
mod service_account;
mod service_lb;
mod stateful_set;
mod template;
mod tokens;
mod volume;

pub use manager::{ClientFor, ControllerManager, ControllerManagerConfig};
