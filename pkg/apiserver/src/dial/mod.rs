//! Connections from the API server to what runs in the cluster: admission webhooks, extension API servers, Services.

mod connect;
mod idle;
mod kubeconfig;
mod listed;
mod remote;
mod resolve;

pub use connect::{Address, DialError, Response, Target, Trust, connect, get, get_with, post, post_with};
pub use kubeconfig::{Credential, RemoteError, Users};
pub use remote::{Remote, system_authorities};
pub use resolve::{ResolveError, Resolver};
