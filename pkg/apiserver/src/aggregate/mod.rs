//! The aggregation layer: APIService objects for what this server serves, and the health of those served elsewhere.

mod availability;
pub mod discovery;
mod local;
mod openapi;
mod remote;
pub mod route;

pub use availability::AvailabilityController;
pub use local::sync_local;
pub use openapi::{Described, RemoteOpenApi};
pub use remote::RemoteService;

use kube1_api::name::GroupResource;

fn api_services() -> GroupResource {
    GroupResource::new("apiregistration.k8s.io", "apiservices")
}
