//! Volumes of a pod.

use std::collections::HashSet;

use super::container::descending;
use super::environment::{field_ref, resource_field_ref};
use crate::validate::at::At;
use crate::validate::{Errors, format, storage};

type Check = fn(&At, &mut Errors);

/// Every source and the rule of its contents.
const SOURCES: [(&str, Check); 30] = [
    ("emptyDir", empty_dir),
    ("hostPath", host_path),
    ("secret", secret),
    ("configMap", config_map),
    ("downwardAPI", downward_api),
    ("projected", projected),
    ("persistentVolumeClaim", claim),
    ("ephemeral", ephemeral),
    ("nfs", nfs),
    ("csi", csi),
    ("iscsi", |s, e| need(s, &["targetPortal", "iqn"], e)),
    ("fc", fibre_channel),
    ("image", |_, _| {}),
    ("gitRepo", |s, e| need(s, &["repository"], e)),
    ("glusterfs", |s, e| need(s, &["endpoints", "path"], e)),
    ("rbd", |s, e| need(s, &["monitors", "image"], e)),
    ("cephfs", |s, e| need(s, &["monitors"], e)),
    ("cinder", |s, e| need(s, &["volumeID"], e)),
    ("flexVolume", |s, e| need(s, &["driver"], e)),
    ("flocker", |_, _| {}),
    ("gcePersistentDisk", |s, e| need(s, &["pdName"], e)),
    ("awsElasticBlockStore", |s, e| need(s, &["volumeID"], e)),
    ("azureFile", |s, e| need(s, &["secretName", "shareName"], e)),
    ("azureDisk", |s, e| need(s, &["diskName", "diskURI"], e)),
    ("vsphereVolume", |s, e| need(s, &["volumePath"], e)),
    ("quobyte", |s, e| need(s, &["registry", "volume"], e)),
    ("photonPersistentDisk", |s, e| need(s, &["pdID"], e)),
    ("portworxVolume", |s, e| need(s, &["volumeID"], e)),
    ("scaleIO", |s, e| need(s, &["gateway", "system", "volumeName"], e)),
    ("storageos", |_, _| {}),
];

fn need(source: &At, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        source.get(field).need(errors);
    }
}

/// Checks all volumes; returns their names.
pub(super) fn volumes<'v>(volumes: &At<'v, '_>, errors: &mut Errors) -> HashSet<&'v str> {
    let mut names: HashSet<&str> = HashSet::new();
    for volume in volumes.items() {
        let name = volume.get("name");
        if name.need(errors) {
            let problems = format::dns_label(name.text());
            if problems.is_empty() && names.contains(&name.text()) {
                name.duplicate(errors);
            }
            name.check(errors, problems);
        }
        names.insert(volume.str("name"));
        let mut found = 0;
        for (source, check) in SOURCES {
            let source = volume.get(source);
            if !source.is_set() {
                continue;
            }
            found += 1;
            if found > 1 {
                source.forbidden(errors, "may not specify more than 1 volume type");
            } else {
                check(&source, errors);
            }
        }
        if found == 0 {
            volume.required(errors, "must specify a volume type");
        }
    }
    names
}

fn empty_dir(source: &At, errors: &mut Errors) {
    let limit = source.get("sizeLimit");
    if limit.quantity().is_some_and(|q| q.is_negative()) {
        limit.forbidden(errors, "SizeLimit field must be a valid resource quantity");
    }
}

fn host_path(source: &At, errors: &mut Errors) {
    let path = source.get("path");
    if path.need(errors) && path.text().split('/').any(|part| part == "..") {
        path.invalid(errors, "must not contain '..'");
    }
}

fn secret(source: &At, errors: &mut Errors) {
    source.get("secretName").need(errors);
    mode(&source.get("defaultMode"), errors);
    items(&source.get("items"), errors);
}

fn config_map(source: &At, errors: &mut Errors) {
    source.get("name").need(errors);
    mode(&source.get("defaultMode"), errors);
    items(&source.get("items"), errors);
}

fn mode(mode: &At, errors: &mut Errors) {
    if mode.int().is_some_and(|m| !(0..=0o777).contains(&m)) {
        mode.invalid(errors, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn items(items: &At, errors: &mut Errors) {
    for item in items.items() {
        item.get("key").need(errors);
        let path = item.get("path");
        if path.need(errors) {
            local_path(&path, errors);
        }
        mode(&item.get("mode"), errors);
    }
}

fn local_path(path: &At, errors: &mut Errors) {
    descending(path, errors);
    if path.text().starts_with("..") && path.text().split('/').all(|part| part != "..") {
        path.invalid(errors, "must not start with '..'");
    }
}

const VOLUME_FIELDS: [&str; 5] =
    ["metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"];

fn downward_api(source: &At, errors: &mut Errors) {
    mode(&source.get("defaultMode"), errors);
    downward_items(source, errors);
}

fn downward_items(source: &At, errors: &mut Errors) {
    for item in source.get("items").items() {
        let path = item.get("path");
        if path.need(errors) {
            local_path(&path, errors);
        }
        let (field, resource) = (item.get("fieldRef"), item.get("resourceFieldRef"));
        match (field.is_set(), resource.is_set()) {
            (true, true) => item.invalid_value(
                errors,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            ),
            (true, false) => field_ref(&field, &VOLUME_FIELDS, errors),
            (false, true) => resource_field_ref(&resource, true, errors),
            (false, false) => item.required(errors, "one of fieldRef and resourceFieldRef is required"),
        }
        mode(&item.get("mode"), errors);
    }
}

fn projected(source: &At, errors: &mut Errors) {
    const KINDS: [&str; 6] =
        ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
    mode(&source.get("defaultMode"), errors);
    for entry in source.get("sources").items() {
        for (index, name) in entry.set_members(&KINDS).into_iter().enumerate() {
            let part = entry.get(name);
            if index > 0 {
                part.forbidden(errors, "may not specify more than 1 volume type per source");
                continue;
            }
            match name {
                "secret" | "configMap" => {
                    part.get("name").need(errors);
                    items(&part.get("items"), errors);
                }
                "downwardAPI" => downward_items(&part, errors),
                "serviceAccountToken" => token(&part, errors),
                _ => {}
            }
        }
    }
}

fn token(token: &At, errors: &mut Errors) {
    let (seconds, path) = (token.get("expirationSeconds"), token.get("path"));
    if seconds.int().is_some_and(|s| s < 600) {
        seconds.invalid(errors, "may not specify a duration less than 10 minutes");
    }
    if seconds.int().is_some_and(|s| s > 1 << 32) {
        seconds.invalid(errors, "may not specify a duration larger than 2^32 seconds");
    }
    if path.need(errors) {
        local_path(&path, errors);
    }
}

fn claim(source: &At, errors: &mut Errors) {
    source.get("claimName").need(errors);
}

fn ephemeral(source: &At, errors: &mut Errors) {
    let template = source.get("volumeClaimTemplate");
    if template.need(errors) {
        storage::claim_spec(&template.get("spec"), errors);
    }
}

fn nfs(source: &At, errors: &mut Errors) {
    source.get("server").need(errors);
    let path = source.get("path");
    if path.need(errors) && !path.text().starts_with('/') {
        path.invalid(errors, "must be an absolute path");
    }
}

fn csi(source: &At, errors: &mut Errors) {
    storage::driver_name(&source.get("driver"), errors);
    let secret = source.get("nodePublishSecretRef");
    if secret.is_set() {
        secret.get("name").need(errors);
    }
}

fn fibre_channel(source: &At, errors: &mut Errors) {
    let (names, lun, wwids) = (source.get("targetWWNs"), source.get("lun"), source.get("wwids"));
    match (names.is_empty(), wwids.is_empty()) {
        (true, true) => names.required(errors, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => {
            let detail = "targetWWNs and wwids can not be specified simultaneously";
            names.invalid(errors, detail);
        }
        (false, true) if !lun.is_set() => lun.required(errors, "lun is required if targetWWNs is specified"),
        _ => lun.in_range(errors, 0, 255),
    }
}
