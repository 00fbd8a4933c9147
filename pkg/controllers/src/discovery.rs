//! The kinds that the server has now, built in and custom.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::core::{ApiResource, GroupVersionKind};

/// A kind of objects, in the version that the server prefers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    pub resource: ApiResource,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Kind {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// `PLURAL.GROUP`, or `PLURAL` for the core group.
    pub fn name(&self) -> String {
        let ApiResource { plural, group, .. } = &self.resource;
        if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") }
    }
}

/// What discovery found.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    /// One per group and plural.
    pub all: Vec<Kind>,
    /// Groups whose server does not answer: their kinds may be missing or outdated.
    pub stale: Vec<String>,
    /// Preferred kind by group and kind, also for those served in other versions.
    by_name: BTreeMap<(String, String), usize>,
}

impl Kinds {
    pub async fn discover(client: &Client) -> Result<Self, kube::Error> {
        let (core, groups) =
            futures::try_join!(client.list_core_api_versions_aggregated(), client.list_api_groups_aggregated())?;
        let mut kinds = Self::default();
        for group in core.items.into_iter().chain(groups.items) {
            let name = group.metadata.and_then(|m| m.name).unwrap_or_default();
            for version in group.versions {
                let text = version.version.unwrap_or_default();
                if version.freshness.as_deref() == Some("Stale") {
                    kinds.stale.push(format!("{name}/{text}"));
                }
                for resource in version.resources {
                    let kind = resource.response_kind.and_then(|k| k.kind).unwrap_or_default();
                    let plural = resource.resource.unwrap_or_default();
                    let gvk = GroupVersionKind::gvk(&name, &text, &kind);
                    let namespaced = resource.scope.as_deref() == Some("Namespaced");
                    let resource_type = ApiResource::from_gvk_with_plural(&gvk, &plural);
                    kinds.add(Kind { resource: resource_type, namespaced, verbs: resource.verbs });
                }
            }
        }
        Ok(kinds)
    }

    /// Versions come in the server's order of preference; the first that has a kind counts.
    fn add(&mut self, kind: Kind) {
        let same = |k: &Kind| k.resource.group == kind.resource.group && k.resource.plural == kind.resource.plural;
        if !self.all.iter().any(same) {
            let name = (kind.resource.group.clone(), kind.resource.kind.clone());
            self.by_name.entry(name).or_insert(self.all.len());
            self.all.push(kind);
        }
    }

    /// The kind that an owner reference names; None if the server does not have it.
    pub fn of_owner(&self, owner: &OwnerReference) -> Option<&Kind> {
        self.find(&owner.api_version, &owner.kind)
    }

    /// The preferred version of a kind.
    pub fn find(&self, api_version: &str, kind: &str) -> Option<&Kind> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.all.get(*self.by_name.get(&(group.to_owned(), kind.to_owned()))?)
    }
}
