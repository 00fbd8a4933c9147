//! Clients of the Container Runtime Interface and of containerd's own API.
//!
//! [`Runtime`] speaks CRI over a unix socket with a time limit on every call; [`events`] tells at once when a container
//! ends; [`images`] loads image archives without a registry. Nothing here knows of pods as the API sees them.

mod connection;
mod error;
pub mod events;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod image_service;
pub mod images;
mod runtime;

pub use connection::{Calls, Runtime};
pub use error::{CriError, ErrorKind};
pub use k8s_cri::v1;
