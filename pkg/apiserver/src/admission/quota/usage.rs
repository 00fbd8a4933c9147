//! What an object counts for in quotas.

use std::collections::BTreeMap;

use kube1_api::quantity::Quantity;
use serde_json::Value;

use super::super::amounts::{self, Amounts};
use super::super::{Attributes, Operation};

/// Core resources that quotas also count under their plain name.
const PLAIN: [&str; 7] =
    ["configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"];
/// Amounts of these are counted as requests under their plain name too.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Whether an update can change what the object counts for.
pub(super) fn counts_updates(attributes: &Attributes) -> bool {
    let main = attributes.subresource.is_empty();
    (main && (attributes.is("", "services") || attributes.is("", "persistentvolumeclaims")))
        || (attributes.is("", "pods") && attributes.subresource == "resize")
}

/// Everything the object counts for.
pub(super) fn of(attributes: &Attributes, object: &Value) -> Amounts {
    let resource = &attributes.resource;
    let one = Quantity::from_units(1);
    let mut usage = Amounts::new();
    usage.insert(format!("count/{}", attributes.group_resource()), one);
    if !resource.group.is_empty() {
        return usage;
    }
    match resource.plural.as_str() {
        "pods" => pod(&object["spec"], &mut usage),
        "services" => service(&object["spec"], &mut usage),
        "persistentvolumeclaims" => claim(object, &mut usage),
        _ => {}
    }
    if PLAIN.contains(&resource.plural.as_str()) {
        usage.insert(resource.plural.clone(), one);
    }
    usage
}

pub(super) fn subtract(usage: &mut Amounts, old: &Amounts) {
    for (name, amount) in old {
        let left = usage.get(name).copied().unwrap_or(Quantity::from_units(0)).minus(*amount);
        usage.insert(name.clone(), left);
    }
}

fn pod(spec: &Value, usage: &mut Amounts) {
    for (name, amount) in amounts::of_pod(spec, "requests") {
        let counted_plain = COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-");
        usage.insert(format!("requests.{name}"), amount);
        if counted_plain {
            usage.insert(name, amount);
        }
    }
    for (name, amount) in amounts::of_pod(spec, "limits") {
        if COMPUTE.contains(&name.as_str()) {
            usage.insert(format!("limits.{name}"), amount);
        }
    }
}

fn service(spec: &Value, usage: &mut Amounts) {
    let ports = spec["ports"].as_array().map_or(0, Vec::len);
    let count = |n: usize| Quantity::from_units(i64::try_from(n).unwrap_or(i64::MAX));
    let (node_ports, balancers) = match spec["type"].as_str() {
        Some("NodePort") => (ports, 0),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"].as_bool() == Some(false) => {
            let named = spec["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|p| p["nodePort"].as_u64().is_some_and(|n| n != 0));
            (named.count(), 1)
        }
        Some("LoadBalancer") => (ports, 1),
        _ => (0, 0),
    };
    usage.insert("services.nodeports".into(), count(node_ports));
    usage.insert("services.loadbalancers".into(), count(balancers));
}

fn claim(object: &Value, usage: &mut Amounts) {
    let spec = &object["spec"];
    let class = object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    let class = class.or(spec["storageClassName"].as_str()).filter(|c| !c.is_empty());
    let storage = amounts::quantity(&spec["resources"]["requests"]["storage"]);
    if let Some(storage) = storage {
        usage.insert("requests.storage".into(), storage);
    }
    if let Some(class) = class {
        let prefix = format!("{class}.storageclass.storage.k8s.io");
        usage.insert(format!("{prefix}/persistentvolumeclaims"), Quantity::from_units(1));
        if let Some(storage) = storage {
            usage.insert(format!("{prefix}/requests.storage"), storage);
        }
    }
}

/// Compute resources that a quota counts and a container of the pod leaves open.
pub(super) fn missing(attributes: &Attributes, pod: &Value, hard: &Amounts) -> Option<String> {
    if !attributes.is("", "pods") || attributes.operation != Operation::Create {
        return None;
    }
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for key in hard.keys() {
        let (kind, name) = match key.split_once('.') {
            Some(("limits", name)) => ("limits", name),
            Some(("requests", name)) => ("requests", name),
            _ => ("requests", key.as_str()),
        };
        let at_pod_level = !pod["spec"]["resources"][kind][name].is_null();
        if !matches!(name, "cpu" | "memory") || at_pod_level {
            continue;
        }
        for list in ["containers", "initContainers"] {
            for container in pod["spec"][list].as_array().into_iter().flatten() {
                if container["resources"][kind][name].is_null() {
                    missing.entry(key).or_default().push(container["name"].as_str().unwrap_or_default());
                }
            }
        }
    }
    let texts: Vec<String> = missing.iter().map(|(key, names)| format!("{key} for: {}", names.join(","))).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}
