//! HorizontalPodAutoscalers: `v2` is stored; `v1` knows only the CPU utilization and keeps the rest in annotations.

use serde_json::{Map, Value, json};

/// Annotations of `v1` and where in `v2` their JSON belongs.
const KEPT: [(&str, &str, &str); 4] = [
    ("autoscaling.alpha.kubernetes.io/metrics", "spec", "metrics"),
    ("autoscaling.alpha.kubernetes.io/behavior", "spec", "behavior"),
    ("autoscaling.alpha.kubernetes.io/current-metrics", "status", "currentMetrics"),
    ("autoscaling.alpha.kubernetes.io/conditions", "status", "conditions"),
];

pub(super) fn to_v1(object: &mut Value) {
    let mut kept = Map::new();
    for (annotation, part, member) in KEPT {
        let Some(mut value) = take(object, part, member) else { continue };
        if let (Some(list), "metrics" | "currentMetrics") = (value.as_array_mut(), member) {
            let (target, reading) = ("targetCPUUtilizationPercentage", "currentCPUUtilizationPercentage");
            let (name, inner) = if part == "spec" { (target, "target") } else { (reading, "current") };
            if let Some(index) = list.iter().position(|m| is_cpu_utilization(m, inner)) {
                let metric = list.remove(index);
                object[part][name] = metric["resource"][inner]["averageUtilization"].clone();
            }
            if list.is_empty() {
                continue;
            }
        }
        kept.insert(annotation.to_owned(), Value::String(value.to_string()));
    }
    if !kept.is_empty() {
        let annotations = &mut object["metadata"]["annotations"];
        if !annotations.is_object() {
            *annotations = json!({});
        }
        if let Some(map) = annotations.as_object_mut() {
            map.extend(kept);
        }
    }
}

fn is_cpu_utilization(metric: &Value, inner: &str) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"][inner]["averageUtilization"].is_number()
}

pub(super) fn to_v2(object: &mut Value) {
    for (annotation, part, member) in KEPT {
        let text = annotations(object).and_then(|a| a.remove(annotation));
        let parsed = text.and_then(|t| serde_json::from_str::<Value>(t.as_str().unwrap_or_default()).ok());
        if let Some(value) = parsed {
            object[part][member] = value;
        }
    }
    if annotations(object).is_some_and(|a| a.is_empty()) {
        object["metadata"].as_object_mut().and_then(|m| m.remove("annotations"));
    }
    if let Some(percent) = take(object, "spec", "targetCPUUtilizationPercentage") {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        prepend(
            &mut object["spec"]["metrics"],
            json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}),
        );
    }
    if let Some(percent) = take(object, "status", "currentCPUUtilizationPercentage") {
        let current = json!({"averageUtilization": percent, "averageValue": "0"});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "current": current}});
        prepend(&mut object["status"]["currentMetrics"], metric);
    }
}

fn annotations(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.pointer_mut("/metadata/annotations")?.as_object_mut()
}

fn take(object: &mut Value, part: &str, member: &str) -> Option<Value> {
    object.get_mut(part)?.as_object_mut()?.remove(member).filter(|v| !v.is_null())
}

fn prepend(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.insert(0, item),
        other => *other = Value::Array(vec![item]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_v1_cannot_say_survives_in_annotations() {
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}});
        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
        let v2 = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "metrics": [cpu, memory]}, "status": {"conditions": []}});
        let mut object = v2.clone();
        to_v1(&mut object);
        assert_eq!(object["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 70}));
        to_v2(&mut object);
        assert_eq!(object, v2);
    }
}
