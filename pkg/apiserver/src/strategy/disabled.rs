//! Fields of features that are off by default in 1.36: they are not kept, except where an object already has them.

use kube1_api::resource::Resource;
use serde_json::Value;

/// By group, plural, and the path to the member; `*` stands for each item or value.
const DISABLED: &[(&str, &str, &str)] = &[
    ("apps", "statefulsets", "spec.updateStrategy.rollingUpdate.maxUnavailable"),
    ("resource.k8s.io", "resourceslices", "spec.devices.*.attributes.*.bools"),
    ("resource.k8s.io", "resourceslices", "spec.devices.*.attributes.*.ints"),
    ("resource.k8s.io", "resourceslices", "spec.devices.*.attributes.*.strings"),
    ("resource.k8s.io", "resourceslices", "spec.devices.*.attributes.*.versions"),
    ("resource.k8s.io", "resourceslices", "spec.devices.*.nodeAllocatableResourceMappings"),
    ("storage.k8s.io", "csidrivers", "spec.preventPodSchedulingIfMissing"),
];

/// Drops from `new` what belongs to a feature that is off, unless `old` uses it.
pub(super) fn drop_disabled(resource: &Resource, new: &mut Value, old: Option<&Value>) {
    for (.., path) in
        DISABLED.iter().filter(|(group, plural, _)| resource.group == *group && resource.plural == *plural)
    {
        let path: Vec<&str> = path.split('.').collect();
        if !old.is_some_and(|old| is_used(old, &path)) {
            drop(new, &path);
        }
    }
}

fn is_used(value: &Value, path: &[&str]) -> bool {
    match (path, value) {
        ([], value) => !value.is_null(),
        (["*", rest @ ..], Value::Array(items)) => items.iter().any(|item| is_used(item, rest)),
        (["*", rest @ ..], Value::Object(members)) => members.values().any(|value| is_used(value, rest)),
        ([name, rest @ ..], value) => value.get(name).is_some_and(|value| is_used(value, rest)),
    }
}

fn drop(value: &mut Value, path: &[&str]) {
    match (path, value) {
        (["*", rest @ ..], Value::Array(items)) => items.iter_mut().for_each(|item| drop(item, rest)),
        (["*", rest @ ..], Value::Object(members)) => members.values_mut().for_each(|value| drop(value, rest)),
        ([name], Value::Object(members)) => _ = members.remove(*name),
        ([name, rest @ ..], value) => {
            if let Some(value) = value.get_mut(name) {
                drop(value, rest);
            }
        }
        ([], _) => {}
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
    }
}
