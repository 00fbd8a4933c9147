//! The Kubernetes API as data, without I/O: resources, schemas, codecs, defaults, validation, patches, selectors.

pub mod amounts;
pub mod apply;
pub mod cel;
pub mod codec;
pub mod custom;
pub mod default;
pub mod discovery;
pub mod expression;
#[cfg(test)]
mod facts;
pub mod features;
pub mod field;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod name;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod quota;
pub mod resource;
pub mod schema;
pub mod selector;
mod shown;
pub mod status;
pub mod structural;
pub mod table;
pub mod validate;
