//! The Kubernetes API server: HTTPS front, authentication, authorization, admission, generic registry and watch cache.

pub mod admission;
pub mod aggregate;
pub mod allocator;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod call;
mod component_status;
pub mod convert;
pub mod custom;
pub mod dial;
pub mod documents;
pub mod encode;
pub mod flow;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod metrics;
pub mod negotiate;
pub mod options;
pub mod query;
pub mod reader;
pub mod registry;
pub mod reload;
pub mod request_info;
pub mod resource_metrics;
pub mod review;
pub mod router;
pub mod server;
pub mod storage;
pub mod strategy;
pub mod subresource;
pub mod user;
pub mod virtual_resource;
pub mod webhook;
