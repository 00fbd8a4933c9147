//! What makes a StatefulSet's pod that one pod: name, labels, host name and volumes.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};

use crate::cached_pod::CachedPod;
use crate::history::REVISION_LABEL;
use crate::owner::reference;
use crate::pods;

pub fn set_name(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// The number in the pod's name; None if it is not a name of this set's pods.
pub fn ordinal(set: &StatefulSet, pod: &CachedPod) -> Option<i32> {
    let number = pod.name.strip_prefix(set_name(set))?.strip_prefix('-')?;
    number.parse().ok().filter(|n: &i32| *n >= 0 && n.to_string() == number)
}

pub fn claim_name(template: &PersistentVolumeClaim, set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.metadata.name.as_deref().unwrap_or_default(), set_name(set))
}

/// The pod of an ordinal.
pub fn build(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    template: &PodTemplateSpec,
    ordinal: i32,
    revision: &str,
) -> Pod {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut pod = pods::from_template(template, namespace, set_name(set), reference(set));
    let name = format!("{}-{ordinal}", set_name(set));
    pod.metadata.generate_name = Some(format!("{}-", set_name(set)));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert("statefulset.kubernetes.io/pod-name".into(), name.clone());
    labels.insert("apps.kubernetes.io/pod-index".into(), ordinal.to_string());
    labels.insert(REVISION_LABEL.into(), revision.to_owned());
    let own = pod.spec.get_or_insert_default();
    own.hostname = Some(name.clone());
    own.subdomain = spec.service_name.clone().filter(|s| !s.is_empty());
    let templates = spec.volume_claim_templates.as_deref().unwrap_or(&[]);
    let volumes = own.volumes.get_or_insert_default();
    for template in templates {
        let name = template.metadata.name.clone().unwrap_or_default();
        volumes.retain(|v| v.name != name);
        let claim_name = claim_name(template, set, ordinal);
        let source = PersistentVolumeClaimVolumeSource { claim_name, ..Default::default() };
        volumes.push(Volume { name, persistent_volume_claim: Some(source), ..Volume::default() });
    }
    pod.metadata.name = Some(name);
    pod
}
