//! YAML bodies.

use serde_json::Value;

use super::{Decoded, FieldValidation, tolerant};
use crate::resource::Resource;
use crate::status::Status;

/// Decodes and checks an object of the resource.
pub fn decode_yaml(resource: &Resource, bytes: &[u8], validation: FieldValidation) -> Result<Decoded, Status> {
    tolerant::finish(resource, parse_yaml(bytes)?, Vec::new(), validation)
}

/// Any YAML document as a JSON value.
pub fn parse_yaml(bytes: &[u8]) -> Result<Value, Status> {
    let text = std::str::from_utf8(bytes).map_err(|e| Status::bad_request(format!("the body is not UTF-8: {e}")))?;
    serde_saphyr::from_str(text).map_err(|e| Status::bad_request(format!("error parsing YAML: {e}")))
}

pub fn encode_yaml(value: &Value) -> Result<Vec<u8>, Status> {
    serde_saphyr::to_string(value).map(String::into_bytes).map_err(Status::internal)
}
