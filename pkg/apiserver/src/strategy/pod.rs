//! Pods.

use kube1_api::amounts::qos_class;
use serde_json::{Map, Value, json};

use super::{Context, set, take_members};

/// Bytes of the name of an AppArmor profile.
const LONGEST_PROFILE: usize = 4095;

/// Sets the first status and turns label-key lists into selectors.
pub(super) fn create(pod: &mut Value, context: &Context<'_>) {
    pod["status"] = json!({"phase": "Pending", "qosClass": qos_class(pod)});
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) {
        pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": context.time()}]);
    }
    let labels = pod["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = &mut pod["spec"]["affinity"];
        if affinity[kind].is_null() {
            continue;
        }
        let required = affinity[kind]["requiredDuringSchedulingIgnoredDuringExecution"].as_array_mut();
        required.into_iter().flatten().for_each(|term| merge_label_keys(term, &labels));
        let preferred = affinity[kind]["preferredDuringSchedulingIgnoredDuringExecution"].as_array_mut();
        preferred.into_iter().flatten().for_each(|term| merge_label_keys(&mut term["podAffinityTerm"], &labels));
    }
    drop_null_affinity(pod);
    let spreads = pod["spec"]["topologySpreadConstraints"].as_array_mut();
    spreads.into_iter().flatten().for_each(|term| merge_label_keys(term, &labels));
    if pod["spec"]["topologySpreadConstraints"].is_null() {
        set(pod, &["spec", "topologySpreadConstraints"], Value::Null);
    }
}

/// Gives containers whose AppArmor profile is only in an annotation, as it was before v1.30, the field that says the
/// same. Returns what to tell the writer.
pub fn carry_app_armor(pod: &mut Value) -> Vec<String> {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let annotations = pod["metadata"]["annotations"].as_object();
    let annotations: Vec<(String, Value)> = annotations
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?.to_owned(), value.clone())))
        .collect();
    let mut warnings = Vec::new();
    if annotations.is_empty() || pod["spec"]["os"]["name"] == "windows" {
        return warnings;
    }
    let whole = pod["spec"]["securityContext"]["appArmorProfile"].clone();
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let lists = lists.map(|list| pod["spec"][list].as_array().map_or(0, Vec::len)).into_iter().zip(lists);
    for (list, index) in lists.flat_map(|(count, list)| (0..count).map(move |index| (list, index))) {
        let container = &mut pod["spec"][list][index];
        let named = annotations.iter().find(|(name, _)| container["name"] == **name);
        let Some((name, text)) = named.filter(|_| container["securityContext"]["appArmorProfile"].is_null()) else {
            continue;
        };
        let profile = app_armor_profile(text.as_str().unwrap_or_default());
        if profile.as_ref().is_some_and(|profile| *profile == whole) {
            continue;
        }
        if let Some(profile) = profile {
            set(container, &["securityContext", "appArmorProfile"], profile);
        }
        let what = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
        warnings.push(format!("metadata.annotations[{PREFIX}{name}]: {what}"));
    }
    warnings
}

/// What an annotation says, as the field does; `None` if it means nothing.
fn app_armor_profile(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        _ => {
            let name = annotation.strip_prefix("localhost/")?;
            let valid = !name.is_empty() && name.trim() == name && name.len() <= LONGEST_PROFILE;
            valid.then(|| json!({"type": "Localhost", "localhostProfile": name}))
        }
    }
}

/// Looking for affinity above may have left empty members behind.
fn drop_null_affinity(pod: &mut Value) {
    if let Some(affinity) = pod["spec"]["affinity"].as_object_mut() {
        affinity.retain(|_, v| !v.is_null());
        for terms in affinity.values_mut().filter_map(Value::as_object_mut) {
            terms.retain(|_, v| !v.is_null());
        }
    } else {
        set(pod, &["spec", "affinity"], Value::Null);
    }
}

/// `matchLabelKeys` and `mismatchLabelKeys` mean the values that the pod itself has now.
fn merge_label_keys(term: &mut Value, labels: &Map<String, Value>) {
    if term["labelSelector"].is_null() {
        if let Some(term) = term.as_object_mut() {
            term.retain(|_, v| !v.is_null());
        }
        return;
    }
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys = term.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        for key in keys.iter().filter_map(Value::as_str) {
            let Some(value) = labels.get(key) else { continue };
            let expressions = &mut term["labelSelector"]["matchExpressions"];
            if !expressions.is_array() {
                *expressions = json!([]);
            }
            if let Some(expressions) = expressions.as_array_mut() {
                expressions.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
}

/// Keeps what a status update leaves out although it must not be lost.
pub(super) fn update_status(new: &mut Value, old: &Value, _: &Context<'_>) {
    if new["status"]["qosClass"].as_str().unwrap_or_default().is_empty() {
        set(new, &["status", "qosClass"], old["status"]["qosClass"].clone());
    }
    if new["status"]["observedGeneration"].is_null() {
        set(new, &["status", "observedGeneration"], old["status"]["observedGeneration"].clone());
    }
    let old_conditions = old["status"]["conditions"].as_array().cloned().unwrap_or_default();
    for condition in new["status"]["conditions"].as_array_mut().into_iter().flatten() {
        let same = old_conditions.iter().find(|o| o["type"] == condition["type"]);
        if let Some(same) = same
            && condition["observedGeneration"].is_null()
        {
            set(condition, &["observedGeneration"], same["observedGeneration"].clone());
        }
    }
    if new["status"]["conditions"].is_null() {
        set(new, &["status", "conditions"], Value::Null);
    }
}

/// Takes only container resources and resize policies of `new`.
pub(super) fn take_resources(new: &mut Value, old: &Value) {
    let mut wanted = new["spec"].take();
    take_members(new, old, &[]);
    for list in ["containers", "initContainers"] {
        let asked = wanted[list].as_array().cloned().unwrap_or_default();
        for container in new["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(same) = asked.iter().find(|c| c["name"] == container["name"]) else { continue };
            for member in ["resources", "resizePolicy"] {
                set(container, &[member], same[member].clone());
            }
        }
    }
    set(new, &["spec", "resources"], wanted["resources"].take());
}

/// Applies a Binding: the pod's node, and labels and annotations that come along.
pub fn bind_pod(pod: &mut Value, binding: &Value, context: &Context<'_>) {
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for member in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][member].as_object().into_iter().flatten() {
            set(pod, &["metadata", member, key], value.clone());
        }
    }
    set(pod, &["status", "nominatedNodeName"], Value::Null);
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": context.time(), "observedGeneration": pod["metadata"]["generation"]});
    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|c| c["type"] != "PodScheduled");
    conditions.push(scheduled);
    set(pod, &["status", "conditions"], conditions.into());
}
