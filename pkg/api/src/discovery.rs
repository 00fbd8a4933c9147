//! What the server offers, as the documents clients discover it by.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::name::api_version;
use crate::resource::{Resource, ResourceTable, Subresource};

/// `/api`: the versions of the core group.
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`: every group but the core one.
pub fn api_group_list(table: &ResourceTable) -> Value {
    let groups: Vec<Value> = groups(table).iter().filter(|g| !g.name.is_empty()).map(Group::summary).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`; `None` when there is no such group.
pub fn api_group(table: &ResourceTable, group: &str) -> Option<Value> {
    let mut summary = groups(table).iter().find(|g| g.name == group && !group.is_empty()).map(Group::summary)?;
    summary["kind"] = "APIGroup".into();
    summary["apiVersion"] = "v1".into();
    Some(summary)
}

/// `/api/v1` and `/apis/GROUP/VERSION`; `None` when nothing is served there.
pub fn api_resource_list(table: &ResourceTable, group: &str, version: &str) -> Option<Value> {
    let rows: Vec<_> = told(table).filter(|r| r.group == group && r.version == version).collect();
    rows.first()?;
    let resources: Vec<Value> = rows.into_iter().flat_map(|row| api_resources(row)).collect();
    let mut list = json!({
        "kind": "APIResourceList",
        "groupVersion": api_version(group, version),
        "resources": resources,
    });
    // For clients older than its version, that of the core group does not say it.
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Some(list)
}

/// The aggregated form of `/api` (the core group) or of `/apis` (all others), in version v2 of apidiscovery.k8s.io.
pub fn aggregated_v2(table: &ResourceTable, core: bool) -> Value {
    let items: Vec<Value> =
        groups(table).iter().filter(|g| g.name.is_empty() == core).map(Group::with_resources).collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

/// Orders versions as clients prefer them: stable before beta before alpha, newer before older, others last by name.
pub fn compare_versions(left: &str, right: &str) -> Ordering {
    match (parse_version(left), parse_version(right)) {
        (Some(left), Some(right)) => right.cmp(&left),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => left.cmp(right),
    }
}

/// Stability (2 stable, 1 beta, 0 alpha), major, minor.
fn parse_version(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().ok()?;
    match &rest[digits..] {
        "" => Some((2, major, 0)),
        rest => {
            let beta = rest.strip_prefix("beta").map(|minor| (1, minor));
            let (stability, minor) = beta.or_else(|| rest.strip_prefix("alpha").map(|minor| (0, minor)))?;
            Some((stability, major, minor.parse().ok()?))
        }
    }
}

/// The rows that are told: of the server's own group versions only its own.
fn told(table: &ResourceTable) -> impl Iterator<Item = &Arc<Resource>> {
    let of = |row: &Resource| (row.group.clone(), row.version.clone());
    let own: BTreeSet<_> = table.iter().filter(|row| !row.is_custom()).map(|row| of(row)).collect();
    table.iter().filter(move |row| !row.is_custom() || !own.contains(&of(row)))
}

struct Group<'a> {
    name: &'a str,
    priority: i64,
    /// In the order of preference.
    versions: Vec<(&'a str, Vec<&'a Arc<Resource>>)>,
}

/// Groups in the order they are listed in.
fn groups(table: &ResourceTable) -> Vec<Group<'_>> {
    let mut by_name: BTreeMap<&str, BTreeMap<&str, Vec<&Arc<Resource>>>> = BTreeMap::new();
    for row in told(table) {
        by_name.entry(&row.group).or_default().entry(&row.version).or_default().push(row);
    }
    let mut groups: Vec<Group> = by_name
        .into_iter()
        .map(|(name, versions)| {
            let mut versions: Vec<_> = versions.into_iter().collect();
            let priority = |rows: &[&Arc<Resource>]| rows.iter().map(|r| r.version_priority).max();
            versions.sort_by(|(a, left), (b, right)| {
                priority(right).cmp(&priority(left)).then_with(|| compare_versions(a, b))
            });
            let priority = versions.iter().flat_map(|(_, rows)| rows).map(|r| r.group_priority).max().unwrap_or(0);
            Group { name, priority, versions }
        })
        .collect();
    groups.sort_by_key(|group| (Reverse(group.priority), group.name));
    groups
}

impl Group<'_> {
    fn summary(&self) -> Value {
        let version = |version: &str| json!({"groupVersion": api_version(self.name, version), "version": version});
        json!({
            "name": self.name,
            "versions": self.versions.iter().map(|(v, _)| version(v)).collect::<Vec<_>>(),
            "preferredVersion": self.versions.first().map(|(v, _)| version(v)),
        })
    }

    fn with_resources(&self) -> Value {
        let versions = self.versions.iter().map(|(version, rows)| {
            let resources: Vec<Value> = rows.iter().map(|row| resource_discovery(row)).collect();
            json!({"version": version, "freshness": "Current", "resources": resources})
        });
        let metadata = if self.name.is_empty() { json!({}) } else { json!({"name": self.name}) };
        json!({"metadata": metadata, "versions": versions.collect::<Vec<_>>()})
    }
}

/// A resource and its subresources as members of an APIResourceList.
fn api_resources(row: &Resource) -> Vec<Value> {
    let mut resource = Map::new();
    resource.insert("name".into(), row.plural.as_str().into());
    resource.insert("singularName".into(), row.singular.as_str().into());
    resource.insert("namespaced".into(), row.namespaced.into());
    resource.insert("kind".into(), row.kind.as_str().into());
    resource.insert("verbs".into(), row.offered_verbs().into());
    insert_names(&mut resource, row);
    if !row.storage_hash.is_empty() {
        resource.insert("storageVersionHash".into(), row.storage_hash.as_str().into());
    }
    let mut list: Vec<Value> = row.subresources.iter().map(|s| api_subresource(row, s)).collect();
    list.insert(0, resource.into());
    list
}

fn api_subresource(row: &Resource, subresource: &Subresource) -> Value {
    let mut resource = json!({
        "name": format!("{}/{}", row.plural, subresource.name),
        "singularName": "",
        "namespaced": row.namespaced,
        "kind": subresource.kind,
        "verbs": subresource.verbs,
    });
    if !subresource.version.is_empty() {
        resource["group"] = subresource.group.as_str().into();
        resource["version"] = subresource.version.as_str().into();
    }
    resource
}

fn insert_names(members: &mut Map<String, Value>, row: &Resource) {
    if !row.short_names.is_empty() {
        members.insert("shortNames".into(), row.short_names.clone().into());
    }
    if !row.categories.is_empty() {
        members.insert("categories".into(), row.categories.clone().into());
    }
}

fn resource_discovery(row: &Resource) -> Value {
    let mut resource = Map::new();
    resource.insert("resource".into(), row.plural.as_str().into());
    resource.insert("responseKind".into(), response_kind("", "", &row.kind));
    resource.insert("scope".into(), if row.namespaced { "Namespaced" } else { "Cluster" }.into());
    resource.insert("singularResource".into(), row.singular.as_str().into());
    resource.insert("verbs".into(), row.offered_verbs().into());
    insert_names(&mut resource, row);
    if !row.subresources.is_empty() {
        let subresources = row.subresources.iter().map(|s| {
            let kind = response_kind(&s.group, &s.version, &s.kind);
            json!({"subresource": s.name, "responseKind": kind, "verbs": s.verbs})
        });
        resource.insert("subresources".into(), subresources.collect());
    }
    resource.into()
}

/// An empty group and version stand for those of the document's place.
fn response_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::facts;
    use crate::resource::CustomResource;

    /// The facts name every version that can be served; only these are by default.
    fn served(mut document: Value, facts: &Value) -> Value {
        let by_default = facts["servedByDefault"].as_array().unwrap();
        let is_served = |group: &Value, version: &Value| {
            let name = api_version(group.as_str().unwrap_or_default(), version.as_str().unwrap());
            by_default.iter().any(|v| *v == name)
        };
        for list in ["items", "groups"] {
            for group in document.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                let name = if list == "items" { group["metadata"]["name"].clone() } else { group["name"].clone() };
                group["versions"].as_array_mut().unwrap().retain(|v| is_served(&name, &v["version"]));
            }
            if let Some(groups) = document.get_mut(list).and_then(Value::as_array_mut) {
                groups.retain(|group| group["versions"] != json!([]));
            }
        }
        document
    }

    #[test]
    fn discovery_is_upstreams() {
        let Some(facts) = facts::read_json("discovery.json") else { return };
        let table = ResourceTable::builtin();
        assert_eq!(aggregated_v2(&table, true), served(facts["api"].clone(), &facts));
        assert_eq!(aggregated_v2(&table, false), served(facts["apis"].clone(), &facts));
        assert_eq!(api_group_list(&table), served(facts["legacyApis"].clone(), &facts));
    }

    #[test]
    fn versions_are_ordered_as_clients_prefer_them() {
        let mut versions = ["v1alpha1", "foo", "v2", "v10beta3", "v1", "v10", "bar", "v3beta1", "v1beta2"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(versions, ["v10", "v2", "v1", "v10beta3", "v3beta1", "v1beta2", "v1alpha1", "bar", "foo"]);
    }

    #[test]
    fn custom_resources_are_listed_with_their_subresources() {
        let mut table = ResourceTable::builtin();
        for version in ["v1", "v1beta1"] {
            table.insert(Resource::from(CustomResource {
                group: "example.com".into(),
                version: version.into(),
                plural: "foos".into(),
                kind: "Foo".into(),
                status: true,
                ..CustomResource::default()
            }));
        }
        let group = api_group(&table, "example.com").unwrap();
        assert_eq!(group["preferredVersion"]["groupVersion"], "example.com/v1");
        let list = api_resource_list(&table, "example.com", "v1").unwrap();
        assert_eq!(list["resources"][1]["name"], "foos/status");
        assert!(api_resource_list(&table, "example.com", "v2").is_none() && api_group(&table, "").is_none());
        let eviction = api_resource_list(&table, "", "v1").unwrap();
        let eviction = eviction["resources"].as_array().unwrap().iter().find(|r| r["name"] == "pods/eviction").unwrap();
        assert_eq!((&eviction["group"], &eviction["version"]), (&json!("policy"), &json!("v1")));
    }

    #[test]
    fn definitions_do_not_add_to_the_servers_own_groups() {
        let row = |group: &str, version: &str| -> Resource {
            let (group, version) = (group.to_owned(), version.to_owned());
            let names = ("foos".to_owned(), "Foo".to_owned());
            let custom = crate::resource::CustomResource {
                group,
                version,
                plural: names.0,
                kind: names.1,
                ..Default::default()
            };
            custom.into()
        };
        let mut table = ResourceTable::builtin();
        table.insert(row("networking.k8s.io", "v1"));
        table.insert(row("example.com", "v1"));
        let names = |group: &str| {
            let list = api_resource_list(&table, group, "v1").unwrap_or_default();
            list["resources"].as_array().into_iter().flatten().any(|r| r["name"] == "foos")
        };
        assert!(names("example.com") && !names("networking.k8s.io"));
        let aggregated = aggregated_v2(&table, false).to_string();
        assert_eq!(aggregated.matches("\"foos\"").count(), 1);
    }
}
