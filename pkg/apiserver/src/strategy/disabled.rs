//! Fields of features that are off by default in 1.36: they are not kept, except where an object already has them.

use kube1_api::resource::Resource;
use serde_json::Value;

/// By group, plural, and the path to the member. `*` stands for each item or value; a name with `?` goes too when it is left
/// empty.
const DISABLED: &[(&str, &str, &str)] = &[
    ("apps", "statefulsets", "spec.updateStrategy.rollingUpdate.maxUnavailable"),
    ("resource.k8s.io", "resourceslices", "spec.devices.*.attributes.*.bools"),
    ("resource.k8s.io", "resourceslices", "spec.devices.*.attributes.*.ints"),
    ("resource.k8s.io", "resourceslices", "spec.devices.*.attributes.*.strings"),
    ("resource.k8s.io", "resourceslices", "spec.devices.*.attributes.*.versions"),
    ("resource.k8s.io", "resourceslices", "spec.devices.*.nodeAllocatableResourceMappings"),
    ("storage.k8s.io", "csidrivers", "spec.preventPodSchedulingIfMissing"),
    ("", "pods", "status.nodeAllocatableResourceClaimStatuses"),
    ("", "pods", "status.containerStatuses.*.stopSignal"),
    ("", "pods", "status.initContainerStatuses.*.stopSignal"),
    ("", "pods", "status.ephemeralContainerStatuses.*.stopSignal"),
];
/// Where the specifications of pods are.
const POD_SPECS: &[(&str, &str, &str)] = &[
    ("", "pods", "spec"),
    ("", "podtemplates", "template.spec"),
    ("", "replicationcontrollers", "spec.template.spec"),
    ("apps", "daemonsets", "spec.template.spec"),
    ("apps", "deployments", "spec.template.spec"),
    ("apps", "replicasets", "spec.template.spec"),
    ("apps", "statefulsets", "spec.template.spec"),
    ("batch", "cronjobs", "spec.jobTemplate.spec.template.spec"),
    ("batch", "jobs", "spec.template.spec"),
];
/// Of the specification of a pod.
const OF_POD_SPECS: &[&str] = &[
    "schedulingGroup",
    "containers.*.lifecycle?.stopSignal",
    "initContainers.*.lifecycle?.stopSignal",
    "ephemeralContainers.*.lifecycle?.stopSignal",
    "volumes.*.projected.sources.*.clusterTrustBundle",
    "volumes.*.projected.sources.*.podCertificate",
];

/// Drops from `new` what belongs to a feature that is off, unless `old` uses it.
pub(super) fn drop_disabled(resource: &Resource, new: &mut Value, old: Option<&Value>) {
    let is_it = |group: &str, plural: &str| resource.group == group && resource.plural == plural;
    for (.., path) in DISABLED.iter().filter(|(group, plural, _)| is_it(group, plural)) {
        let path: Vec<&str> = path.split('.').collect();
        drop_unused(new, old, &path);
    }
    if let Some((.., base)) = POD_SPECS.iter().find(|(group, plural, _)| is_it(group, plural)) {
        for path in OF_POD_SPECS {
            let path: Vec<&str> = base.split('.').chain(path.split('.')).collect();
            drop_unused(new, old, &path);
        }
    }
}

fn drop_unused(new: &mut Value, old: Option<&Value>, path: &[&str]) {
    if !old.is_some_and(|old| is_used(old, path)) {
        drop(new, path);
    }
}

fn is_used(value: &Value, path: &[&str]) -> bool {
    match (path, value) {
        ([], value) => !value.is_null(),
        (["*", rest @ ..], Value::Array(items)) => items.iter().any(|item| is_used(item, rest)),
        (["*", rest @ ..], Value::Object(members)) => members.values().any(|value| is_used(value, rest)),
        ([name, rest @ ..], value) => value.get(name.trim_end_matches('?')).is_some_and(|value| is_used(value, rest)),
    }
}

/// Tells whether something went.
fn drop(value: &mut Value, path: &[&str]) -> bool {
    match (path, value) {
        (["*", rest @ ..], Value::Array(items)) => items.iter_mut().fold(false, |any, item| any | drop(item, rest)),
        (["*", rest @ ..], Value::Object(members)) => {
            members.values_mut().fold(false, |any, value| any | drop(value, rest))
        }
        ([name], Value::Object(members)) => members.remove(*name).is_some(),
        ([name, rest @ ..], Value::Object(members)) => {
            let plain = name.trim_end_matches('?');
            let Some(below) = members.get_mut(plain) else { return false };
            let gone = drop(below, rest);
            if gone && plain != *name && below.as_object().is_some_and(|left| left.is_empty()) {
                members.remove(plain);
            }
            gone
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use kube1_api::resource::ResourceTable;
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_of_features_that_are_off_go() {
        let row = |group, plural| ResourceTable::builtin().get(group, "v1", plural).expect("a resource of 1.36");
        let sets = row("apps", "statefulsets");
        let with = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1, "maxUnavailable": 2}}}});
        let without = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}});
        let mut new = with.clone();
        drop_disabled(&sets, &mut new, Some(&with));
        assert_eq!(new, with, "what is in use stays");
        drop_disabled(&sets, &mut new, Some(&without));
        assert_eq!(new, without);
        let mut slice = json!({"spec": {"devices": [{"attributes": {"a": {"ints": [1]}, "b": {"int": 1}}}]}});
        drop_disabled(&row("resource.k8s.io", "resourceslices"), &mut slice, None);
        assert_eq!(slice, json!({"spec": {"devices": [{"attributes": {"a": {}, "b": {"int": 1}}}]}}));
        let job = row("batch", "jobs");
        let pod = |rest: Value| {
            let mut container = json!({"name": "c"});
            rest.as_object().into_iter().flatten().for_each(|(key, value)| container[key] = value.clone());
            json!({"spec": {"template": {"spec": {"containers": [container]}}}})
        };
        for (lifecycle, left) in [
            (json!({"stopSignal": "SIGUSR1"}), json!({})),
            (json!({"stopSignal": "SIGUSR1", "preStop": {}}), json!({"lifecycle": {"preStop": {}}})),
            (json!({}), json!({"lifecycle": {}})),
        ] {
            let with = pod(json!({"lifecycle": lifecycle}));
            let mut new = with.clone();
            drop_disabled(&job, &mut new, Some(&with));
            assert_eq!(new, with, "what is in use stays");
            drop_disabled(&job, &mut new, None);
            assert_eq!(new, pod(left));
        }
        let sources = json!([{"podCertificate": {}}, {"clusterTrustBundle": {}}, {"secret": {}}]);
        let mut new = json!({"spec": {"schedulingGroup": {}, "volumes": [{"projected": {"sources": sources}}]}});
        drop_disabled(&row("", "pods"), &mut new, None);
        assert_eq!(new, json!({"spec": {"volumes": [{"projected": {"sources": [{}, {}, {"secret": {}}]}}]}}));
    }
}
