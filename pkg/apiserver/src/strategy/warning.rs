//! Advice that a write returns in Warning headers.

use kube1_api::resource::Resource;
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
    if old.is_none() && needs_label && !is_dns_label(name) {
        let use_of_name = if plural == "pods" { "the Pod's hostname" } else { "Pod names and hostnames" };
        warnings.push(format!(
            "metadata.name: this is used in {use_of_name}, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            if name.len() > 63 { "must be no more than 63 characters" } else { "must not contain dots" }
        ));
    }
    if let Some((path, spec)) = pod_spec(group, plural, new)
        && old.is_none_or(|old| pod_spec(group, plural, old).is_none_or(|(_, before)| before != spec))
    {
        warn_pod_spec(&path, spec, &mut warnings);
    }
    warn_owners(new, &mut warnings);
    warnings
}

fn is_dns_label(name: &str) -> bool {
    name.len() <= 63 && !name.contains('.')
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

fn warn_owners(object: &Value, warnings: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    for owner in items(&object["metadata"]["ownerReferences"]) {
        let uid = owner["uid"].as_str().unwrap_or_default();
        if !seen.insert(uid) {
            warnings.push(format!(
                ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {uid}"
            ));
        }
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}
