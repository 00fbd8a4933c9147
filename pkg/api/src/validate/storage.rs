//! Volumes and claims to them.

use serde_json::Value;

use super::at::{At, same};
use super::difference::line_difference;
use super::pod::no_backsteps;
use super::selector::{label_selector, node_selector};
use super::volume_source::{self as source, Owner, Source};
use super::{Errors, format};
use crate::field::{FieldError, FieldPath};

pub(super) fn driver_name(driver: &At, errors: &mut Errors) {
    let name = driver.text();
    driver.need(errors);
    driver.no_longer(errors, 63);
    for problem in format::dns_subdomain(&name.to_lowercase()) {
        driver.invalid_value(errors, name, problem);
    }
}

/// How often a volume may be used at the same time.
fn access_modes(modes: &At, errors: &mut Errors) {
    const KNOWN: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let (mut alone, mut others) = (false, false);
    for mode in modes.list().iter().filter_map(Value::as_str) {
        modes.check_supported(mode, &KNOWN, errors);
        alone |= mode == KNOWN[3];
        others |= KNOWN[..3].contains(&mode);
    }
    if alone && others {
        modes.forbidden(errors, "may not use ReadWriteOncePod with other access modes");
    }
}

fn class_name(class: &At, errors: &mut Errors) {
    if !class.is_empty() {
        class.check(errors, format::dns_subdomain(class.text()));
    }
}

fn volume_mode(mode: &At, errors: &mut Errors) {
    if mode.is_set() {
        mode.exactly_one_of(errors, &["Block", "Filesystem"]);
    }
}

/// Spec of a claim, also of a claim template.
pub(super) fn claim_spec(spec: &At, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        modes.required(errors, "at least 1 access mode is required");
    }
    label_selector(&spec.get("selector"), errors);
    access_modes(&modes, errors);
    let requests = spec.get("resources.requests");
    let storage = requests.key("storage");
    let resources = spec.get("resources");
    let shown = resources.key("storage");
    match storage.quantity() {
        None => shown.required(errors, ""),
        Some(amount) if amount.is_zero() || amount.is_negative() => {
            shown.invalid_value(errors, storage.value.clone(), "must be greater than zero");
        }
        Some(_) => {}
    }
    class_name(&spec.get("storageClassName"), errors);
    volume_mode(&spec.get("volumeMode"), errors);
    for source in ["dataSource", "dataSourceRef"].map(|source| spec.get(source)).iter().filter(|s| s.is_set()) {
        data_source(source, errors);
    }
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    if source.is_set() && reference.is_set() {
        let equal =
            ["apiGroup", "kind", "name"].iter().all(|field| source.value.get(*field) == reference.value.get(*field));
        let shown = serde_json::Value::Object(serde_json::Map::new());
        if !reference.get("namespace").is_empty() {
            let detail = "may not be specified when dataSourceRef.namespace is specified";
            spec.invalid_value(errors, shown, detail);
        } else if !equal {
            spec.invalid_value(errors, shown, "must match dataSourceRef");
        }
    }
    class_name(&spec.get("volumeAttributesClassName"), errors);
}

fn data_source(source: &At, errors: &mut Errors) {
    source.get("name").need(errors);
    source.get("kind").need(errors);
    let (group, namespace) = (source.get("apiGroup"), source.get("namespace"));
    if !group.is_empty() {
        group.check(errors, format::dns_subdomain(group.text()));
    } else if source.str("kind") != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        source.invalid_value(errors, source.str("kind"), detail);
    }
    if !namespace.is_empty() {
        namespace.check(errors, format::dns_label(namespace.text()));
    }
}

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn claim(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    match old {
        None => claim_spec(&spec, errors),
        Some(old) => {
            claim_spec(&spec, errors);
            let (class, before) = [object, old].map(|o| o.get("metadata.annotations").key(BETA_CLASS).text()).into();
            if class != before {
                object.get("metadata.annotations").get(BETA_CLASS).invalid_value(errors, class, "field is immutable");
            }
            claim_change(&spec, old, errors);
        }
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
        let change = line_difference(&fixed(&old_spec), &fixed(spec));
        let detail = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{change}"
        );
        spec.forbidden(errors, detail);
    }
    let (requests, before) = (spec.get("resources.requests"), old_spec.get("resources.requests"));
    let (size, old_size, capacity) = (requests.key("storage"), before.key("storage"), old.get("status.capacity"));
    if let (Some(now), Some(then)) = (size.quantity(), old_size.quantity())
        && now < then
    {
        // A failed expansion may be taken back, but not below what is there already.
        if capacity.key("storage").quantity().is_none_or(|actual| now <= actual) {
            requests.get("storage").forbidden(errors, "field can not be less than status.capacity");
        }
    }
    if !same(spec.get("volumeMode").value, old_spec.get("volumeMode").value) {
        let mode = spec.get("volumeMode");
        errors.push(FieldError::invalid(&FieldPath::new("volumeMode"), mode.value.clone(), "field is immutable"));
    }
    let class = spec.get("volumeAttributesClassName");
    if class.is_empty() && class.value != old_spec.get("volumeAttributesClassName").value {
        let kind = if class.is_set() { "empty string" } else { "nil" };
        if old.get("status.currentVolumeAttributesClassName").is_set() {
            let detail =
                format!("update to {kind} is forbidden when status.currentVolumeAttributesClassName is not nil");
            class.forbidden(errors, detail);
        }
    }
}

/// What a claim has.
pub(super) fn claim_status(object: &At, _old: &At, errors: &mut Errors) {
    const STEPS: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    if object.get("spec.accessModes").is_empty() {
        object.get("Spec.accessModes").required(errors, "");
    }
    for list in ["status.capacity", "status.allocatedResources"] {
        for (name, amount) in object.get(list).entries() {
            if list != "status.capacity" {
                claim_resource(&object.get(list), name, errors);
            }
            if let Some(negative) = amount.quantity().filter(|q| q.is_negative()) {
                amount.invalid_value(errors, negative.units(), "must be a valid resource quantity");
            }
        }
    }
    let steps = object.get("status.allocatedResourceStatuses");
    for (name, step) in steps.entries() {
        claim_resource(&steps, name, errors);
        if !STEPS.contains(&step.text()) {
            errors.push(FieldError::not_supported(&steps.path(), name, &STEPS));
        }
    }
}

/// Of what Kubernetes itself knows, claims are only for storage.
fn claim_resource(at: &At, name: &str, errors: &mut Errors) {
    let problems = format::qualified_name(name);
    let own = !name.contains('/') || name.contains("kubernetes.io/");
    if problems.is_empty() && own {
        at.check_supported(name, &["storage"], errors);
    }
    problems.into_iter().for_each(|problem| at.invalid_value(errors, name, problem));
}

/// Members of a volume's spec that say where the data is, in the order in which they are looked at.
const SOURCES: [Source; 22] = [
    ("hostPath", "hostPath", "hostPath", source::host_path),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk", source::gce_disk),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore", source::aws_disk),
    ("glusterfs", "glusterfs", "glusterfs", source::glusterfs),
    ("flocker", "flocker", "flocker", source::flocker),
    ("nfs", "nfs", "nfs", source::nfs),
    ("rbd", "rbd", "rbd", source::rbd),
    ("quobyte", "quobyte", "quobyte", source::quobyte),
    ("cephfs", "cephFS", "cephfs", source::ceph_fs),
    ("iscsi", "iscsi", "iscsi", source::iscsi),
    ("cinder", "cinder", "cinder", source::cinder),
    ("fc", "fc", "fc", source::fibre_channel),
    ("flexVolume", "flexVolume", "flexVolume", source::flex),
    ("azureFile", "azureFile", "azureFile", source::azure_file),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume", source::vsphere),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk", source::photon),
    ("portworxVolume", "portworxVolume", "portworxVolume", source::portworx),
    ("azureDisk", "azureDisk", "azureDisk", source::azure_disk),
    ("scaleIO", "scaleIO", "scaleIO", source::scale_io),
    ("local", "local", "local", local),
    ("storageos", "storageos", "storageos", source::storage_os),
    ("csi", "csi", "csi", csi),
];

const INLINE: &str = "may not be specified in the context of inline volumes";

pub(super) fn volume(object: &At, old: Option<&At>, errors: &mut Errors) {
    volume_spec(&object.get("spec"), Some(object.str("metadata.name")), errors);
    if let Some(old) = old {
        volume_change(&object.get("spec"), &old.get("spec"), errors);
    }
}

/// The spec of a volume that is no object of its own.
pub(super) fn inline_volume(spec: &At, errors: &mut Errors) {
    for member in ["claimRef", "capacity"].map(|member| spec.get(member)) {
        if member.is_set() {
            member.forbidden(errors, INLINE);
        }
    }
    if !spec.get("csi").is_set() {
        spec.get("csi").required(errors, "has to be specified in the context of inline volumes");
    }
    volume_spec(spec, None, errors);
}

fn capacity(capacity: &At, errors: &mut Errors) {
    capacity.need(errors);
    if capacity.members().is_none_or(|m| m.len() != 1 || !m.contains_key("storage")) {
        let shown = capacity.members().cloned().map_or(Value::Null, Value::Object);
        errors.push(FieldError::not_supported(&capacity.path(), shown, &["storage"]));
    }
    for (_, amount) in capacity.entries() {
        let Some(size) = amount.quantity() else { continue };
        if size.is_negative() {
            amount.invalid_value(errors, size.units(), "must be a valid resource quantity");
        }
        if size.is_zero() || size.is_negative() {
            amount.invalid(errors, "must be greater than zero");
        }
    }
}

/// A spec; without the name of its volume, it is inline.
fn volume_spec(spec: &At, name: Option<&str>, errors: &mut Errors) {
    let (modes, inline) = (spec.get("accessModes"), name.is_none());
    modes.need(errors);
    access_modes(&modes, errors);
    if !inline {
        capacity(&spec.get("capacity"), errors);
    }
    let policy = spec.get("persistentVolumeReclaimPolicy");
    match policy.text() {
        "" | "Retain" => {}
        _ if inline => policy.forbidden(errors, "may only be Retain in the context of inline volumes"),
        _ => policy.one_of(errors, &["Delete", "Recycle", "Retain"]),
    }
    let affinity = spec.get("nodeAffinity");
    if inline && affinity.is_set() {
        affinity.forbidden(errors, INLINE);
    } else if affinity.is_set() {
        let required = affinity.get("required");
        if required.is_set() {
            node_selector(&required, errors);
        } else {
            required.required(errors, "must specify required node constraints");
        }
    }
    source::exactly_one(spec, &SOURCES, Owner { name: name.unwrap_or_default(), persistent: true }, errors);
    let root = spec.str("hostPath.path");
    if !root.is_empty()
        && root.split('/').all(|part| part.is_empty() || part == ".")
        && root.starts_with('/')
        && policy.text() == "Recycle"
    {
        policy.forbidden(errors, "may not be 'recycle' for a hostPath mount of '/'");
    }
    let (class, mode) = (spec.get("storageClassName"), spec.get("volumeMode"));
    match inline {
        true if !class.is_empty() => class.forbidden(errors, INLINE),
        true => {}
        false => class_name(&class, errors),
    }
    match inline {
        true if mode.is_set() && mode.text() != "Filesystem" => {
            let detail = "may not specify volumeMode other than Filesystem in the context of inline volumes";
            mode.forbidden(errors, detail);
        }
        true => {}
        false => volume_mode(&mode, errors),
    }
    let class = spec.get("volumeAttributesClassName");
    if class.is_set() {
        if class.is_empty() {
            class.required(errors, "an empty string is disallowed");
        }
        class_name(&class, errors);
        if !spec.get("csi").is_set() {
            spec.get("csi").required(errors, "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn local(source: &At, _: Owner, errors: &mut Errors) {
    let path = source.get("path");
    if path.need(errors) {
        no_backsteps(&path, path.text(), errors);
    }
    if let Some(affinity) = source.sibling("nodeAffinity").filter(|affinity| !affinity.is_set()) {
        affinity.required(errors, "Local volume requires node affinity");
    }
}

fn csi(source: &At, _: Owner, errors: &mut Errors) {
    const SECRETS: [&str; 4] =
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];
    driver_name(&source.get("driver"), errors);
    source.get("volumeHandle").need(errors);
    for secret in SECRETS.map(|secret| source.get(secret)).iter().filter(|secret| secret.is_set()) {
        let (name, namespace) = (secret.get("name"), secret.get("namespace"));
        if name.need(errors) {
            name.check(errors, format::dns_subdomain(name.text()));
        }
        if namespace.need(errors) {
            namespace.check(errors, format::dns_label(namespace.text()));
        }
    }
}

fn volume_change(spec: &At, old: &At, errors: &mut Errors) {
    let source = |at: &At| {
        let mut members: serde_json::Map<String, Value> =
            SOURCES.iter().filter_map(|(name, ..)| Some(((*name).to_owned(), at.value.get(*name)?.clone()))).collect();
        if let Some(csi) = members.get_mut("csi").and_then(Value::as_object_mut)
            && old.get("csi.controllerExpandSecretRef").is_empty()
        {
            csi.remove("controllerExpandSecretRef");
        }
        Value::Object(members)
    };
    if !same(&source(spec), &source(old)) {
        let change = line_difference(&source(old), &source(spec));
        let detail = format!("spec.persistentvolumesource is immutable after creation\n{change}");
        spec.get("persistentvolumesource").forbidden(errors, detail);
    }
    // Upstream's paths are those of the spec's members, without the spec.
    let mode = spec.get("volumeMode");
    if !same(mode.value, old.get("volumeMode").value) {
        errors.push(FieldError::invalid(&FieldPath::new("volumeMode"), mode.value.clone(), "field is immutable"));
    }
    let (affinity, before) = (spec.get("nodeAffinity"), old.get("nodeAffinity"));
    if before.is_set() && !same(affinity.value, before.value) && !same(affinity.value, &stable_labels(before.value)) {
        let detail = "field is immutable, except for updating from beta label to GA";
        errors.push(FieldError::invalid(&FieldPath::new("nodeAffinity"), affinity.value.clone(), detail));
    }
    let class = spec.get("volumeAttributesClassName");
    if !class.is_set() && old.get("volumeAttributesClassName").is_set() {
        class.forbidden(errors, "update from non-nil value to nil is forbidden");
    }
}

/// The same affinity by the names that labels of nodes have today.
fn stable_labels(affinity: &Value) -> Value {
    const STABLE: [(&str, &str); 5] = [
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ];
    let mut affinity = affinity.clone();
    let terms = affinity.pointer_mut("/required/nodeSelectorTerms").and_then(Value::as_array_mut);
    for term in terms.into_iter().flatten() {
        for list in ["matchExpressions", "matchFields"] {
            for item in term.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some((_, stable)) = STABLE.iter().find(|(old, _)| item["key"] == *old) {
                    item["key"] = (*stable).into();
                }
            }
        }
    }
    affinity
}
