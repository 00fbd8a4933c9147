//! Bodies of subresources that are of another kind than their parent.

use kube1_api::codec::FieldValidation;
use kube1_api::name::split_api_version;
use kube1_api::resource::Resource;
use kube1_api::schema;
use kube1_api::status::Status;
use serde_json::Value;

use crate::call::Call;
use crate::registry;

/// The parent's row as if it were of the subresource's kind, to decode and encode bodies by.
pub fn row(parent: &Resource, api_version: &str, kind: &str) -> Resource {
    let (group, version) = split_api_version(api_version);
    let mut row = parent.clone();
    row.group = group.into();
    row.version = version.into();
    row.kind = kind.into();
    row.ty = schema::by_kind(api_version, kind);
    row.custom_schema = None;
    row
}

/// Reads a body of the subresource's kind.
pub async fn decode(call: &mut Call, parent: &Resource, api_version: &str, kind: &str) -> Result<Value, Status> {
    let row = row(parent, api_version, kind);
    registry::decode(call, &row, FieldValidation::Warn).await
}
