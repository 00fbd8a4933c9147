//! Revisioned key-value store: the `Store` trait and its engines.

mod checkpoint;
mod embedded;
mod error;
mod history;
mod journal;
mod model;
mod store;
mod table;
mod view;
mod writer;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

pub use embedded::{EmbeddedStore, Options};
pub use error::StoreError;
pub use history::Limits;
pub use model::{Compare, Event, KeyValue, Origin, Page, Range, Revision, Txn};
pub use store::{Health, Observer, Store, Watch};
