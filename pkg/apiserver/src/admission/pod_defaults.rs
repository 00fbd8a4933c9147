//! Small plugins that complete pods and nodes.

use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::amounts;
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::reader::StorageReader;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Appends to a list that may not be there yet.
pub(super) fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}

pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Pods leave a failed node after five minutes unless they say otherwise.
pub struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.writes("", "pods")
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(pod) = &mut attributes.object else { return Ok(()) };
        let tolerates = |taint: &str| {
            items(&pod["spec"]["tolerations"]).any(|t| {
                let key = t["key"].as_str().unwrap_or_default();
                (key == taint || key.is_empty()) && matches!(t["effect"].as_str(), None | Some("" | "NoExecute"))
            })
        };
        for taint in [NOT_READY, UNREACHABLE].into_iter().filter(|t| !tolerates(t)).collect::<Vec<_>>() {
            let toleration =
                json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
            push(&mut pod["spec"]["tolerations"], toleration);
        }
        Ok(())
    }
}

/// A new node takes no pods before it reported its conditions.
pub struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.creates("", "nodes")
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(node) = &mut attributes.object else { return Ok(()) };
        let tainted = |t: &Value| t["key"] == NOT_READY && t["effect"] == "NoSchedule";
        if !items(&node["spec"]["taints"]).any(tainted) {
            push(&mut node["spec"]["taints"], json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        Ok(())
    }
}

/// Copies the node's zone and region to pods.
pub struct PodTopologyLabels {
    reader: Arc<StorageReader>,
}

const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

impl PodTopologyLabels {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader }
    }
}

#[async_trait]
impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.creates("", "pods")
            || (attributes.is("", "pods")
                && attributes.subresource == "binding"
                && attributes.operation == Operation::Create)
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(object) = &mut attributes.object else { return Ok(()) };
        let node = if attributes.subresource.is_empty() {
            object["spec"]["nodeName"].as_str()
        } else {
            object["target"]["name"]
                .as_str()
                .filter(|_| matches!(object["target"]["kind"].as_str(), None | Some("" | "Node")))
        };
        let node = node.filter(|n| !n.is_empty());
        let Some(node) = node.and_then(|n| self.reader.collection("", "nodes")?.get("", n)) else { return Ok(()) };
        for label in TOPOLOGY {
            if let Some(value) = node.label(label) {
                object["metadata"]["labels"][label] = value.into();
            }
        }
        Ok(())
    }
}

/// Applies the overhead and the scheduling of a pod's RuntimeClass.
pub struct RuntimeClass {
    reader: Arc<StorageReader>,
}

impl RuntimeClass {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader }
    }

    fn class_of(&self, attributes: &Attributes) -> Result<Option<Value>, Status> {
        let name = attributes.object.as_ref().and_then(|pod| pod["spec"]["runtimeClassName"].as_str());
        let Some(name) = name.filter(|n| !n.is_empty()) else { return Ok(None) };
        let found = self.reader.collection("node.k8s.io", "runtimeclasses").and_then(|c| c.get("", name));
        let missing = || {
            let why = format!("pod rejected: RuntimeClass \"{name}\" not found");
            attributes.forbidden(why)
        };
        found.map(|class| Some(class.value())).ok_or_else(missing)
    }
}

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.creates("", "pods")
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(class) = self.class_of(attributes)? else { return Ok(()) };
        let Some(mut pod) = attributes.object.take() else { return Ok(()) };
        let result = apply_class(attributes, &mut pod["spec"], &class);
        attributes.object = Some(pod);
        result
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let class = self.class_of(attributes)?;
        let Some(pod) = &attributes.object else { return Ok(()) };
        let defined = class.as_ref().map(|class| &class["overhead"]).filter(|overhead| overhead.is_object());
        let own = amounts::read(&pod["spec"]["overhead"]);
        match defined {
            Some(overhead) if amounts::read(&overhead["podFixed"]) != own => {
                Err(attributes.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
            }
            None if !own.is_empty() => {
                let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
                Err(attributes.forbidden(why))
            }
            _ => Ok(()),
        }
    }
}

fn apply_class(attributes: &Attributes, spec: &mut Value, class: &Value) -> Result<(), Status> {
    let overhead = &class["overhead"]["podFixed"];
    if overhead.as_object().is_some_and(|o| !o.is_empty()) {
        let given = spec.get("overhead").filter(|o| o.as_object().is_some_and(|o| !o.is_empty()));
        if given.is_some_and(|given| amounts::read(given) != amounts::read(overhead)) {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(attributes.forbidden(why));
        }
        spec["overhead"] = overhead.clone();
    }
    for (key, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        let given = spec.get("nodeSelector").and_then(|s| s.get(key));
        if given.is_some_and(|given| given != value) {
            return Err(attributes.forbidden(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                value.as_str().unwrap_or_default(),
                given.and_then(Value::as_str).unwrap_or_default()
            )));
        }
        spec["nodeSelector"][key] = value.clone();
    }
    let more: Vec<Value> = items(&class["scheduling"]["tolerations"]).cloned().collect();
    if !more.is_empty() {
        let own: Vec<Value> = items(&spec["tolerations"]).cloned().collect();
        spec["tolerations"] = merged([own, more].concat()).into();
    }
    Ok(())
}

/// Tolerations without those that others include; of equal ones the first stays.
pub(super) fn merged(all: Vec<Value>) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let later = all[index + 1..].iter().any(|other| other != toleration && includes(other, toleration));
        if !later && !kept.iter().any(|other| includes(other, toleration)) {
            kept.push(toleration.clone());
        }
    }
    kept
}

/// Whether whoever has the one toleration needs the other no more.
pub(super) fn includes(one: &Value, other: &Value) -> bool {
    let text = |toleration: &'_ Value, member: &str| toleration[member].as_str().unwrap_or_default().to_owned();
    let same = |member: &str| text(one, member) == text(other, member);
    let exists = text(one, "operator") == "Exists";
    if one == other {
        return true;
    }
    let about_key = same("key") || (text(one, "key").is_empty() && exists);
    let about_effect = same("effect") || text(one, "effect").is_empty();
    if !about_key || !about_effect {
        return false;
    }
    let seconds = |toleration: &Value| toleration["tolerationSeconds"].as_i64();
    if let Some(most) = seconds(one).filter(|_| text(one, "effect") == "NoExecute")
        && seconds(other).is_none_or(|s| s > most)
    {
        return false;
    }
    exists || (matches!(text(one, "operator").as_str(), "" | "Equal") && same("operator") && same("value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_that_others_include_are_left_out() {
        let all = json!({"operator": "Exists"});
        let a = json!({"key": "a", "operator": "Equal", "value": "1", "effect": "NoSchedule"});
        let any_a = json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"});
        let short = json!({"key": "b", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let long = json!({"key": "b", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9});
        for (given, expected) in [
            (vec![&a, &a], vec![&a]),
            (vec![&a, &any_a], vec![&any_a]),
            (vec![&any_a, &a], vec![&any_a]),
            (vec![&short, &long], vec![&long]),
            (vec![&long, &a], vec![&long, &a]),
            (vec![&a, &all, &long], vec![&all]),
        ] {
            let found = merged(given.into_iter().cloned().collect());
            assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        }
    }
}
