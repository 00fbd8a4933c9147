//! Resources of the core and certificates groups.

use serde_json::{Value, json};

use super::{Context, remove, set};

const KUBERNETES: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn create_namespace(namespace: &mut Value, _: &Context<'_>) {
    namespace["status"] = json!({"phase": "Active"});
    let finalizers = namespace["spec"]["finalizers"].as_array();
    let mut finalizers = finalizers.cloned().unwrap_or_default();
    if !finalizers.iter().any(|f| f == KUBERNETES) {
        finalizers.push(KUBERNETES.into());
    }
    namespace["spec"]["finalizers"] = finalizers.into();
    label_with_name(namespace);
}

pub(super) fn update_namespace(new: &mut Value, old: &Value, _: &Context<'_>) {
    set(new, &["spec", "finalizers"], old["spec"]["finalizers"].clone());
    label_with_name(new);
}

fn label_with_name(namespace: &mut Value) {
    let name = namespace["metadata"]["name"].clone();
    set(namespace, &["metadata", "labels", NAME_LABEL], name);
}

pub(super) fn create_limit_range(range: &mut Value, _: &Context<'_>) {
    if range["metadata"]["name"].as_str().unwrap_or_default().is_empty() {
        range["metadata"]["name"] = uuid::Uuid::new_v4().to_string().into();
    }
}

pub(super) fn create_node(node: &mut Value, _: &Context<'_>) {
    set(node, &["spec", "configSource"], Value::Null);
}

/// dataSource and dataSourceRef say the same in two ways.
pub(super) fn create_claim(claim: &mut Value, _: &Context<'_>) {
    tell_source_twice(claim, None);
    claim["status"] = json!({"phase": "Pending"});
}

/// Clients that know one of the two leave the other one out.
pub(super) fn update_claim(new: &mut Value, old: &Value, _: &Context<'_>) {
    tell_source_twice(new, Some(old));
}

fn tell_source_twice(claim: &mut Value, old: Option<&Value>) {
    let spec = &mut claim["spec"];
    // The feature of sources in other namespaces is off.
    let elsewhere = spec["dataSourceRef"]["namespace"].as_str().is_some_and(|namespace| !namespace.is_empty());
    if elsewhere && old.is_none_or(|old| old["spec"]["dataSourceRef"].is_null()) {
        remove(spec, "dataSourceRef");
    }
    let (mut source, reference) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    let known = |r: &Value| {
        let group = r["apiGroup"].as_str().unwrap_or_default();
        let kind = r["kind"].as_str().unwrap_or_default();
        matches!((group, kind), ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot"))
    };
    // What the older member cannot say was always ignored, and is.
    if !source.is_null() && !known(&source) && old.is_none_or(|old| old["spec"]["dataSource"].is_null()) {
        spec["dataSource"] = Value::Null;
        source = Value::Null;
    }
    let elsewhere = reference["namespace"].as_str().is_some_and(|namespace| !namespace.is_empty());
    if !source.is_null() && reference.is_null() {
        spec["dataSourceRef"] = source;
    } else if source.is_null() && !reference.is_null() && !elsewhere && known(&reference) {
        let mut source = reference;
        remove(&mut source, "namespace");
        spec["dataSource"] = source;
    }
    for member in ["dataSource", "dataSourceRef"] {
        if spec[member].is_null() {
            remove(spec, member);
        }
    }
}

pub(super) fn create_volume(volume: &mut Value, context: &Context<'_>) {
    volume["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": context.time()});
}

pub(super) fn update_volume_status(new: &mut Value, old: &Value, context: &Context<'_>) {
    let (new_time, old_time) = (&new["status"]["lastPhaseTransitionTime"], &old["status"]["lastPhaseTransitionTime"]);
    if new_time.is_null() || new_time == old_time {
        let same = new["status"]["phase"] == old["status"]["phase"];
        let time = if same { old_time.clone() } else { context.time().into() };
        set(new, &["status", "lastPhaseTransitionTime"], time);
    }
}

pub(super) fn create_secret(secret: &mut Value, _: &Context<'_>) {
    if secret["type"].as_str().unwrap_or_default().is_empty() {
        secret["type"] = "Opaque".into();
    }
}

pub(super) fn update_secret(new: &mut Value, old: &Value, _: &Context<'_>) {
    if new["type"].as_str().unwrap_or_default().is_empty() {
        set(new, &["type"], old["type"].clone());
    }
}

pub(super) fn create_account(account: &mut Value, _: &Context<'_>) {
    for secret in account.get_mut("secrets").and_then(Value::as_array_mut).into_iter().flatten() {
        *secret = json!({"name": secret["name"]});
    }
}

pub(super) fn update_account(new: &mut Value, _: &Value, context: &Context<'_>) {
    create_account(new, context);
}

/// A signing request says who made it, whatever its body claims.
pub(super) fn create_signing_request(request: &mut Value, context: &Context<'_>) {
    let user = context.user;
    let spec = &mut request["spec"];
    for member in ["username", "uid", "groups", "extra"] {
        remove(spec, member);
    }
    spec["username"] = user.name.clone().into();
    if !user.uid.is_empty() {
        spec["uid"] = user.uid.clone().into();
    }
    if !user.groups.is_empty() {
        spec["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(user.extra);
    }
}

pub(super) fn update_signing_request(new: &mut Value, old: &Value, _: &Context<'_>) {
    set(new, &["spec"], old["spec"].clone());
}

/// Approval and denial are not for whoever writes the status.
pub(super) fn update_signing_request_status(new: &mut Value, old: &Value, context: &Context<'_>) {
    let is_decision = |c: &Value| matches!(c["type"].as_str(), Some("Approved" | "Denied"));
    let conditions = |o: &Value| o["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut kept: Vec<Value> = conditions(old).into_iter().filter(is_decision).collect();
    kept.extend(conditions(new).into_iter().filter(|c| !is_decision(c)));
    let kept = if kept.is_empty() { Value::Null } else { kept.into() };
    set(new, &["status", "conditions"], kept);
    stamp_conditions(new, old, context);
}

/// Fills in the times of conditions.
pub(super) fn stamp_conditions(new: &mut Value, old: &Value, context: &Context<'_>) {
    let before = old["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let conditions = new.get_mut("status").and_then(|s| s.get_mut("conditions")).and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = context.time().into();
        }
        if condition["lastTransitionTime"].is_null() {
            let same = before.iter().find(|b| b["type"] == condition["type"] && b["status"] == condition["status"]);
            let time = same.map(|b| b["lastTransitionTime"].clone()).filter(|t| !t.is_null());
            condition["lastTransitionTime"] = time.unwrap_or_else(|| context.time().into());
        }
    }
}
