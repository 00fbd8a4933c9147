//! All rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{METRICS_GROUP, Resource, Row};

/// All rows. Cheap to clone, so that a changed copy can replace it whole.
#[derive(Clone, Debug, Default)]
pub struct ResourceTable {
    /// By group, version, plural.
    rows: BTreeMap<String, BTreeMap<String, BTreeMap<String, Arc<Resource>>>>,
}

impl ResourceTable {
    /// The built-in rows that are served by default.
    pub fn builtin() -> Self {
        let rows: Vec<Row> =
            serde_json::from_str(include_str!("../data/resources.json")).expect("the generated table is valid");
        let mut table = Self::default();
        for row in rows {
            table.insert(Resource::from_row(row));
        }
        table
    }

    /// These rows and those of the resource metrics API, which extends Kubernetes where it is offered.
    #[must_use]
    pub fn with_resource_metrics(mut self) -> Self {
        for (plural, kind, namespaced) in [("nodes", "NodeMetrics", false), ("pods", "PodMetrics", true)] {
            self.insert(Resource::from_row(Row {
                group: METRICS_GROUP.into(),
                version: "v1beta1".into(),
                plural: plural.into(),
                singular: String::new(),
                kind: kind.into(),
                namespaced,
                short: Vec::new(),
                categories: Vec::new(),
                verbs: vec!["get".into(), "list".into()],
                subresources: Vec::new(),
                ty: Some(format!("io.k8s.metrics.pkg.apis.metrics.v1beta1.{kind}")),
                hash: String::new(),
                priority: (100, 100),
            }));
        }
        self
    }

    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.rows.get(group)?.get(version)?.get(plural).cloned()
    }

    /// The row in whose version objects are stored.
    pub fn stored(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.iter().find(|r| r.group == group && r.plural == plural && r.is_storage_version()).cloned()
    }

    /// The row of a kind.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Resource>> {
        self.iter().find(|r| r.group == group && r.version == version && r.kind == kind).cloned()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.rows.values().flat_map(BTreeMap::values).flat_map(BTreeMap::values)
    }

    pub fn insert(&mut self, resource: impl Into<Arc<Resource>>) {
        let resource = resource.into();
        let group = self.rows.entry(resource.group.clone()).or_default();
        group.entry(resource.version.clone()).or_default().insert(resource.plural.clone(), resource);
    }

    pub fn remove(&mut self, group: &str, version: &str, plural: &str) {
        if let Some(rows) = self.rows.get_mut(group).and_then(|group| group.get_mut(version)) {
            rows.remove(plural);
        }
    }
}
