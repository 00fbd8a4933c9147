//! What objects count for in ResourceQuotas. The admission that charges and the controller that counts agree through it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::amounts::{self, Amounts, qos_class};
use crate::quantity::Quantity;

/// Core resources that quotas also count under their plain name.
const PLAIN: [&str; 7] =
    ["configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"];
/// Amounts of these are counted as requests under their plain name too.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Everything an object of a resource counts for. `group` is empty for the core group.
pub fn usage(group: &str, plural: &str, object: &Value) -> Amounts {
    let one = Quantity::from_units(1);
    let mut usage = Amounts::new();
    if (group, plural) == ("", "events") {
        return usage;
    }
    let name = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    usage.insert(format!("count/{name}"), one);
    if (group, plural) == ("resource.k8s.io", "resourceclaims") {
        devices(&object["spec"]["devices"], &mut usage);
    }
    if !group.is_empty() {
        return usage;
    }
    match plural {
        "pods" => pod(&object["spec"], &mut usage),
        "services" => service(&object["spec"], &mut usage),
        "persistentvolumeclaims" => claim(object, &mut usage),
        _ => {}
    }
    if PLAIN.contains(&plural) {
        usage.insert(plural.to_owned(), one);
    }
    usage
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
    // While an expansion is undone, the larger amount counts.
    let allocated = amounts::quantity(&object["status"]["allocatedResources"]["storage"]);
    let storage = amounts::quantity(&spec["resources"]["requests"]["storage"]);
    let storage = storage.map(|asked| allocated.filter(|a| *a > asked).unwrap_or(asked));
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

/// Devices that a claim may get of each class.
fn devices(devices: &Value, usage: &mut Amounts) {
    /// What a request of all devices may give at most.
    const ALL: i64 = 32;
    let count = |request: &Value| match request["allocationMode"].as_str() {
        Some("All") => ALL,
        _ => request["count"].as_i64().unwrap_or(1),
    };
    for request in devices["requests"].as_array().into_iter().flatten() {
        // Of alternatives, the worst for each class.
        let mut most: BTreeMap<&str, i64> = BTreeMap::new();
        let alternatives = request["firstAvailable"].as_array().into_iter().flatten();
        let exactly = Some(&request["exactly"]).filter(|e| e.is_object());
        for one in alternatives.chain(exactly) {
            let class = one["deviceClassName"].as_str().unwrap_or_default();
            let known = most.entry(class).or_default();
            *known = count(one).max(*known);
        }
        let most = most.into_iter();
        let name = |class| format!("{class}.deviceclass.resource.k8s.io/devices");
        amounts::add(usage, &most.map(|(class, count)| (name(class), Quantity::from_units(count))).collect());
    }
}

/// Whether a quota's limit of this name is about pods.
pub fn is_of_pods(name: &str) -> bool {
    if matches!(name, "pods" | "count/pods") || name.starts_with("hugepages-") {
        return true;
    }
    let rest = name.strip_prefix("requests.").or(name.strip_prefix("limits."));
    if COMPUTE.contains(&rest.unwrap_or(name)) {
        return true;
    }
    let extended = |rest: &str| rest.contains('/') && !name.contains("kubernetes.io/");
    name.strip_prefix("requests.").is_some_and(|rest| rest.starts_with("hugepages-") || extended(rest))
}

/// Whether an object of a resource is in every scope of a quota's `spec`.
pub fn in_scopes(group: &str, plural: &str, spec: &Value, object: &Value) -> bool {
    let plain = spec["scopes"].as_array().into_iter().flatten();
    let plain = plain.map(|scope| json!({"scopeName": scope, "operator": "Exists"}));
    let selected = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten().cloned();
    plain.chain(selected).all(|requirement| in_scope((group, plural), &requirement, object))
}

fn in_scope(resource: (&str, &str), requirement: &Value, object: &Value) -> bool {
    let scope = requirement["scopeName"].as_str().unwrap_or_default();
    let spec = &object["spec"];
    if resource == ("", "persistentvolumeclaims") && scope == "VolumeAttributesClass" {
        // The class it has, the one it is to get and the one that is being tried.
        let status = &object["status"];
        let classes = [
            &spec["volumeAttributesClassName"],
            &status["currentVolumeAttributesClassName"],
            &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
        ];
        let mut named = classes.iter().filter_map(|c| c.as_str()).filter(|c| !c.is_empty()).peekable();
        return match named.peek() {
            None => selects(requirement, None),
            Some(_) => named.any(|class| selects(requirement, Some(class))),
        };
    }
    if resource != ("", "pods") {
        return false;
    }
    let terminating = spec["activeDeadlineSeconds"].as_i64().is_some_and(|s| s >= 0);
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => qos_class(object) == "BestEffort",
        "NotBestEffort" => qos_class(object) != "BestEffort",
        "PriorityClass" => selects(requirement, spec["priorityClassName"].as_str()),
        "CrossNamespacePodAffinity" => reaches_out(&spec["affinity"]),
        _ => false,
    }
}

fn selects(requirement: &Value, value: Option<&str>) -> bool {
    let value = value.filter(|v| !v.is_empty());
    let listed = || requirement["values"].as_array().into_iter().flatten().any(|v| v.as_str() == value);
    match requirement["operator"].as_str() {
        Some("In") => value.is_some() && listed(),
        Some("NotIn") => value.is_none() || !listed(),
        Some("Exists") => value.is_some(),
        Some("DoesNotExist") => value.is_none(),
        _ => false,
    }
}

/// Whether affinity terms look at pods of other namespaces.
fn reaches_out(affinity: &Value) -> bool {
    let out = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|n| !n.is_empty()) || !term["namespaceSelector"].is_null()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let required = affinity[*kind]["requiredDuringSchedulingIgnoredDuringExecution"].as_array();
        let preferred = affinity[*kind]["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
        required.into_iter().flatten().any(out) || preferred.into_iter().flatten().any(|p| out(&p["podAffinityTerm"]))
    })
}
