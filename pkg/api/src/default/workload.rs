//! Rules of workloads, services and configuration that are no constants.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::rule::{at, each, fill, fill_missing, is_empty, is_unset, set};

/// Labels of the template, for a selector or for labels that are not given.
fn template_labels(object: &Value) -> Option<Value> {
    let labels = &object["spec"]["template"]["metadata"]["labels"];
    (!is_empty(labels)).then(|| labels.clone())
}

fn labels_from_template(object: &mut Value) {
    if let Some(labels) = template_labels(object).filter(|_| is_empty(&object["metadata"]["labels"])) {
        at(object, "/metadata", |metadata| set(metadata, "labels", labels));
    }
}

pub(super) fn replication_controller(controller: &mut Value) {
    if let Some(labels) = template_labels(controller).filter(|_| is_empty(&controller["spec"]["selector"])) {
        at(controller, "/spec", |spec| set(spec, "selector", labels));
    }
    labels_from_template(controller);
}

pub(super) fn rolling(strategy: &mut Value, max_unavailable: Value, max_surge: Value) {
    if strategy["type"] == "RollingUpdate" {
        fill(strategy, "rollingUpdate", || Map::new().into());
        at(strategy, "/rollingUpdate", |update| {
            fill_missing(update, "maxUnavailable", || max_unavailable);
            fill_missing(update, "maxSurge", || max_surge);
        });
    }
}

pub(super) fn stateful_set(set_: &mut Value) {
    at(set_, "/spec/updateStrategy", |strategy| {
        if is_unset(strategy.get("type")) {
            set(strategy, "type", "RollingUpdate".into());
            fill(strategy, "rollingUpdate", || Map::new().into());
        }
        if strategy["type"] == "RollingUpdate" {
            at(strategy, "/rollingUpdate", |update| fill(update, "partition", || 0.into()));
        }
    });
    each(set_, "/spec/volumeClaimTemplates", |claim| {
        fill(claim, "apiVersion", || "v1".into());
        fill(claim, "kind", || "PersistentVolumeClaim".into());
    });
}

pub(super) fn job(job: &mut Value) {
    at(job, "/spec", |spec| {
        if is_unset(spec.get("completions")) && is_unset(spec.get("parallelism")) {
            set(spec, "completions", 1.into());
        }
        fill(spec, "parallelism", || 1.into());
        let indexed = !is_unset(spec.get("backoffLimitPerIndex"));
        fill(spec, "backoffLimit", || if indexed { i32::MAX.into() } else { 6.into() });
        let policy = if spec["podFailurePolicy"].is_object() { "Failed" } else { "TerminatingOrFailed" };
        fill_missing(spec, "podReplacementPolicy", || policy.into());
    });
    labels_from_template(job);
}

pub(super) fn service(service: &mut Value) {
    at(service, "/spec", service_spec);
    if service["spec"]["type"] == "LoadBalancer" {
        each(service, "/status/loadBalancer/ingress", |ingress| {
            if !is_unset(ingress.get("ip")) {
                fill_missing(ingress, "ipMode", || "VIP".into());
            }
        });
    }
}

fn service_spec(spec: &mut Value) {
    if spec["sessionAffinity"] == "ClientIP" {
        fill(spec, "sessionAffinityConfig", || json!({}));
        at(spec, "/sessionAffinityConfig", |config| fill(config, "clientIP", || json!({})));
        at(spec, "/sessionAffinityConfig/clientIP", |client| fill(client, "timeoutSeconds", || 10800.into()));
    } else if let Some(members) = spec.as_object_mut().filter(|m| m.get("sessionAffinity").is_some_and(|a| a == "None"))
    {
        members.remove("sessionAffinityConfig");
    }
    each(spec, "/ports", |port| {
        fill(port, "protocol", || "TCP".into());
        if is_unset(port.get("targetPort")) || port["targetPort"] == 0 {
            set(port, "targetPort", port["port"].clone());
        }
    });
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !is_empty(&spec["externalIPs"]));
    if external {
        fill(spec, "externalTrafficPolicy", || "Cluster".into());
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        fill_missing(spec, "internalTrafficPolicy", || "Cluster".into());
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", || true.into());
    }
}

/// `stringData` is written into `data`, never kept.
pub(super) fn secret(secret: &mut Value) {
    let Some(Value::Object(texts)) = secret.as_object_mut().and_then(|members| members.remove("stringData")) else {
        return;
    };
    if texts.is_empty() {
        return;
    }
    fill(secret, "data", || Map::new().into());
    at(secret, "/data", |data| {
        for (key, text) in texts {
            set(data, &key, STANDARD.encode(text.as_str().unwrap_or_default()).into());
        }
    });
}

pub(super) fn namespace(namespace: &mut Value) {
    let name = namespace["metadata"]["name"].clone();
    if is_unset(Some(&name)) {
        return;
    }
    at(namespace, "/metadata", |metadata| {
        fill(metadata, "labels", || Map::new().into());
        at(metadata, "/labels", |labels| set(labels, "kubernetes.io/metadata.name", name));
    });
}

/// `podCIDR` is the first of `podCIDRs`; the single one wins.
pub(super) fn pod_cidrs(spec: &mut Value) {
    let single = spec["podCIDR"].as_str().unwrap_or_default().to_owned();
    let first = spec["podCIDRs"][0].as_str().unwrap_or_default().to_owned();
    if single.is_empty() && !first.is_empty() {
        set(spec, "podCIDR", first.into());
    } else if single != first {
        set(spec, "podCIDRs", json!([single]));
    }
}

pub(super) fn limit_range_item(item: &mut Value) {
    if item["type"] != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let amounts = item[from].as_object().cloned().unwrap_or_default();
        if amounts.is_empty() {
            continue;
        }
        fill(item, to, || Map::new().into());
        if let Some(defaults) = item.get_mut(to) {
            amounts.into_iter().for_each(|(name, amount)| fill(defaults, &name, || amount));
        }
    }
}

pub(super) fn autoscaler(autoscaler: &mut Value) {
    let v1 = autoscaler["apiVersion"] == "autoscaling/v1";
    at(autoscaler, "/spec", |spec| {
        if v1 {
            return fill(spec, "targetCPUUtilizationPercentage", || 80.into());
        }
        if is_empty(&spec["metrics"]) {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            set(spec, "metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
        }
        if !spec["behavior"].is_object() {
            return;
        }
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        let up = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [pods, percent]});
        let down = json!({"selectPolicy": "Max", "policies": [percent]});
        at(spec, "/behavior", |behavior| {
            for (direction, defaults) in [("scaleUp", up), ("scaleDown", down)] {
                fill(behavior, direction, || Map::new().into());
                let Some(rules) = behavior.get_mut(direction) else { continue };
                for (field, default) in defaults.as_object().into_iter().flatten() {
                    fill_missing(rules, field, || default.clone());
                }
            }
        });
    });
}

pub(super) fn network_policy(policy: &mut Value) {
    at(policy, "/spec", |spec| {
        if is_empty(&spec["policyTypes"]) {
            let types = if is_empty(&spec["egress"]) { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
            set(spec, "policyTypes", types);
        }
    });
}

pub(super) fn device_request(request: &mut Value) {
    if request["allocationMode"] == "ExactCount" && request["count"].as_i64().unwrap_or(0) == 0 {
        set(request, "count", 1.into());
    }
}

pub(super) fn custom_resource_definition(definition: &mut Value) {
    at(definition, "/spec/names", |names| {
        let kind = names["kind"].as_str().unwrap_or_default().to_owned();
        if !kind.is_empty() {
            fill(names, "singular", || kind.to_lowercase().into());
            fill(names, "listKind", || format!("{kind}List").into());
        }
    });
    if is_empty(&definition["status"]["storedVersions"]) {
        let versions = definition["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(stored) = versions.iter().find(|v| v["storage"] == true).map(|v| v["name"].clone()) {
            at(definition, "/status", |status| set(status, "storedVersions", json!([stored])));
        }
    }
}
