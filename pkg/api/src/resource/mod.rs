//! The resource table: one row for every resource of every served group version.

mod custom;
mod rules;
mod table;

pub use custom::CustomResource;
pub use table::ResourceTable;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::custom::CustomSchema;
use crate::name::api_version;
use crate::schema::{self, Shape, Type};

/// The group of what nodes and pods use, which is measured when it is asked for.
pub const METRICS_GROUP: &str = "metrics.k8s.io";

/// A subresource of a row.
#[derive(Clone, Debug, Deserialize)]
pub struct Subresource {
    pub name: String,
    pub verbs: Vec<String>,
    /// Kind of its body; group and version are empty when they are the row's.
    pub kind: String,
    pub group: String,
    pub version: String,
}

/// What names of a resource must look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameRule {
    #[default]
    DnsSubdomain,
    DnsLabel,
    PathSegment,
}

/// A column that a custom resource's definition asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PrinterColumn {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    pub json_path: String,
}

/// Paths, such as `.spec.replicas`, of a custom resource's scale subresource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalePaths {
    pub spec_replicas_path: String,
    pub status_replicas_path: String,
    pub label_selector_path: String,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub namespaced: bool,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub verbs: Vec<String>,
    pub subresources: Vec<Subresource>,
    /// Type of the objects in the field table; none for custom resources.
    pub ty: Option<&'static Type>,
    pub storage_hash: String,
    pub group_priority: i64,
    pub version_priority: i64,
    /// Where objects are stored: group, version and plural of the row whose form is kept.
    pub storage_group: String,
    pub storage_version: String,
    pub storage_plural: String,
    /// PUT without resourceVersion is taken.
    pub unconditional_update: bool,
    pub put_creates: bool,
    pub delete_returns_object: bool,
    pub name_rule: NameRule,
    /// Fields beside metadata.name and metadata.namespace that field selectors may name.
    pub selectable_fields: Vec<String>,
    /// Columns of custom resources; built-in ones have theirs in code.
    pub columns: Vec<PrinterColumn>,
    /// OpenAPI schema of custom resources that have one.
    pub schema: Option<Arc<Value>>,
    /// Where a custom resource keeps what its scale subresource shows.
    pub scale: Option<ScalePaths>,
    /// What objects of a custom resource are pruned, defaulted and checked by.
    pub custom_schema: Option<Arc<CustomSchema>>,
    /// The same of all versions of a custom resource, by version: what is stored in one is read by it.
    pub version_schemas: Arc<BTreeMap<String, Arc<CustomSchema>>>,
    /// A custom resource whose definition is being deleted takes no new objects.
    pub terminating: bool,
    /// The webhook by which objects of a custom resource are converted between versions.
    pub conversion: Option<Arc<Value>>,
    /// Shown with every use of a deprecated version.
    pub deprecation_warning: Option<String>,
    custom: bool,
}

#[derive(Deserialize)]
struct Row {
    group: String,
    version: String,
    plural: String,
    singular: String,
    kind: String,
    namespaced: bool,
    short: Vec<String>,
    categories: Vec<String>,
    verbs: Vec<String>,
    subresources: Vec<Subresource>,
    #[serde(rename = "type")]
    ty: Option<String>,
    hash: String,
    priority: (i64, i64),
}

impl Resource {
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    pub fn is_custom(&self) -> bool {
        self.custom
    }

    pub fn has_protobuf(&self) -> bool {
        !self.custom
    }

    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    pub fn shape(&self) -> Shape {
        self.ty.map_or(Shape::Any, Type::shape)
    }

    /// Whether bodies of the kind may also say this version, in which they are the same.
    pub fn is_also(&self, api_version: &str) -> bool {
        self.kind == "Eviction" && self.group == "policy" && api_version == "policy/v1beta1"
    }

    /// The verbs that discovery tells.
    pub fn offered_verbs(&self) -> Vec<&str> {
        let offered = |verb: &&str| !self.terminating || !matches!(*verb, "create" | "patch" | "update");
        self.verbs.iter().map(String::as_str).filter(offered).collect()
    }

    /// Whether objects are kept in this row's own version.
    pub fn is_storage_version(&self) -> bool {
        self.group == self.storage_group && self.version == self.storage_version
    }

    /// Objects are kept, rather than only answered.
    pub fn is_stored(&self) -> bool {
        self.verbs.iter().any(|v| v == "get") && self.group != METRICS_GROUP && self.plural != "componentstatuses"
    }

    fn from_row(row: Row) -> Self {
        let flags = rules::flags(&row.group, &row.plural);
        let (storage_group, storage_version) = match (row.group.as_str(), row.plural.as_str()) {
            ("events.k8s.io", "events") => (String::new(), "v1".to_owned()),
            ("autoscaling", _) => (row.group.clone(), "v2".to_owned()),
            _ => (row.group.clone(), row.version.clone()),
        };
        Self {
            list_kind: format!("{}List", row.kind),
            ty: row.ty.as_deref().and_then(schema::find),
            storage_plural: row.plural.clone(),
            storage_group,
            storage_version,
            unconditional_update: !flags.conditional,
            put_creates: flags.put_creates,
            delete_returns_object: flags.returns_object,
            name_rule: rules::name_rule(&row.group, &row.plural),
            selectable_fields: rules::selectable_fields(&row.group, &row.plural)
                .iter()
                .map(|f| (*f).to_owned())
                .collect(),
            columns: Vec::new(),
            schema: None,
            scale: None,
            custom_schema: None,
            version_schemas: Arc::default(),
            terminating: false,
            conversion: None,
            deprecation_warning: rules::deprecation(&row.group, &row.plural).map(str::to_owned),
            group: row.group,
            version: row.version,
            plural: row.plural,
            singular: row.singular,
            kind: row.kind,
            namespaced: row.namespaced,
            short_names: row.short,
            categories: row.categories,
            verbs: row.verbs,
            subresources: row.subresources,
            storage_hash: row.hash,
            group_priority: row.priority.0,
            version_priority: row.priority.1,
            custom: false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn built_in_rows_know_their_types_and_rules() {
        let table = ResourceTable::builtin();
        let pods = table.get("", "v1", "pods").unwrap();
        assert!(pods.namespaced && pods.delete_returns_object && pods.has_status());
        assert_eq!(pods.ty.unwrap().name, "io.k8s.api.core.v1.Pod");
        let leases = table.get("coordination.k8s.io", "v1", "leases").unwrap();
        assert!(leases.put_creates && !leases.unconditional_update);
        assert_eq!(table.stored("autoscaling", "horizontalpodautoscalers").unwrap().version, "v2");
        for row in table.iter().filter(|r| r.is_stored()) {
            assert!(row.ty.is_some(), "{} has no type", row.plural);
        }
    }
}
