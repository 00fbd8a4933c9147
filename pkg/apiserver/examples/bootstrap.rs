//! Makes `src/data/bootstrap.json` from a folder of facts: `cargo run -p kube1-apiserver --example bootstrap -- FOLDER`.
//!
//! A row is one object, a rule is one string: `groups;resources;verbs[;names]`, or `paths;verbs`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

type BoxError = Box<dyn std::error::Error>;

fn main() -> Result<(), BoxError> {
    let facts = PathBuf::from(std::env::args().nth(1).ok_or("usage: bootstrap FOLDER")?);
    let all: Value = serde_json::from_str(&std::fs::read_to_string(facts.join("bootstrap.json"))?)?;
    let mut rows: Vec<Value> =
        list(&all["namespaces"]).iter().map(|n| json!({"kind": "Namespace", "name": n})).collect();
    for class in list(&all["priorityClasses"]) {
        rows.push(json!({"kind": "PriorityClass", "name": class["name"], "value": class["value"]}));
    }
    for (key, kind) in [("priorityLevelConfigurations", "PriorityLevelConfiguration"), ("flowSchemas", "FlowSchema")] {
        rows.extend(list(&all[key]).iter().map(|row| with_kind(row, kind)));
    }
    let roles = [("clusterRoles", "ClusterRole"), ("controllerClusterRoles", "ClusterRole"), ("roles", "Role")];
    for (key, kind) in roles {
        rows.extend(list(&all[key]).iter().map(|row| role(row, kind)));
    }
    let bindings = [
        ("clusterRoleBindings", "ClusterRoleBinding"),
        ("controllerClusterRoleBindings", "ClusterRoleBinding"),
        ("roleBindings", "RoleBinding"),
    ];
    for (key, kind) in bindings {
        rows.extend(list(&all[key]).iter().map(|row| with_kind(row, kind)));
    }
    let lines: Result<Vec<String>, _> = rows.iter().map(serde_json::to_string).collect();
    let text = format!("[\n{}\n]\n", lines?.join(",\n"));
    std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/data/bootstrap.json"), text)?;
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn with_kind(row: &Value, kind: &str) -> Value {
    let mut out = Map::from_iter([("kind".to_owned(), Value::from(kind))]);
    out.extend(row.as_object().cloned().unwrap_or_default());
    out.into()
}

fn role(row: &Value, kind: &str) -> Value {
    let mut out = with_kind(row, kind);
    let labels: Vec<&String> = row["extraLabels"].as_object().into_iter().flatten().map(|(key, _)| key).collect();
    if !labels.is_empty() {
        out["labels"] = json!(labels);
    }
    let selectors = list(&row["aggregationRule"]["clusterRoleSelectors"]);
    let aggregate: Vec<&String> =
        selectors.iter().filter_map(|s| s["matchLabels"].as_object()).flatten().map(|(key, _)| key).collect();
    if !aggregate.is_empty() {
        out["aggregate"] = json!(aggregate);
    }
    out["rules"] = list(&row["rules"]).iter().map(rule).collect();
    let remove = |out: &mut Value, key: &str| out.as_object_mut().and_then(|o| o.remove(key));
    remove(&mut out, "extraLabels");
    remove(&mut out, "aggregationRule");
    out
}

fn rule(rule: &Value) -> String {
    let join = |key: &str| list(&rule[key]).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    if !rule["nonResourceURLs"].is_null() {
        return format!("{};{}", join("nonResourceURLs"), join("verbs"));
    }
    let mut text = format!("{};{};{}", join("apiGroups"), join("resources"), join("verbs"));
    if !rule["resourceNames"].is_null() {
        text.push(';');
        text.push_str(&join("resourceNames"));
    }
    text
}
