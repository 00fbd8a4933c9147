//! The node agent: pod lifecycle, volumes, probes, images, node status and its HTTPS API.
//!
//! [`Kubelet`] is a component. It needs a container runtime's socket and an API client that acts as the node; whatever
//! it must remember is in the runtime's labels and in the API, so that a new run goes on where the last one ended.

mod admission;
mod backoff;
mod cgroup;
mod config;
mod container;
mod dir_watch;
mod dns;
mod downward;
mod env;
mod env_file;
mod eviction;
mod expand;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod hook;
mod housekeeping;
mod image;
mod kubelet;
mod labels;
mod lease;
mod local_storage;
mod log_file;
mod machine;
mod meters;
mod node;
mod node_status;
mod object_cache;
mod observed;
mod pod;
mod pod_worker;
mod pressure;
mod probe;
mod psi;
mod resources;
mod restart_round;
mod sandbox;
mod server;
mod settings;
mod static_pod;
mod status;
mod token;
mod turns;
mod user_namespace;
mod volume;

pub use config::KubeletConfig;
pub use eviction::{EvictionThresholds, ThresholdError};
pub use kubelet::Kubelet;
pub use settings::{Settings, SettingsError};
