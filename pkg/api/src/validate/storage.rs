//! Volumes, claims and storage classes.

use serde_json::Value;

use super::at::{At, same};
use super::selector::{label_selector, node_selector};
use super::{Errors, format};

pub(super) fn driver_name(driver: &At, errors: &mut Errors) {
    if driver.need(errors) {
        if driver.text().len() > 63 {
            driver.too_long(errors, 63);
        }
        driver.check(errors, format::dns_subdomain(&driver.text().to_lowercase()));
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

pub(super) fn storage_class(object: &At, old: Option<&At>, errors: &mut Errors) {
    let (provisioner, parameters) = (object.get("provisioner"), object.get("parameters"));
    if provisioner.need(errors) {
        provisioner.check(errors, format::qualified_name(&provisioner.text().to_lowercase()));
    }
    check_parameters(&parameters, errors);
    object.get("volumeBindingMode").need(errors);
    if let Some(old) = old {
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            unchangeable(object, old, field, errors);
        }
        object.get("volumeBindingMode").immutable(&old.get("volumeBindingMode"), errors);
    }
}

fn check_parameters(parameters: &At, errors: &mut Errors) {
    let mut size = 0;
    if parameters.members().is_some_and(|m| m.len() > 512) {
        parameters.too_long(errors, 512);
    }
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            parameters.invalid_value(errors, key, "field can not be empty.");
        }
        size += key.len() + value.text().len();
    }
    if size > 256 * 1024 {
        parameters.too_long(errors, 256 * 1024);
    }
}

fn unchangeable(object: &At, old: &At, field: &str, errors: &mut Errors) {
    if !same(object.get(field).value, old.get(field).value) {
        object.get(field).forbidden(errors, format!("updates to {field} are forbidden."));
    }
}

pub(super) fn attributes_class(object: &At, old: Option<&At>, errors: &mut Errors) {
    driver_name(&object.get("driverName"), errors);
    object.get("parameters").need(errors);
    check_parameters(&object.get("parameters"), errors);
    if let Some(old) = old {
        for field in ["driverName", "parameters"] {
            unchangeable(object, old, field, errors);
        }
    }
}

pub(super) fn csi_driver(object: &At, old: Option<&At>, errors: &mut Errors) {
    let name = object.get("metadata.name");
    if name.text().len() > 63 {
        name.too_long(errors, 63);
    }
    let spec = object.get("spec");
    for field in ["attachRequired", "podInfoOnMount"] {
        if !spec.get(field).is_set() {
            spec.get(field).required(errors, "");
        }
    }
    for mode in spec.get("volumeLifecycleModes").items() {
        mode.one_of(errors, &["Ephemeral", "Persistent"]);
    }
    spec.get("fsGroupPolicy").one_of(errors, &["File", "None", "ReadWriteOnceWithFSType"]);
    if let Some(old) = old {
        for field in ["spec.attachRequired", "spec.volumeLifecycleModes"] {
            object.get(field).immutable(&old.get(field), errors);
        }
    }
}

pub(super) fn csi_node(object: &At, old: Option<&At>, errors: &mut Errors) {
    let drivers = object.get("spec.drivers");
    let mut names: Vec<&str> = Vec::new();
    for driver in drivers.items() {
        driver_name(&driver.get("name"), errors);
        if names.contains(&driver.str("name")) {
            driver.get("name").duplicate(errors);
        }
        names.push(driver.str("name"));
        let id = driver.get("nodeID");
        if id.need(errors) && id.text().len() > 192 {
            id.invalid(errors, "must be 192 characters or less");
        }
        driver.get("allocatable.count").not_negative(errors);
        let before = old
            .and_then(|old| old.value["spec"]["drivers"].as_array()?.iter().find(|d| d["name"] == driver.str("name")));
        let fixed = |value: &Value| (value["nodeID"].clone(), value["topologyKeys"].clone());
        if before.is_some_and(|before| fixed(before) != fixed(driver.value)) {
            driver.invalid(errors, "field is immutable");
        }
    }
}

pub(super) fn volume_attachment(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    driver_name(&spec.get("attacher"), errors);
    let node = spec.get("nodeName");
    if node.need(errors) {
        node.check(errors, format::dns_subdomain(node.text()));
    }
    let source = spec.get("source");
    match source.set_members(&["inlineVolumeSpec", "persistentVolumeName"])[..] {
        [] => source.required(errors, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        [_, _] => source.forbidden(errors, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        _ => {}
    }
    if let Some(old) = old {
        spec.immutable(&old.get("spec"), errors);
    }
}

pub(super) fn storage_capacity(object: &At, old: Option<&At>, errors: &mut Errors) {
    let class = object.get("storageClassName");
    for problem in format::dns_subdomain(class.text()) {
        class.invalid_value(errors, class.text(), problem);
    }
    label_selector(&object.get("nodeTopology"), errors);
    for field in ["capacity", "maximumVolumeSize"] {
        let amount = object.get(field);
        if amount.quantity().is_some_and(|q| q.is_negative()) {
            amount.invalid(errors, "must be greater than or equal to 0");
        }
    }
    if let Some(old) = old {
        for field in ["nodeTopology", "storageClassName"] {
            object.get(field).immutable(&old.get(field), errors);
        }
    }
}
