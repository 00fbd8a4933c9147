//! The objects a cluster starts with, and their upkeep at every start.

mod aggregate;
mod objects;
mod own;
mod reconcile;
mod storage_writer;

pub use aggregate::{aggregated_rules, keep_aggregated};
pub use objects::{BootObject, authentication_config, objects};
pub use own::BOOTSTRAPPERS;
pub use reconcile::{Writer, reconcile, reconcile_object, reconcile_one};
pub use storage_writer::StorageWriter;
