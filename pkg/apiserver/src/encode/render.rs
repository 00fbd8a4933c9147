//! The representations that need the schema: Table and protobuf.

use bytes::Bytes;
use jiff::Timestamp;
use kube1_api::codec::{FieldValidation, check_value, protobuf};
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use kube1_api::table::{IncludeObject, TableOptions, render};
use serde_json::Value;

/// A Table of objects. Without `columns` it leaves out their definitions, as watches do after the first event.
pub fn table(
    row: &Resource,
    objects: &[&Value],
    meta: &Value,
    version: &str,
    columns: bool,
    include: IncludeObject,
) -> Value {
    let options = TableOptions { include, no_headers: !columns, version, now: Timestamp::now() };
    render(row, objects, meta, &options)
}

/// The enveloped form of any object that has one.
pub fn protobuf(value: &Value) -> Result<Vec<u8>, Status> {
    protobuf::encode_object(value).ok_or_else(|| Status::not_acceptable(&["application/json", "application/yaml"]))
}

/// The enveloped form of a stored object of the row's own version.
pub fn protobuf_of_stored(row: &Resource, stored: &[u8]) -> Result<Vec<u8>, Status> {
    protobuf::encode_text(&row.api_version(), &row.kind, stored)
        .ok_or_else(|| Status::not_acceptable(&["application/json", "application/yaml"]))
}

/// A frame of a watch stream.
pub fn protobuf_event(kind: &str, object: &Value) -> Result<Bytes, Status> {
    Ok(protobuf::watch_frame(kind, &protobuf(object)?).into())
}

/// Reads an object of the resource from an enveloped protobuf body.
pub fn decode_protobuf(row: &Resource, bytes: &[u8]) -> Result<Value, Status> {
    let decoded = protobuf::decode_object(bytes)?;
    let versioned = decoded.api_version == row.api_version() || row.is_also(&decoded.api_version);
    if !versioned || decoded.kind != row.kind {
        return Err(Status::bad_request(format!(
            "the API version in the data ({}, {}) does not match the expected API version ({}, {})",
            decoded.api_version,
            decoded.kind,
            row.api_version(),
            row.kind
        )));
    }
    // Leaves such as quantities are only known to be right once they are read.
    check_value(row, decoded.value, FieldValidation::Ignore).map(|checked| checked.value)
}

/// Reads delete options from an enveloped protobuf body.
pub fn decode_delete_options(bytes: &[u8]) -> Result<Value, Status> {
    let decoded = protobuf::decode_object(bytes)?;
    if decoded.kind != "DeleteOptions" {
        return Err(Status::bad_request(format!("the body is a {}, not DeleteOptions", decoded.kind)));
    }
    Ok(decoded.value)
}
