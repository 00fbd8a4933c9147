//! The checks that only the restricted level makes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::{
    Pod, Violation, forbidden_additions, if_any, items, plural, quoted, seccomp, setters, text, violation,
};

const RESTRICTED_VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// User namespaces make no difference here.
pub(super) fn restricted_proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.containers_where(|c| c["securityContext"]["procMount"] == "Unmasked");
    if_any("procMount", &names, "must not set securityContext.procMount to \"Unmasked\"")
}

pub(super) fn restricted_capabilities(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let keeps = |c: &Value| !items(&c["securityContext"]["capabilities"]["drop"]).any(|d| d == "ALL");
    let names = pod.containers_where(keeps);
    let mut found = Vec::new();
    if !names.is_empty() {
        found.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", plural(&names)));
    }
    found.extend(forbidden_additions(pod, &["NET_BIND_SERVICE"]));
    if found.is_empty() { None } else { violation("unrestricted capabilities", found.join("; ")) }
}

pub(super) fn restricted_seccomp(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let good = |t: &str| matches!(t, "RuntimeDefault" | "Localhost");
    let bad = setters(pod, |c| !seccomp(c).is_empty() && !good(seccomp(c)));
    if !bad.is_empty() {
        let detail =
            format!("{} must not set securityContext.seccompProfile.type to \"Unconfined\"", bad.join(" and "));
        return violation("seccompProfile", detail);
    }
    let inherited = good(seccomp(pod.context()));
    let names = pod.containers_where(|c| !inherited && seccomp(&c["securityContext"]).is_empty());
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        plural(&names)
    );
    violation("seccompProfile", detail)
}

pub(super) fn privilege_escalation(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let names = pod.containers_where(|c| c["securityContext"]["allowPrivilegeEscalation"].as_bool() != Some(false));
    if_any("allowPrivilegeEscalation != false", &names, "must set securityContext.allowPrivilegeEscalation=false")
}

pub(super) fn restricted_volumes(pod: &Pod<'_>) -> Option<Violation> {
    let mut names = Vec::new();
    let mut kinds = BTreeSet::new();
    for volume in items(&pod.spec["volumes"]) {
        let kind = volume.as_object().into_iter().flatten().find(|(k, v)| *k != "name" && !v.is_null());
        let kind = kind.map_or("unknown", |(k, _)| k.as_str());
        if !RESTRICTED_VOLUMES.contains(&kind) {
            names.push(text(&volume["name"]));
            kinds.insert(kind);
        }
    }
    if names.is_empty() {
        return None;
    }
    let (word, verb) = if names.len() == 1 { ("volume", "uses") } else { ("volumes", "use") };
    let kind_word = if kinds.len() == 1 { "type" } else { "types" };
    let detail = format!("{word} {} {verb} restricted volume {kind_word} {}", quoted(&names), quoted(&kinds));
    violation("restricted volume types", detail)
}

pub(super) fn run_as_non_root(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_user_namespace() {
        return None;
    }
    let setting = |c: &Value| c["runAsNonRoot"].as_bool();
    let bad = setters(pod, |c| setting(c) == Some(false));
    if !bad.is_empty() {
        let detail = format!("{} must not set securityContext.runAsNonRoot=false", bad.join(" and "));
        return violation("runAsNonRoot != true", detail);
    }
    let open = pod.containers_where(|c| setting(&c["securityContext"]).is_none());
    if setting(pod.context()) == Some(true) || open.is_empty() {
        return None;
    }
    let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", plural(&open));
    violation("runAsNonRoot != true", detail)
}

pub(super) fn run_as_user(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_user_namespace() {
        return None;
    }
    let bad = setters(pod, |c| c["runAsUser"].as_i64() == Some(0));
    if bad.is_empty() {
        None
    } else {
        violation("runAsUser=0", format!("{} must not set runAsUser=0", bad.join(" and ")))
    }
}
