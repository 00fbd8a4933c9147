//! Makes the tables in `src/data` from a folder of facts: `cargo run -p kube1-api --example generate -- FOLDER`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};

type BoxError = Box<dyn std::error::Error>;

fn main() -> Result<(), BoxError> {
    let facts = PathBuf::from(std::env::args().nth(1).ok_or("usage: generate FOLDER")?);
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/data");
    let schema = read(&facts.join("schema.json"))?;
    let discovery = read(&facts.join("discovery.json"))?;
    let resources = resources(&discovery, &schema)?;
    let declared: Declared = serde_json::from_str(&std::fs::read_to_string(facts.join("schema.json"))?)?;
    let types = types(&schema, &declared);
    std::fs::write(out.join("types.json"), lines(&types)?)?;
    std::fs::write(out.join("resources.json"), lines(&resources)?)?;
    let defaults = read(&facts.join("defaults.json"))?;
    std::fs::write(out.join("defaults.json"), lines(&default_rules(&defaults, &types))?)?;
    std::fs::write(out.join("features.txt"), features(&read(&facts.join("feature-gates.json"))?))?;
    Ok(())
}

/// A line for each feature gate: its name, its stage, whether it is on, and whether that can be changed.
fn features(gates: &Value) -> String {
    let sorted: BTreeMap<&String, &Value> = gates.as_object().into_iter().flatten().collect();
    let line = |(name, gate): (&String, &Value)| {
        let on = if gate["on"] == true { "on" } else { "off" };
        let locked = if gate["locked"] == true { " locked" } else { "" };
        format!("{name} {} {on}{locked}\n", gate["stage"].as_str().unwrap_or_default())
    };
    sorted.into_iter().map(line).collect()
}

fn read(path: &Path) -> Result<Value, BoxError> {
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

/// One row a line, so that changes can be read.
fn lines(rows: &[Value]) -> Result<String, BoxError> {
    let mut text = String::from("[\n");
    for (index, row) in rows.iter().enumerate() {
        let comma = if index + 1 == rows.len() { "" } else { "," };
        writeln!(text, "{}{comma}", serde_json::to_string(row)?)?;
    }
    text.push_str("]\n");
    Ok(text)
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Versions that are off by default are left out. The resource metrics API has no other version.
fn is_wanted(name: &str) -> bool {
    name.contains(".apis.metrics.v1beta1.")
        || !name.contains("alpha") && !name.contains("beta") && !name.contains(".audit.")
}

/// The names of each type's fields, in the order in which upstream declares them.
#[derive(Deserialize)]
struct Declared {
    types: BTreeMap<String, DeclaredType>,
}

#[derive(Default, Deserialize)]
struct DeclaredType {
    #[serde(default)]
    fields: Names,
}

#[derive(Default)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self::default())
    }
}

impl<'de> Visitor<'de> for Names {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Self, A::Error> {
        while let Some((name, IgnoredAny)) = members.next_entry()? {
            self.0.push(name);
        }
        Ok(self)
    }
}

fn types(schema: &Value, declared: &Declared) -> Vec<Value> {
    let empty = Map::new();
    let all = schema["types"].as_object().unwrap_or(&empty);
    let wanted = all.iter().filter(|(name, _)| is_wanted(name));
    wanted.map(|(name, ty)| type_row(name, ty, declared.types.get(name).map_or(&[], |t| &t.fields.0))).collect()
}

/// Positions of a type's fields, which come in the order of their numbers, as JSON has their members: as declared, those
/// of an inline message in its place. `None` if that is the order of the fields without inline messages.
fn json_order(fields: &[Value], declared: &[String]) -> Option<Value> {
    let place = |field: &Value| declared.iter().position(|name| field["n"] == **name);
    // Inline messages are declared where their numbers say.
    let number = |name: &Value| fields.iter().find(|f| f["n"] == *name).and_then(|f| f["i"].as_u64());
    let before = |inline: &Value| {
        let number = number(inline);
        let plain = fields.iter().filter(|f| f["v"].is_null() && f["in"].is_null());
        plain.filter(|f| f["i"].as_u64() < number).filter_map(place).map(|p| p + 1).max().unwrap_or(0)
    };
    let shown = |index: &usize| fields[*index]["in"].is_null();
    let natural: Vec<usize> = (0..fields.len()).filter(shown).collect();
    let mut order = natural.clone();
    order.sort_by_key(|index| {
        let field = &fields[*index];
        match field["v"].get(0) {
            Some(inline) => (before(inline), 1, place(field)),
            None => (place(field).map_or(usize::MAX, |p| p + 1), 0, None),
        }
    });
    (order != natural).then(|| order.into())
}

fn type_row(name: &str, ty: &Value, declared: &[String]) -> Value {
    let mut row = Map::new();
    row.insert("n".into(), name.into());
    for (from, to) in [("encoding", "e"), ("typeMeta", "m"), ("mapType", "mt")] {
        if !ty[from].is_null() {
            row.insert(to.into(), ty[from].clone());
        }
    }
    let empty = Map::new();
    let fields = ty["fields"].as_object().unwrap_or(&empty);
    let mut list: Vec<Value> = fields.iter().map(|(name, field)| field_row(name, field)).collect();
    list.sort_by_key(|f| f["i"].as_u64());
    if let Some(order) = json_order(&list, declared) {
        row.insert("jo".into(), order);
    }
    row.insert("f".into(), list.into());
    row.into()
}

fn field_row(name: &str, field: &Value) -> Value {
    const KEYS: [(&str, &str); 19] = [
        ("n", "i"),
        ("t", "t"),
        ("ref", "r"),
        ("rep", "l"),
        ("map", "k"),
        ("via", "v"),
        ("inline", "in"),
        ("ptr", "p"),
        ("req", "q"),
        ("omitempty", "o"),
        ("omitzero", "z"),
        ("listType", "lt"),
        ("listMapKeys", "lk"),
        ("mapType", "mt"),
        ("patchStrategy", "ps"),
        ("patchMergeKey", "pk"),
        ("default", "d"),
        ("enum", "en"),
        ("itemEnum", "ie"),
    ];
    let mut row = Map::new();
    row.insert("n".into(), name.into());
    for (from, to) in KEYS {
        let value = &field[from];
        if !value.is_null() && *value != json!(false) {
            row.insert(to.into(), value.clone());
        }
    }
    row.into()
}

fn resources(discovery: &Value, schema: &Value) -> Result<Vec<Value>, BoxError> {
    let served: BTreeSet<&str> = strings(&discovery["servedByDefault"]).into_iter().collect();
    let kinds = kinds(schema);
    let mut rows = Vec::new();
    for list in ["api", "apis"] {
        for group in discovery[list]["items"].as_array().into_iter().flatten() {
            let group_name = group["metadata"]["name"].as_str().unwrap_or_default();
            for version in group["versions"].as_array().into_iter().flatten() {
                let version_name = version["version"].as_str().ok_or("a version without name")?;
                let api_version = if group_name.is_empty() {
                    version_name.to_owned()
                } else {
                    format!("{group_name}/{version_name}")
                };
                if !served.contains(api_version.as_str()) {
                    continue;
                }
                for resource in version["resources"].as_array().into_iter().flatten() {
                    rows.push(resource_row(group_name, version_name, &api_version, resource, discovery, &kinds));
                }
            }
        }
    }
    Ok(rows)
}

fn kinds(schema: &Value) -> BTreeMap<String, String> {
    let mut kinds = BTreeMap::new();
    for (name, ty) in schema["types"].as_object().into_iter().flatten() {
        for gvk in ty["gvk"].as_array().into_iter().flatten() {
            kinds.entry(strings(gvk).join("/")).or_insert(name.clone());
        }
    }
    kinds
}

fn resource_row(
    group: &str,
    version: &str,
    api_version: &str,
    resource: &Value,
    discovery: &Value,
    kinds: &BTreeMap<String, String>,
) -> Value {
    let plural = resource["resource"].as_str().unwrap_or_default();
    let kind = resource["responseKind"]["kind"].as_str().unwrap_or_default();
    // The aggregator's own group comes first and has no APIService.
    let first = json!([20000, 15]);
    let priority = if group == "apiregistration.k8s.io" { &first } else { &discovery["priority"][api_version] };
    let subresources: Vec<Value> =
        resource["subresources"].as_array().into_iter().flatten().map(subresource_row).collect();
    json!({
        "group": group, "version": version, "plural": plural, "kind": kind,
        "singular": resource["singularResource"].as_str().unwrap_or_default(), "namespaced": resource["scope"] == "Namespaced",
        "short": strings(&resource["shortNames"]), "categories": strings(&resource["categories"]),
        "verbs": strings(&resource["verbs"]), "subresources": subresources,
        "type": kinds.get(&format!("{group}/{version}/{kind}")),
        "hash": discovery["storageVersionHash"][format!("{api_version}/{plural}")].as_str().unwrap_or_default(),
        "priority": [priority[0].as_i64().unwrap_or(1000), priority[1].as_i64().unwrap_or(15)],
    })
}

fn subresource_row(subresource: &Value) -> Value {
    let kind = &subresource["responseKind"];
    json!({"name": subresource["subresource"], "verbs": strings(&subresource["verbs"]), "kind": kind["kind"],
        "group": kind["group"].as_str().unwrap_or_default(), "version": kind["version"].as_str().unwrap_or_default()})
}

fn default_rules(defaults: &Value, types: &[Value]) -> Vec<Value> {
    let known: BTreeSet<&str> = types.iter().filter_map(|t| t["n"].as_str()).collect();
    let all = defaults.as_object().into_iter().flatten().filter(|(name, _)| known.contains(name.as_str()));
    all.map(|(name, rules)| {
        let mut rules = rules.as_array().cloned().unwrap_or_default();
        if name == "io.k8s.api.core.v1.Node" {
            // Not a default upstream: its conversion keeps podCIDR and podCIDRs alike.
            rules.insert(0, json!(["", "Node"]));
        }
        json!({"n": name, "r": rules})
    })
    .collect()
}
