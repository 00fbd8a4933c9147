//! The HTTP front: bodies, responses, the pipeline every request passes, and the TLS listener.

pub mod body;
pub mod respond;
