//! From a definition to rows of the resource table, one per served version.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube1_api::custom::CustomSchema;
use kube1_api::discovery::compare_versions;
use kube1_api::field::FieldPath;
use kube1_api::name::api_version;
use kube1_api::resource::{CustomResource, PrinterColumn, Resource, ScalePaths};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::storage_version;

/// The rows of an established definition. A version whose schema is not structural, or whose rules do not compile, is
/// served without them, as for definitions of before such rules.
pub fn rows(definition: &Value) -> Vec<Resource> {
    let schemas = Arc::new(schemas(definition));
    let served = versions(definition).filter(|v| v["served"] == true);
    served.map(|version| row(definition, version, &schemas)).collect()
}

/// The row of the version in which objects are stored, served or not; without its schema.
pub fn stored_row(definition: &Value) -> Option<Resource> {
    let stored = versions(definition).find(|v| v["storage"] == true)?;
    Some(row(definition, stored, &Arc::default()))
}

fn versions(definition: &Value) -> impl Iterator<Item = &Value> {
    definition["spec"]["versions"].as_array().into_iter().flatten()
}

/// The schemas of all versions, by version.
fn schemas(definition: &Value) -> BTreeMap<String, Arc<CustomSchema>> {
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    let kind = definition["status"]["acceptedNames"]["kind"].as_str().unwrap_or_default();
    let schemas = versions(definition).filter_map(|version| {
        let name = version["name"].as_str()?;
        let schema = version["schema"].get("openAPIV3Schema").filter(|s| s.is_object())?;
        Some((name.to_owned(), Arc::new(custom_schema(group, name, kind, schema)?)))
    });
    schemas.collect()
}

fn row(definition: &Value, version: &Value, schemas: &Arc<BTreeMap<String, Arc<CustomSchema>>>) -> Resource {
    let (spec, names) = (&definition["spec"], &definition["status"]["acceptedNames"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| value.as_array().into_iter().flatten().map(text).collect();
    let kind = text(&names["kind"]);
    let list_kind = Some(text(&names["listKind"])).filter(|k| !k.is_empty());
    let schema = version["schema"].get("openAPIV3Schema").filter(|s| s.is_object()).cloned();
    let mut resource = Resource::from(CustomResource {
        group: text(&spec["group"]),
        version: text(&version["name"]),
        storage_version: storage_version(definition).unwrap_or_default().to_owned(),
        plural: text(&names["plural"]),
        singular: text(&names["singular"]),
        list_kind: list_kind.unwrap_or_else(|| format!("{kind}List")),
        namespaced: spec["scope"] == "Namespaced",
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        status: version["subresources"].get("status").is_some_and(Value::is_object),
        columns: read::<Vec<PrinterColumn>>(&version["additionalPrinterColumns"]).unwrap_or_default(),
        selectable_fields: selectable_fields(version),
        scale: version["subresources"].get("scale").and_then(read::<ScalePaths>),
        schema: schema.map(Arc::new),
        kind,
    });
    resource.custom_schema = schemas.get(&resource.version).cloned();
    resource.version_schemas = schemas.clone();
    resource.terminating = super::is_terminating(definition);
    resource.conversion =
        (spec["conversion"]["strategy"] == "Webhook").then(|| Arc::new(spec["conversion"]["webhook"].clone()));
    resource.deprecation_warning = deprecation(&resource, definition, version);
    resource.storage_hash = storage_hash(definition, &resource);
    resource
}

/// Tells clients in discovery when objects are stored in another version; empty if that version is not served.
fn storage_hash(definition: &Value, resource: &Resource) -> String {
    let mut versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    if !versions.any(|v| v["served"] == true && v["storage"] == true) {
        return String::new();
    }
    let stored = format!("{}/{}/{}", resource.group, resource.storage_version, resource.kind);
    BASE64_STANDARD.encode(&Sha256::digest(stored)[..8])
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

fn selectable_fields(version: &Value) -> Vec<String> {
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    fields.filter_map(|f| Some(f["jsonPath"].as_str()?.trim_start_matches('.').to_owned())).collect()
}

fn custom_schema(group: &str, version: &str, kind: &str, schema: &Value) -> Option<CustomSchema> {
    let path = FieldPath::new("openAPIV3Schema");
    let compiled = CustomSchema::compile(schema, &path);
    match compiled {
        Ok(schema) => Some(schema),
        Err(errors) => {
            let problem = errors.first().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(kind, group, version, problem, "a custom resource is served unchecked");
            None
        }
    }
}

fn deprecation(resource: &Resource, definition: &Value, version: &Value) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    let given = version["deprecationWarning"].as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    Some(given.unwrap_or_else(|| {
        let newer = versions(definition)
            .filter(|v| v["served"] == true && v["deprecated"] != true)
            .filter_map(|v| v["name"].as_str())
            .min_by(|left, right| compare_versions(left, right))
            .filter(|name| compare_versions(name, &resource.version).is_lt());
        let instead = newer.map(|name| format!("; use {} {}", api_version(&resource.group, name), resource.kind));
        format!("{} {} is deprecated{}", resource.api_version(), resource.kind, instead.unwrap_or_default())
    }))
}
