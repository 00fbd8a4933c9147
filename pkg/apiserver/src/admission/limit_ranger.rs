//! LimitRanger: default requests and limits, and bounds for containers, pods and claims.

use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::amounts::{self, Amounts};
use kube1_api::quantity::Quantity;
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, together};
use crate::reader::StorageReader;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub struct LimitRanger {
    reader: Arc<StorageReader>,
}

impl LimitRanger {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader }
    }

    /// The limits of each LimitRange of the namespace.
    fn ranges(&self, namespace: &str) -> Vec<Vec<Value>> {
        let ranges = self.reader.collection("", "limitranges").map(|c| c.all(Some(namespace))).unwrap_or_default();
        ranges.iter().map(|range| range.value()["spec"]["limits"].as_array().cloned().unwrap_or_default()).collect()
    }
}

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        let resizes = attributes.is("", "pods")
            && attributes.subresource == "resize"
            && attributes.operation == Operation::Update;
        // What is on its way out may be changed to get there.
        let deleted = attributes.operation == Operation::Update
            && attributes.object.as_ref().is_some_and(|o| !o["metadata"]["deletionTimestamp"].is_null());
        (attributes.creates("", "pods") || resizes || attributes.writes("", "persistentvolumeclaims")) && !deleted
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        if !attributes.is("", "pods") {
            return Ok(());
        }
        let ranges = self.ranges(&attributes.namespace);
        let Some(pod) = &mut attributes.object else { return Ok(()) };
        for limits in &ranges {
            let defaults = defaults(limits);
            let mut said = Vec::new();
            for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
                for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                    fill_in(container, word, &defaults, &mut said);
                }
            }
            if !said.is_empty() {
                let said = format!("LimitRanger plugin set: {}", said.join("; "));
                pod["metadata"]["annotations"][ANNOTATION] = said.into();
            }
        }
        Ok(())
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(object) = &attributes.object else { return Ok(()) };
        for limits in self.ranges(&attributes.namespace) {
            let mut problems = Vec::new();
            for limit in &limits {
                let kind = limit["type"].as_str().unwrap_or_default();
                if attributes.is("", "pods") {
                    check_pod(&object["spec"], kind, limit, &mut problems);
                } else if kind == "PersistentVolumeClaim" {
                    check_claim(&object["spec"], limit, &mut problems);
                }
            }
            if let Some(problems) = together(problems) {
                return Err(attributes.forbidden(problems));
            }
        }
        Ok(())
    }
}

/// What containers get that leave it open: of several limits the last one counts.
fn defaults(limits: &[Value]) -> Value {
    let mut defaults = json!({});
    for limit in limits.iter().filter(|l| l["type"] == "Container") {
        for (kind, member) in [("requests", "defaultRequest"), ("limits", "default")] {
            for (name, amount) in limit[member].as_object().into_iter().flatten() {
                defaults[kind][name] = amount.clone();
            }
        }
    }
    defaults
}

/// Sets what the container leaves open.
fn fill_in(container: &mut Value, of: &str, defaults: &Value, said: &mut Vec<String>) {
    for (kind, word) in [("requests", "request"), ("limits", "limit")] {
        let mut set = Vec::new();
        for (name, amount) in defaults[kind].as_object().into_iter().flatten() {
            if container["resources"][kind].get(name).is_none() {
                container["resources"][kind][name] = amount.clone();
                set.push(name.as_str());
            }
        }
        set.sort_unstable();
        if !set.is_empty() {
            let name = container["name"].as_str().unwrap_or_default();
            said.push(format!("{} {word} for {of} {name}", set.join(", ")));
        }
    }
}

fn check_pod(spec: &Value, kind: &str, limit: &Value, problems: &mut Vec<String>) {
    match kind {
        "Container" => {
            for list in ["containers", "initContainers"] {
                for container in spec[list].as_array().into_iter().flatten() {
                    let [requests, limits] = ["requests", "limits"].map(|k| amounts::read(&container["resources"][k]));
                    check(kind, limit, &requests, &limits, problems);
                }
            }
        }
        "Pod" => {
            // What the pod itself costs beside its containers is not what it asked for.
            let mut own = spec.clone();
            own["overhead"] = Value::Null;
            let [requests, limits] = ["requests", "limits"].map(|k| amounts::of_pod(&own, k));
            check(kind, limit, &requests, &limits, problems);
        }
        _ => {}
    }
}

fn check(kind: &str, limit: &Value, requests: &Amounts, limits: &Amounts, problems: &mut Vec<String>) {
    let mut report = |problem: Option<String>| problems.extend(problem);
    for (name, bound) in amounts::read(&limit["min"]) {
        let usage = format!("minimum {name} usage per {kind} is {bound}");
        report(match (requests.get(&name), limits.get(&name)) {
            (None, _) => Some(format!("{usage}.  No request is specified")),
            (Some(request), _) if *request < bound => Some(format!("{usage}, but request is {request}")),
            (_, Some(limit)) if *limit < bound => Some(format!("{usage}, but limit is {limit}")),
            _ => None,
        });
    }
    for (name, bound) in amounts::read(&limit["max"]) {
        let usage = format!("maximum {name} usage per {kind} is {bound}");
        report(match (requests.get(&name), limits.get(&name)) {
            (_, None) => Some(format!("{usage}.  No limit is specified")),
            (_, Some(limit)) if *limit > bound => Some(format!("{usage}, but limit is {limit}")),
            (Some(request), _) if *request > bound => Some(format!("{usage}, but request is {request}")),
            _ => None,
        });
    }
    for (name, bound) in amounts::read(&limit["maxLimitRequestRatio"]) {
        let usage = format!("{name} max limit to request ratio per {kind} is {bound}, but");
        let positive = |amounts: &Amounts| amounts.get(&name).copied().filter(|a| !a.is_zero());
        report(match (positive(requests), positive(limits)) {
            (None, _) => Some(format!("{usage} no request is specified or request is 0")),
            (_, None) => Some(format!("{usage} no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.millis() as f64 / request.millis() as f64;
                let most = bound.millis() as f64 / 1000.0;
                (ratio > most).then(|| format!("{usage} provided ratio is {ratio:.6}"))
            }
        });
    }
}

fn check_claim(spec: &Value, limit: &Value, problems: &mut Vec<String>) {
    let Some(request) = amounts::quantity(&spec["resources"]["requests"]["storage"]) else { return };
    let bound = |which: &str| -> Option<Quantity> { amounts::quantity(&limit[which]["storage"]) };
    if let Some(least) = bound("min").filter(|b| request < *b) {
        problems.push(format!("minimum storage usage per PersistentVolumeClaim is {least}, but request is {request}"));
    }
    if let Some(most) = bound("max").filter(|b| request > *b) {
        problems.push(format!("maximum storage usage per PersistentVolumeClaim is {most}, but request is {request}"));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_bounds() {
        let limit = json!({"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"},
            "min": {"cpu": "50m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "5"}});
        let mut container = json!({"name": "c"});
        let mut said = Vec::new();
        let other = json!({"type": "Container", "default": {"cpu": "400m", "memory": "1Gi"}});
        let defaults = defaults(&[limit.clone(), other, json!({"type": "Pod", "default": {"cpu": "9"}})]);
        fill_in(&mut container, "init container", &defaults, &mut said);
        assert_eq!(
            container["resources"],
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "400m", "memory": "1Gi"}})
        );
        assert_eq!(said, ["cpu request for init container c", "cpu, memory limit for init container c"]);
        let spec = json!({"containers": [{"resources": {"requests": {"cpu": "2"}}}], "overhead": {"cpu": "5"}});
        let mut problems = Vec::new();
        check_pod(&spec, "Pod", &json!({"max": {"cpu": "2"}, "min": {"cpu": "2"}}), &mut problems);
        assert_eq!(problems, ["maximum cpu usage per Pod is 2.  No limit is specified"]);
        for (requests, limits, expected) in [
            (json!({"cpu": "100m"}), json!({"cpu": "500m"}), None),
            (
                json!({"cpu": "40m"}),
                json!({"cpu": "100m"}),
                Some("minimum cpu usage per Container is 50m, but request is 40m"),
            ),
            (json!({"cpu": "1"}), json!({"cpu": "2"}), Some("maximum cpu usage per Container is 1, but limit is 2")),
            (
                json!({"cpu": "100m"}),
                json!({"cpu": "1"}),
                Some("cpu max limit to request ratio per Container is 5, but provided ratio is 10.000000"),
            ),
        ] {
            let mut problems = Vec::new();
            let spec = json!({"containers": [{"resources": {"requests": requests, "limits": limits}}]});
            check_pod(&spec, "Container", &limit, &mut problems);
            assert_eq!(problems.first().map(String::as_str), expected);
        }
    }
}
