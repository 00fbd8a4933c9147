//! Objects from and to their wire forms.

mod json;
mod normal;
mod number;
mod ordered;
pub mod protobuf;
mod tolerant;
pub(crate) mod trail;
mod yaml;

pub use json::{decode_json, encode_canonical, parse_json};
pub use normal::{normalize, zero};
pub use number::{plain_number, plain_numbers};
pub use ordered::{write_json, write_json_as, write_pretty_json, write_pretty_json_as};
pub use tolerant::check_value;
pub(crate) use tolerant::{DEPTH_MAX, check_embedded, is_deeper};
pub use yaml::{decode_yaml, encode_yaml, parse_yaml};

use serde_json::Value;

/// What happens to unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped with a warning.
    #[default]
    Warn,
    /// The request fails.
    Strict,
}

/// A decoded object and what its writer should know about it.
#[derive(Clone, Debug)]
pub struct Decoded {
    pub value: Value,
    pub warnings: Vec<String>,
}

/// The object reduced to its metadata.
pub fn partial_object_metadata(object: &Value, meta_version: &str) -> Value {
    serde_json::json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{meta_version}"),
        "metadata": object["metadata"],
    })
}
