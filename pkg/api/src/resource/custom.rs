//! Rows of custom resources.

use std::sync::Arc;

use serde_json::Value;

use super::{NameRule, PrinterColumn, Resource, ScalePaths, Subresource};

/// What a custom resource's row is made of.
#[derive(Clone, Debug, Default)]
pub struct CustomResource {
    pub group: String,
    pub version: String,
    pub storage_version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub namespaced: bool,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub status: bool,
    /// Empty for the default: the age.
    pub columns: Vec<PrinterColumn>,
    pub selectable_fields: Vec<String>,
    pub schema: Option<Arc<Value>>,
    pub scale: Option<ScalePaths>,
}

fn age_column() -> PrinterColumn {
    PrinterColumn {
        name: "Age".into(),
        kind: "date".into(),
        json_path: ".metadata.creationTimestamp".into(),
        ..PrinterColumn::default()
    }
}

impl From<CustomResource> for Resource {
    fn from(custom: CustomResource) -> Self {
        let verbs = |list: &[&str]| list.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
        let subresource = |name: &str, kind: &str, group: &str, version: &str| Subresource {
            name: name.into(),
            verbs: verbs(&["get", "patch", "update"]),
            kind: kind.into(),
            group: group.into(),
            version: version.into(),
        };
        let mut subresources = Vec::new();
        if custom.status {
            subresources.push(subresource("status", &custom.kind, "", ""));
        }
        if custom.scale.is_some() {
            subresources.push(subresource("scale", "Scale", "autoscaling", "v1"));
        }
        Self {
            storage_group: custom.group.clone(),
            storage_version: custom.storage_version,
            storage_plural: custom.plural.clone(),
            group: custom.group,
            version: custom.version,
            plural: custom.plural,
            singular: custom.singular,
            kind: custom.kind,
            list_kind: custom.list_kind,
            namespaced: custom.namespaced,
            short_names: custom.short_names,
            categories: custom.categories,
            verbs: verbs(&["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]),
            subresources,
            ty: None,
            storage_hash: String::new(),
            group_priority: 1000,
            version_priority: 100,
            unconditional_update: false,
            put_creates: false,
            delete_returns_object: false,
            name_rule: NameRule::DnsSubdomain,
            selectable_fields: custom.selectable_fields,
            columns: if custom.columns.is_empty() { vec![age_column()] } else { custom.columns },
            schema: custom.schema,
            scale: custom.scale,
            custom_schema: None,
            version_schemas: Arc::default(),
            terminating: false,
            conversion: None,
            deprecation_warning: None,
            custom: true,
        }
    }
}
