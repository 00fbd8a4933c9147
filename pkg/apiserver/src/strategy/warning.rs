//! Advice that a write returns in Warning headers.

use kube1_api::resource::Resource;
use kube1_api::structural::unknown_formats;
use serde_json::Value;

/// What to tell the writer of `new`.
pub fn warnings(resource: &Resource, new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let (group, plural) = (resource.group.as_str(), resource.plural.as_str());
    let needs_label = matches!(
        (group, plural),
        ("", "pods" | "replicationcontrollers")
            | ("apps", "deployments" | "replicasets")
            | ("batch", "jobs" | "cronjobs")
    );
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    if old.is_none() && needs_label && !label_problems(name).is_empty() {
        let use_of_name = if plural == "pods" { "the Pod's hostname" } else { "Pod names and hostnames" };
        warnings.push(format!(
            "metadata.name: this is used in {use_of_name}, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            label_problems(name).join(" ")
        ));
    }
    if let Some((path, spec)) = pod_spec(group, plural, new)
        && old.is_none_or(|old| pod_spec(group, plural, old).is_none_or(|(_, before)| before != spec))
    {
        warn_pod_spec(&path, spec, &mut warnings);
    }
    super::advice::about(group, plural, new, old, &mut warnings);
    if (group, plural) == ("apiextensions.k8s.io", "customresourcedefinitions") {
        let formats = |definition: &Value| {
            let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
            versions.flat_map(|v| unknown_formats(&v["schema"]["openAPIV3Schema"])).collect::<Vec<_>>()
        };
        let known = old.map(formats).unwrap_or_default();
        let new = formats(new).into_iter().filter(|format| !known.contains(format));
        warnings.extend(new.map(|format| format!("unrecognized format {format:?}")));
    }
    warnings
}

/// Why a name that passed is no label.
fn label_problems(name: &str) -> Vec<&'static str> {
    let problems =
        [(name.len() > 63, "must be no more than 63 characters"), (name.contains('.'), "must not contain dots")];
    problems.into_iter().filter(|(wrong, _)| *wrong).map(|(_, problem)| problem).collect()
}

fn pod_spec<'a>(group: &str, plural: &str, object: &'a Value) -> Option<(String, &'a Value)> {
    match (group, plural) {
        ("", "pods") => Some(("spec".into(), &object["spec"])),
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => Some(("spec.template.spec".into(), &object["spec"]["template"]["spec"])),
        ("batch", "cronjobs") => Some((
            "spec.jobTemplate.spec.template.spec".into(),
            &object["spec"]["jobTemplate"]["spec"]["template"]["spec"],
        )),
        _ => None,
    }
}

fn warn_pod_spec(path: &str, spec: &Value, warnings: &mut Vec<String>) {
    let mut warn = |text: String| warnings.push(text);
    let members = |name: &str| spec["nodeSelector"][name].is_string();
    for (old, new) in [
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ] {
        if members(old) {
            warn(format!("{path}.nodeSelector[{old}]: deprecated since v1.14; use \"{new}\" instead"));
        }
    }
    for (index, _) in
        items(&spec["hostAliases"]).enumerate().filter(|(_, a)| a["ip"].as_str().is_some_and(has_leading_zero))
    {
        warn(format!(
            "{path}.hostAliases[{index}].ip: non-standard IP address will be considered invalid in a future Kubernetes release"
        ));
    }
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|s| s < 0) {
        warn(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    for (list, containers) in [("initContainers", &spec["initContainers"]), ("containers", &spec["containers"])] {
        for (index, container) in items(containers).enumerate() {
            let mut seen = std::collections::BTreeSet::new();
            for variable in items(&container["env"]) {
                let name = variable["name"].as_str().unwrap_or_default();
                if !seen.insert(name) {
                    warn(format!(
                        "{path}.{list}[{index}].env: hides previous definition of \"{name}\", which may be dropped when using apply"
                    ));
                }
            }
        }
    }
}

fn has_leading_zero(address: &str) -> bool {
    address.split('.').any(|part| part.len() > 1 && part.starts_with('0'))
}

/// Drops owners that are named again, and tells the writer; `mutated` after admission may have named them.
pub fn dedup_owners(object: &mut Value, mutated: bool) -> Option<String> {
    let owners = object.get_mut("metadata")?.get_mut("ownerReferences")?.as_array_mut()?;
    let mut seen = std::collections::BTreeSet::new();
    let mut twice = Vec::new();
    owners.retain(|owner| {
        let uid = owner["uid"].as_str().unwrap_or_default();
        let first = seen.insert(uid.to_owned());
        if !first {
            twice.push(uid.to_owned());
        }
        first
    });
    let when = if mutated { " after mutating admission happens" } else { "" };
    (!twice.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, \
             and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        )
    })
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_owner_is_kept_once() {
        let owner = |uid: &str, name: &str| json!({"uid": uid, "name": name});
        let mut object = json!({"metadata": {"ownerReferences": [owner("1", "a"), owner("2", "b"), owner("1", "c")]}});
        let warning = dedup_owners(&mut object, true).unwrap_or_default();
        assert!(warning.contains("after mutating admission happens") && warning.ends_with("observed: 1"), "{warning}");
        assert_eq!(object["metadata"]["ownerReferences"], json!([owner("1", "a"), owner("2", "b")]));
        assert_eq!(dedup_owners(&mut object, false), None);
    }
}
