//! Amounts of resources by name, and what a pod asks for in all.

use std::collections::BTreeMap;

use crate::quantity::Quantity;
use serde_json::Value;

/// Amounts by name of resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// Reads an object of quantities; what does not parse is validation's to refuse.
pub fn read(list: &Value) -> Amounts {
    let items = list.as_object().into_iter().flatten();
    items.filter_map(|(name, v)| Some((name.clone(), quantity(v)?))).collect()
}

pub fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).map_or(*amount, |t| t.plus(*amount));
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        if total.get(name).is_none_or(|t| t < amount) {
            total.insert(name.clone(), *amount);
        }
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

/// What a pod needs at its highest: all containers together, or an init container with the sidecars before it. `kind` is
/// `requests` or `limits`. Resources of the pod itself replace the sum.
pub fn of_pod(spec: &Value, kind: &str) -> Amounts {
    let containers = |list: &str| spec[list].as_array().into_iter().flatten();
    let own = |container: &Value| read(&container["resources"][kind]);
    let mut total = Amounts::new();
    for container in containers("containers") {
        add(&mut total, &own(container));
    }
    let (mut sidecars, mut initial) = (Amounts::new(), Amounts::new());
    for container in containers("initContainers") {
        let mut peak = own(container);
        if is_sidecar(container) {
            add(&mut total, &peak);
            add(&mut sidecars, &peak);
            peak = sidecars.clone();
        } else {
            add(&mut peak, &sidecars);
        }
        raise(&mut initial, &peak);
    }
    raise(&mut total, &initial);
    total.extend(read(&spec["resources"][kind]));
    let overhead = read(&spec["overhead"]);
    if kind == "requests" {
        add(&mut total, &overhead);
    } else {
        // A limit that does not exist stays away.
        let limited: Amounts = overhead.into_iter().filter(|(name, _)| total.contains_key(name)).collect();
        add(&mut total, &limited);
    }
    total
}

/// Guaranteed, Burstable or BestEffort, from the requests and limits of cpu and memory.
pub fn qos_class(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    let whole = &spec["resources"];
    let at_pod_level = COMPUTE.iter().any(|r| !whole["requests"][r].is_null() || !whole["limits"][r].is_null());
    let resources: Vec<&Value> = if at_pod_level {
        vec![whole]
    } else {
        ["containers", "initContainers"]
            .iter()
            .flat_map(|list| spec[*list].as_array().into_iter().flatten())
            .map(|c| &c["resources"])
            .collect()
    };
    let amount = |resources: &Value, kind: &str, name: &str| {
        let text = resources[kind][name].as_str()?;
        Quantity::parse(text).ok().filter(|q| !q.is_zero())
    };
    let any = |r: &&Value| COMPUTE.iter().any(|n| amount(r, "requests", n).or(amount(r, "limits", n)).is_some());
    if !resources.iter().any(any) {
        return "BestEffort";
    }
    let exact = resources.iter().all(|r| {
        COMPUTE.iter().all(|name| {
            let limit = amount(r, "limits", name);
            let request = amount(r, "requests", name).or(limit);
            // The same amount may be written in two ways.
            limit.is_some() && request.partial_cmp(&limit) == Some(std::cmp::Ordering::Equal)
        })
    });
    if exact { "Guaranteed" } else { "Burstable" }
}

/// Resources that decide the quality of service of a pod.
const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// `a=1,b=2Gi`
pub fn print(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_needs_its_peak() {
        let cpu = |n: &str| json!({"requests": {"cpu": n}, "limits": {"cpu": n}});
        let spec = json!({"containers": [{"resources": cpu("1")}, {"resources": cpu("500m")}], "overhead": {"cpu": "250m", "memory": "1Mi"},
            "initContainers": [{"resources": cpu("1"), "restartPolicy": "Always"}, {"resources": cpu("3")}]});
        assert_eq!(print(&of_pod(&spec, "requests")), "cpu=4250m,memory=1Mi");
        assert_eq!(print(&of_pod(&spec, "limits")), "cpu=4250m");
    }
}
