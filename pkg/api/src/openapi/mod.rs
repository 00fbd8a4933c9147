//! The OpenAPI documents, versions 2 and 3, made from the resource table and the field table.
//!
//! Documents are written piece by piece when they are asked for: at no time is a whole one in memory as a tree.

pub mod coverage;
mod custom;
mod definition;
mod description;
mod merge;
mod operation;
mod packed;
mod parameter;
#[cfg(test)]
mod tests;
mod write;

pub use merge::Extension;
pub use operation::{Answer, Body, Operation, of_group_version, of_root};

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::resource::ResourceTable;

/// Version of Kubernetes that the documents describe.
const KUBERNETES: &str = "v1.36.2";
/// Paths of documents beside those of groups and group versions.
const ROOTS: [&str; 6] = ["api", "apis", "version", "logs", ".well-known/openid-configuration", "openid/v1/jwks"];

/// A version of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V2,
    V3,
}

impl Version {
    fn reference(self, name: &str) -> String {
        match self {
            Self::V2 => format!("#/definitions/{name}"),
            Self::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

/// `/openapi/v2`: one document of everything, with what extension API servers serve, as JSON.
pub fn v2<E: AsRef<Extension>>(table: &ResourceTable, extensions: &[E]) -> Vec<u8> {
    write::document(table, all_operations(table), Version::V2, extensions)
}

/// The same document in the form that client-go asks for: `application/com.github.proto-openapi.spec.v2.v1.0+protobuf`.
pub fn v2_protobuf<E: AsRef<Extension>>(table: &ResourceTable, extensions: &[E]) -> Vec<u8> {
    packed::document(table, all_operations(table), extensions)
}

/// Every operation that is served.
pub fn all_operations(table: &ResourceTable) -> Vec<Operation> {
    let mut operations: Vec<Operation> = group_versions(table)
        .into_iter()
        .flat_map(|(group, version)| of_group_version(table, &group, &version))
        .collect();
    operations.extend(roots(table).iter().flat_map(|root| of_root(table, root)));
    operations
}

/// `/openapi/v3`: where the documents are. The hash of each changes whenever the document does.
pub fn v3_root(table: &ResourceTable) -> Value {
    let mut paths = Map::new();
    for path in documents(table) {
        let url = format!("/openapi/v3/{path}?hash={}", v3_hash(table, &path));
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// `/openapi/v3/PATH`, such as `apis/apps/v1`, as JSON; `None` when there is no such document.
pub fn v3_document(table: &ResourceTable, path: &str) -> Option<Vec<u8>> {
    let operations = operations(table, path);
    (!operations.is_empty()).then(|| write::document::<Arc<Extension>>(table, operations, Version::V3, &[]))
}

/// As [`v3_document`], by group and version.
pub fn v3_group(table: &ResourceTable, group: &str, version: &str) -> Option<Vec<u8>> {
    v3_document(table, &group_version_path(group, version))
}

/// A hash that stands for a document of version 3 without making it: 128 upper-case hexadecimal digits.
pub fn v3_hash(table: &ResourceTable, path: &str) -> String {
    let mut hash = Sha512::new();
    hash.update(concat!(env!("CARGO_PKG_VERSION"), "\n"));
    hash.update(path);
    for row in table.iter().filter(|r| group_version_path(&r.group, &r.version) == path) {
        hash_row(&mut hash, row);
    }
    // Documents above the group versions depend on nothing else, and the others name all of them at shared kinds.
    for (group, version) in group_versions(table) {
        hash.update(format!("{group}/{version}\n"));
    }
    hex::encode_upper(hash.finalize())
}

/// A hash that stands for the document of version 2; `extensions` stands for those of extension API servers.
pub fn v2_hash(table: &ResourceTable, extensions: &str) -> String {
    let mut hash = Sha512::new();
    hash.update(concat!(env!("CARGO_PKG_VERSION"), "\n"));
    table.iter().for_each(|row| hash_row(&mut hash, row));
    hash.update(extensions);
    hex::encode_upper(hash.finalize())
}

fn hash_row(hash: &mut Sha512, row: &crate::resource::Resource) {
    let names = (&row.plural, &row.singular, &row.kind, &row.list_kind, row.namespaced, &row.verbs);
    hash.update(format!("{names:?}{:?}", row.subresources));
    if let Some(schema) = &row.schema {
        hash.update(schema.to_string());
    }
}

fn group_version_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

pub(crate) fn group_versions(table: &ResourceTable) -> BTreeSet<(String, String)> {
    table.iter().map(|r| (r.group.clone(), r.version.clone())).collect()
}

fn roots(table: &ResourceTable) -> Vec<String> {
    let groups: BTreeSet<String> =
        table.iter().filter(|r| !r.group.is_empty()).map(|r| format!("apis/{}", r.group)).collect();
    ROOTS.iter().map(|root| (*root).to_owned()).chain(groups).collect()
}

fn documents(table: &ResourceTable) -> Vec<String> {
    let versions = group_versions(table).into_iter().map(|(group, version)| group_version_path(&group, &version));
    versions.chain(roots(table)).collect()
}

fn operations(table: &ResourceTable, path: &str) -> Vec<Operation> {
    match path.split('/').collect::<Vec<_>>()[..] {
        ["api", version] => of_group_version(table, "", version),
        ["apis", group, version] => of_group_version(table, group, version),
        _ => of_root(table, path),
    }
}
