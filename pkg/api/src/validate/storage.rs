//! Volumes and claims to them.

use serde_json::Value;

use super::at::{At, same};
use super::selector::{label_selector, node_selector};
use super::{Errors, format};

pub(super) fn driver_name(driver: &At, errors: &mut Errors) {
    driver.need(errors);
    driver.no_longer(errors, 63);
    for problem in format::dns_subdomain(&driver.text().to_lowercase()) {
        driver.invalid_value(errors, driver.text(), problem);
    }
}

/// Spec of a claim, also of a claim template.
pub(super) fn claim_spec(spec: &At, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        modes.required(errors, "at least 1 access mode is required");
    }
    if modes.list().len() > 1 && modes.list().iter().any(|m| m == "ReadWriteOncePod") {
        modes.forbidden(errors, "may not use ReadWriteOncePod with other access modes");
    }
    label_selector(&spec.get("selector"), errors);
    let requests = spec.get("resources.requests");
    let storage = requests.key("storage");
    match storage.quantity() {
        None => storage.required(errors, ""),
        Some(amount) if amount.is_zero() || amount.is_negative() => {
            storage.invalid(errors, "must be greater than zero")
        }
        Some(_) => {}
    }
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        class.check(errors, format::dns_subdomain(class.text()));
    }
    for source in ["dataSource", "dataSourceRef"] {
        let source = spec.get(source);
        if source.is_set() {
            source.get("name").need(errors);
            source.get("kind").need(errors);
            if source.get("apiGroup").is_empty() && source.str("kind") != "PersistentVolumeClaim" {
                source.invalid(errors, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
            }
        }
    }
}

pub(super) fn claim(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    match old {
        None => claim_spec(&spec, errors),
        Some(old) => claim_change(&spec, old, errors),
    }
}

/// A claim keeps what was asked for; once bound it may grow and change its attributes class.
fn claim_change(spec: &At, old: &At, errors: &mut Errors) {
    let old_spec = old.get("spec");
    let bound = old.str("status.phase") == "Bound";
    let fixed = |at: &At| {
        let mut members = at.members().cloned().unwrap_or_default();
        if old_spec.get("volumeName").is_empty() {
            members.remove("volumeName");
        }
        if !old_spec.get("storageClassName").is_set() {
            members.remove("storageClassName");
        }
        if bound {
            members.remove("volumeAttributesClassName");
            if let Some(requests) = members.get_mut("resources").and_then(|r| r.get_mut("requests")?.as_object_mut()) {
                requests.remove("storage");
            }
        }
        Value::Object(members)
    };
    if !same(&fixed(spec), &fixed(&old_spec)) {
        let detail =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        spec.forbidden(errors, detail);
    }
    let (requests, before) = (spec.get("resources.requests"), old_spec.get("resources.requests"));
    let (size, old_size, capacity) = (requests.key("storage"), before.key("storage"), old.get("status.capacity"));
    if let (Some(now), Some(then)) = (size.quantity(), old_size.quantity())
        && now < then
    {
        // A failed expansion may be taken back, but not below what is there already.
        if capacity.key("storage").quantity().is_none_or(|actual| now <= actual) {
            size.forbidden(errors, "field can not be less than status.capacity");
        }
    }
    let class = spec.get("volumeAttributesClassName");
    if class.is_empty() && !old.get("status.currentVolumeAttributesClassName").is_empty() {
        let detail = "update from non-nil value to nil is forbidden";
        class.forbidden(errors, detail);
    }
}

/// Members of a volume's spec that say where the data is.
const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

pub(super) fn volume(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    for field in ["accessModes", "capacity"] {
        spec.get(field).need(errors);
    }
    let modes = spec.get("accessModes");
    if modes.list().len() > 1 && modes.list().iter().any(|m| m == "ReadWriteOncePod") {
        modes.forbidden(errors, "may not use ReadWriteOncePod with other access modes");
    }
    let capacity = spec.get("capacity");
    if capacity.members().is_some_and(|m| !m.is_empty() && (m.len() > 1 || !m.contains_key("storage"))) {
        capacity.not_supported(errors, &["storage"]);
    }
    for (_, amount) in capacity.entries() {
        if amount.quantity().is_some_and(|q| q.is_zero() || q.is_negative()) {
            amount.invalid(errors, "must be greater than zero");
        }
    }
    let sources = spec.set_members(&SOURCES);
    for extra in sources.iter().skip(1) {
        spec.get(extra).forbidden(errors, "may not specify more than 1 volume type");
    }
    match sources.first() {
        None => spec.required(errors, "must specify a volume type"),
        Some(source) => volume_source(&spec.get(source), source, &spec, errors),
    }
    let affinity = spec.get("nodeAffinity.required");
    if affinity.is_set() {
        node_selector(&affinity, errors);
    }
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        class.check(errors, format::dns_subdomain(class.text()));
    }
    if let Some(old) = old {
        volume_change(&spec, &old.get("spec"), errors);
    }
}

fn volume_source(source: &At, name: &str, spec: &At, errors: &mut Errors) {
    let needed: &[&str] = match name {
        "csi" => &["volumeHandle"],
        "hostPath" | "local" => &["path"],
        "nfs" => &["server", "path"],
        "iscsi" => &["targetPortal", "iqn"],
        _ => &[],
    };
    for field in needed {
        source.get(field).need(errors);
    }
    if name == "csi" {
        driver_name(&source.get("driver"), errors);
    }
    if name == "local" && !spec.get("nodeAffinity").is_set() {
        spec.get("nodeAffinity").required(errors, "Local volume requires node affinity");
    }
    if name == "hostPath" && source.str("path") == "/" && spec.str("persistentVolumeReclaimPolicy") == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        spec.get("persistentVolumeReclaimPolicy").forbidden(errors, detail);
    }
}

fn volume_change(spec: &At, old: &At, errors: &mut Errors) {
    let source = |at: &At| {
        let mut members: serde_json::Map<String, Value> =
            SOURCES.iter().filter_map(|name| Some(((*name).to_owned(), at.value.get(*name)?.clone()))).collect();
        if let Some(csi) = members.get_mut("csi").and_then(Value::as_object_mut)
            && old.get("csi.controllerExpandSecretRef").is_empty()
        {
            csi.remove("controllerExpandSecretRef");
        }
        Value::Object(members)
    };
    if !same(&source(spec), &source(old)) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        spec.get("persistentvolumesource").forbidden(errors, detail);
    }
    spec.get("volumeMode").immutable(&old.get("volumeMode"), errors);
    let (affinity, before) = (spec.get("nodeAffinity"), old.get("nodeAffinity"));
    if before.is_set() && !same(affinity.value, before.value) {
        affinity.invalid(errors, "field is immutable, except for updating from beta label to GA");
    }
    let class = spec.get("volumeAttributesClassName");
    if class.is_empty() && !old.get("volumeAttributesClassName").is_empty() {
        class.forbidden(errors, "update from non-nil value to nil is forbidden");
    }
}
