//! The representations that need the schema: Table and protobuf.

use bytes::Bytes;
use jiff::Timestamp;
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use kube1_api::table::{IncludeObject, TableOptions, render};
use serde_json::Value;

/// Whether protobuf can be written.
pub const PROTOBUF: bool = false;

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

pub fn protobuf(_: &Value) -> Result<Vec<u8>, Status> {
    Err(Status::not_acceptable(&["application/json", "application/yaml"]))
}

pub fn protobuf_event(_: &str, _: &Value) -> Result<Bytes, Status> {
    Err(Status::not_acceptable(&["application/json", "application/yaml"]))
}

/// Reads an object of the resource from an enveloped protobuf body.
pub fn decode_protobuf(_: &Resource, _: &[u8]) -> Result<Value, Status> {
    Err(Status::unsupported_media_type(&["application/json", "application/yaml"]))
}

/// Reads delete options from an enveloped protobuf body.
pub fn decode_delete_options(_: &[u8]) -> Result<Value, Status> {
    Err(Status::unsupported_media_type(&["application/json", "application/yaml"]))
}
