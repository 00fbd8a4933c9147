//! Start order, readiness, restart with back-off, child processes and shutdown of a node's components.

mod component;

pub use component::{BoxError, Component, Context};
