//! The Kubernetes API server: HTTPS front, authentication, authorization, admission, generic registry and watch cache.

pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod custom;
pub mod dial;
pub mod http;
pub mod negotiate;
pub mod options;
pub mod query;
pub mod reader;
pub mod request_info;
pub mod review;
pub mod storage;
pub mod strategy;
pub mod user;
pub mod webhook;
