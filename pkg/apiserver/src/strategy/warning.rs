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
    match (group, plural) {
        ("", "services") => super::core_advice::service(new, &mut warnings),
        ("", "persistentvolumeclaims") => super::core_advice::claim_spec("spec", &new["spec"], &mut warnings),
        _ => {}
    }
    // People change templates, components change pods: those are looked at once.
    if let Some((path, template)) = template(group, plural, new)
        && old.is_none_or(|old| plural != "pods" && template_of(group, plural, old) != Some(template))
    {
        super::core_advice::template(&path, template, plural != "pods", &mut warnings);
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

/// Where the metadata and spec of pods are: in the pod itself, or below.
fn template<'a>(group: &str, plural: &str, object: &'a Value) -> Option<(String, &'a Value)> {
    let path = match (group, plural) {
        ("", "pods") => "",
        ("", "podtemplates") => "template",
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => "spec.template",
        ("batch", "cronjobs") => "spec.jobTemplate.spec.template",
        _ => return None,
    };
    let at = path.split('.').filter(|name| !name.is_empty()).fold(object, |at, name| &at[name]);
    Some((if path.is_empty() { String::new() } else { format!("{path}.") }, at))
}

fn template_of<'a>(group: &str, plural: &str, object: &'a Value) -> Option<&'a Value> {
    template(group, plural, object).map(|(_, template)| template)
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
