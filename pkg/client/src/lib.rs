//! Typed Kubernetes client over HTTPS or in process, shared informers, work queues and event recorder.
//!
//! Every component of a node talks to the API through the [`kube::Client`] made here and knows nothing of its
//! transport, so that it works the same against this process's apiserver, another server, or upstream's.

mod cache;
mod informer;
mod keep;
mod leader;
mod metered;
mod metrics;
pub mod node_match;
mod pool;
mod raw;
mod recorder;
mod transport;
mod work_queue;

pub use informer::{Event, Informer, Informers, ObjectKey, Selection};
pub use keep::Keep;
pub use kube;
pub use leader::{LeaderElection, LostLead};
pub use pool::Pool;
pub use raw::{Ownership, follow_ownership};
pub use recorder::{EventRecorder, EventType};
pub use transport::{ClientError, from_kubeconfig, in_process, message};
pub use work_queue::{Outcome, WorkQueue, reconcile_all};
