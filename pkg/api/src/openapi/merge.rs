//! Documents of version 2 of extension API servers, as parts of this server's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Version, write};
use crate::resource::ResourceTable;

const PREFIX: &str = "#/definitions/";
const KINDS: &str = "x-kubernetes-group-version-kind";

/// What an extension API server says of one group version.
#[derive(Clone, Debug, Default)]
pub struct Extension {
    paths: Map<String, Value>,
    definitions: Map<String, Value>,
}

impl Extension {
    /// The paths of a group version in a document, and the definitions that they or nobody lead to.
    pub fn of(mut document: Value, group: &str, version: &str) -> Self {
        let mut part = |name: &str| match document[name].take() {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        let (mut paths, mut definitions) = (part("paths"), part("definitions"));
        let used_before = reachable(&paths, &definitions);
        let root = format!("/apis/{group}/{version}");
        paths.retain(|path, _| path.strip_prefix(&root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        let used = reachable(&paths, &definitions);
        definitions.retain(|name, _| used.contains(name) || !used_before.contains(name));
        Self { paths, definitions }
    }
}

/// What extensions add to a document.
#[derive(Default)]
pub(super) struct Additions {
    pub paths: Map<String, Value>,
    pub definitions: Map<String, Value>,
    /// Further kinds of definitions that this server has, too.
    kinds: BTreeMap<String, Vec<Value>>,
}

impl Additions {
    /// Definitions that differ from those of the same name get another.
    pub fn of(table: &ResourceTable, own: &BTreeSet<String>, extensions: &[impl AsRef<Extension>]) -> Self {
        let mut additions = Self::default();
        for extension in extensions {
            additions.add(table, own, extension.as_ref());
        }
        additions
    }

    fn add(&mut self, table: &ResourceTable, own: &BTreeSet<String>, extension: &Extension) {
        let named = extension.definitions.keys();
        let shared: BTreeSet<String> = named.filter(|name| own.contains(*name)).cloned().collect();
        let mut known: Map<String, Value> = self.definitions.clone();
        write::schemas(table, &shared, Version::V2, |name, schema| _ = known.insert(name.to_owned(), schema));
        let mut names: BTreeMap<&str, String> = BTreeMap::new();
        for (name, definition) in &extension.definitions {
            if known.get(name).is_some_and(|known| !same_but_kinds(known, definition)) {
                let free = |name: &String| match known.get(name) {
                    Some(known) => same_but_kinds(known, definition),
                    None => !own.contains(name) && !extension.definitions.contains_key(name),
                };
                let mut others = (2..).map(|number| format!("{name}_v{number}"));
                names.extend(others.find(free).map(|other| (name.as_str(), other)));
            }
        }
        for (name, definition) in &extension.definitions {
            let name = names.get(name.as_str()).unwrap_or(name);
            let mut definition = definition.clone();
            rename(&mut definition, &names);
            if own.contains(name) {
                self.kinds.entry(name.clone()).or_default().extend(kinds(&definition).to_vec());
            } else if let Some(there) = self.definitions.get_mut(name) {
                add_kinds(there, kinds(&definition));
            } else {
                self.definitions.insert(name.clone(), definition);
            }
        }
        for (path, item) in &extension.paths {
            let mut item = item.clone();
            rename(&mut item, &names);
            self.paths.entry(path.clone()).or_insert(item);
        }
    }

    /// A definition of this server with the kinds that extensions use it for.
    pub fn extended(&self, name: &str, mut schema: Value) -> Value {
        if let Some(kinds) = self.kinds.get(name) {
            add_kinds(&mut schema, kinds);
        }
        schema
    }
}

fn kinds(definition: &Value) -> &[Value] {
    definition[KINDS].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Adds what is missing; they are in the order of group, version and kind.
fn add_kinds(definition: &mut Value, more: &[Value]) {
    let mut all = kinds(definition).to_vec();
    let before = all.len();
    for kind in more {
        if !all.contains(kind) {
            all.push(kind.clone());
        }
    }
    if all.len() > before {
        let text = |kind: &Value, key: &str| kind[key].as_str().unwrap_or_default().to_owned();
        all.sort_by_cached_key(|kind| {
            format!("{}/{}.{}", text(kind, "group"), text(kind, "version"), text(kind, "kind"))
        });
        definition[KINDS] = all.into();
    }
}

fn same_but_kinds(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    let rest = |map: &Map<String, Value>| map.len() - usize::from(map.contains_key(KINDS));
    rest(a) == rest(b) && a.iter().all(|(key, value)| key == KINDS || b.get(key) == Some(value))
}

/// Names of the definitions that paths lead to.
fn reachable(paths: &Map<String, Value>, definitions: &Map<String, Value>) -> BTreeSet<String> {
    let (mut found, mut open) = (BTreeSet::new(), Vec::new());
    paths.values().for_each(|item| references(item, &mut open));
    while let Some(name) = open.pop() {
        if let (Some(definition), false) = (definitions.get(&name), found.contains(&name)) {
            references(definition, &mut open);
        }
        found.insert(name);
    }
    found
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match member.as_str().and_then(|text| text.strip_prefix(PREFIX)) {
                    Some(name) if key == "$ref" => found.push(name.to_owned()),
                    _ => references(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

fn rename(value: &mut Value, names: &BTreeMap<&str, String>) {
    match value {
        _ if names.is_empty() => {}
        Value::Object(members) => {
            for (key, member) in members {
                let new = member.as_str().and_then(|text| names.get(text.strip_prefix(PREFIX)?));
                match new {
                    Some(new) if key == "$ref" => *member = format!("{PREFIX}{new}").into(),
                    _ => rename(member, names),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::openapi::v2;

    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

    #[test]
    fn extensions_are_merged_without_taking_names_of_others() {
        let table = ResourceTable::builtin();
        let own: Value = serde_json::from_slice(&v2::<Arc<Extension>>(&table, &[])).unwrap();
        let name = |short: &str| format!("{META}.{short}");
        let refer = |name: &str| json!({"$ref": format!("{PREFIX}{name}")});
        let list = json!({"get": {"responses": {"200": {"schema": refer("x.List")}}}});
        let mut same = own["definitions"][name("DeleteOptions")].clone();
        same[KINDS] = json!([{"group": "fruit", "version": "v1", "kind": "DeleteOptions"}]);
        let document = |size: &str| {
            json!({"paths": {"/apis/fruit/v1/apples": list, "/apis/other/v1/pears": {
                "get": {"responses": {"200": {"schema": refer("x.Pear")}}}}, "/apis/fruit/v10/x": list, "/healthz": {}},
            "definitions": {"x.List": {"properties": {"size": {"type": size}, "meta": refer(&name("ObjectMeta")),
                    "options": refer(&name("DeleteOptions"))}},
                "x.Pear": {"type": "string"}, "x.Unused": {"type": "string"},
                (name("ObjectMeta")): {"type": "object", "description": "older"}, (name("DeleteOptions")): same}})
        };
        let extensions = [
            Arc::new(Extension::of(document("string"), "fruit", "v1")),
            Arc::new(Extension::of(document("integer"), "other", "v1")),
            Arc::new(Extension::of(document("integer"), "fruit", "v10")),
        ];
        let merged: Value = serde_json::from_slice(&v2(&table, &extensions)).unwrap();
        let (paths, definitions) = (&merged["paths"], &merged["definitions"]);
        assert_eq!(paths["/api/v1/pods"], own["paths"]["/api/v1/pods"]);
        assert!(paths["/apis/fruit/v1/apples"].is_object() && paths["/apis/other/v1/pears"].is_object());
        assert!(paths.get("/healthz").is_none());
        let of = |path: &str| paths[path]["get"]["responses"]["200"]["schema"].clone();
        assert_eq!((of("/apis/fruit/v1/apples"), of("/apis/fruit/v10/x")), (refer("x.List"), refer("x.List_v2")));
        assert_eq!(definitions["x.List_v2"]["properties"]["size"]["type"], "integer");
        let renamed = format!("{}_v2", name("ObjectMeta"));
        assert_eq!(definitions["x.List"]["properties"]["meta"], refer(&renamed));
        assert_eq!(definitions["x.List_v2"]["properties"]["meta"], refer(&renamed), "one new name is enough");
        assert_eq!(definitions[renamed]["description"], "older");
        assert_eq!(definitions[name("ObjectMeta")], own["definitions"][name("ObjectMeta")]);
        let kinds = definitions[name("DeleteOptions")][KINDS].as_array().unwrap();
        assert_eq!(kinds.len(), own["definitions"][name("DeleteOptions")][KINDS].as_array().unwrap().len() + 1);
        assert!(definitions["x.Unused"].is_object() && definitions["x.Pear"].is_object());
    }
}
