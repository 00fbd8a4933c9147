//! Volumes of a pod.

use std::collections::{HashMap, HashSet};

use super::Volume;
use super::container::pull_policy;
use super::projected::{config_map, downward_api, projected, secret};
use crate::validate::at::At;
use crate::validate::volume_source::{self as source, Owner, Source};
use crate::validate::{Errors, format, storage};

/// Every source in the order in which they are looked at.
const SOURCES: [Source; 30] = [
    ("emptyDir", "emptyDir", "emptyDir", empty_dir),
    ("hostPath", "hostPath", "hostPath", source::host_path),
    ("gitRepo", "gitRepo", "gitRepo", source::git_repo),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk", source::gce_disk),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore", source::aws_disk),
    ("secret", "secret", "secret", secret),
    ("nfs", "nfs", "nfs", source::nfs),
    ("iscsi", "iscsi", "iscsi", source::iscsi),
    ("glusterfs", "glusterfs", "glusterfs", source::glusterfs),
    ("flocker", "flocker", "flocker", source::flocker),
    ("persistentVolumeClaim", "persistentVolumeClaim", "persistentVolumeClaim", claim),
    ("rbd", "rbd", "rbd", source::rbd),
    ("cinder", "cinder", "cinder", source::cinder),
    ("cephfs", "cephFS", "cephfs", source::ceph_fs),
    ("quobyte", "quobyte", "quobyte", source::quobyte),
    ("downwardAPI", "downwarAPI", "downwardAPI", downward_api),
    ("fc", "fc", "fc", source::fibre_channel),
    ("flexVolume", "flexVolume", "flexVolume", source::flex),
    ("configMap", "configMap", "configMap", config_map),
    ("azureFile", "azureFile", "azureFile", source::azure_file),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume", source::vsphere),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk", source::photon),
    ("portworxVolume", "portworxVolume", "portworxVolume", source::portworx),
    ("azureDisk", "azureDisk", "azureDisk", source::azure_disk),
    ("storageos", "storageos", "storageos", source::storage_os),
    ("projected", "projected", "projected", projected),
    ("scaleIO", "scaleIO", "scaleIO", source::scale_io),
    ("csi", "csi", "csi", source::csi),
    ("ephemeral", "ephemeral", "ephemeral", ephemeral),
    ("image", "image", "image", image),
];

/// Checks all volumes of the pod with this name, if it has one; returns those with which nothing is wrong.
pub(super) fn volumes<'v>(volumes: &At<'v, '_>, pod: &str, errors: &mut Errors) -> HashMap<&'v str, Volume> {
    let claim_of = |volume: &str| format!("{pod}-{volume}");
    let made: HashSet<String> = match pod {
        "" => HashSet::new(),
        _ => volumes.items().filter(|v| v.get("ephemeral").is_set()).map(|v| claim_of(v.str("name"))).collect(),
    };
    let mut fine = HashMap::new();
    for volume in volumes.items() {
        let (name, text) = (volume.get("name"), volume.str("name"));
        let before = errors.len();
        source::exactly_one(&volume, &SOURCES, Owner { name: text, persistent: false }, errors);
        if volume.get("ephemeral").is_set() && !pod.is_empty() && !text.is_empty() {
            let claim = claim_of(text);
            for problem in format::dns_subdomain(&claim) {
                name.invalid(errors, format!("PVC name {claim:?}: {problem}"));
            }
        }
        if name.need(errors) {
            name.check(errors, format::dns_label(text));
        }
        if fine.contains_key(text) {
            name.duplicate(errors);
        }
        let used = volume.get("persistentVolumeClaim.claimName");
        if errors.len() == before {
            let is_claim = volume.get("persistentVolumeClaim").is_set() || volume.get("ephemeral").is_set();
            fine.insert(volume.str("name"), if is_claim { Volume::Claim } else { Volume::Other });
        }
        if made.contains(used.text()) {
            used.invalid(errors, "must not reference a PVC that gets created for an ephemeral volume");
        }
    }
    fine
}

fn empty_dir(source: &At, _: Owner, errors: &mut Errors) {
    let limit = source.get("sizeLimit");
    if limit.quantity().is_some_and(|q| q.is_negative()) {
        limit.forbidden(errors, "SizeLimit field must be a valid resource quantity");
    }
}

fn claim(source: &At, _: Owner, errors: &mut Errors) {
    source.get("claimName").need(errors);
}

fn ephemeral(source: &At, _: Owner, errors: &mut Errors) {
    let template = source.get("volumeClaimTemplate");
    if !template.is_set() {
        return template.required(errors, "");
    }
    let metadata = template.get("metadata");
    crate::validate::metadata::annotations(&metadata.get("annotations"), errors);
    crate::validate::metadata::labels(&metadata.get("labels"), errors);
    for name in metadata.members().into_iter().flatten().map(|(name, _)| name.as_str()) {
        let field = metadata.get(name);
        if !matches!(name, "annotations" | "labels") && !field.is_empty() {
            field.forbidden(errors, "cannot be set");
        }
    }
    storage::claim_spec(&template.get("spec"), errors);
}

fn image(source: &At, _: Owner, errors: &mut Errors) {
    source.get("reference").need(errors);
    pull_policy(&source.get("pullPolicy"), errors);
}
