//! The Kubernetes API server: HTTPS front, authentication, authorization, admission, generic registry and watch cache.

pub mod authz;
pub mod request_info;
pub mod user;
