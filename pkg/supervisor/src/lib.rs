//! Start order, readiness, restart with back-off, child processes and shutdown of a node's components.
//!
//! A [`Supervisor`] owns every component task of a process. Components start in the order they are added, each once
//! those before it are ready, and stop in reverse. What each does is always readable as [`ComponentStatus`].

mod child_log;
mod child_process;
mod component;
mod memory;
mod status;
mod status_socket;
mod supervisor;

pub use child_process::{ChildProcess, ChildProcessConfig, ReadyProbe, process_matches};
pub use component::{BoxError, Component, Context};
pub use memory::{MemoryTrimmer, share_heaps};
pub use status::{ComponentState, ComponentStatus, NodeStatus, StatusBoard};
pub use status_socket::{StatusSocketError, query_status, serve_status};
pub use supervisor::{Supervisor, chain};
