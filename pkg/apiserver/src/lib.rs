//! The Kubernetes API server: HTTPS front, authentication, authorization, admission, generic registry and watch cache.

pub mod aggregate;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod call;
pub mod convert;
pub mod custom;
pub mod dial;
pub mod documents;
pub mod encode;
pub mod http;
pub mod negotiate;
pub mod options;
pub mod query;
pub mod reader;
pub mod registry;
pub mod request_info;
pub mod review;
pub mod router;
pub mod server;
pub mod storage;
pub mod strategy;
pub mod subresource;
pub mod user;
pub mod virtual_resource;
pub mod webhook;
