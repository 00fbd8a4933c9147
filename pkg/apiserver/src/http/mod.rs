//! The HTTP front: bodies, responses, the pipeline every request passes, and the TLS listener.

pub mod body;
pub mod compress;
mod first;
pub mod forward;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod health;
pub mod logs;
pub mod pipeline;
pub mod requests;
pub mod respond;
pub mod serve;
mod timer;
pub mod tls;
mod trace;
pub mod websocket;
pub mod zpages;
