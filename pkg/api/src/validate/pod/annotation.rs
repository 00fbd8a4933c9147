//! Annotations of pods that mean something.

use super::Pod;
use super::mount::descending;
use crate::validate::Errors;
use crate::validate::at::At;

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The annotations of a pod or template, with its spec.
pub(super) fn annotations(annotations: &At, spec: &At, errors: &mut Errors) {
    let mirror = annotations.key(MIRROR);
    if mirror.is_set() && spec.get("nodeName").is_empty() {
        mirror.invalid(errors, "must set spec.nodeName if mirror pod annotation is set");
    }
    let cost = annotations.key(DELETION_COST);
    if cost.is_set() && !is_plain_number(cost.text()) {
        cost.invalid(errors, "must be a 32bit integer");
    }
    for (key, value) in annotations.entries() {
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            seccomp(&value.renamed(key), value.text(), errors);
        }
    }
    for (key, value) in annotations.entries() {
        let Some(name) = key.strip_prefix(APP_ARMOR) else { continue };
        let mut known = false;
        Pod::each_container(spec, |container| known |= container.str("name") == name);
        if !known {
            value.invalid_value(errors, name, "container not found");
        }
        let profile = value.text();
        if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with("localhost/") {
            value.invalid(errors, format!("invalid AppArmor profile name: {profile:?}"));
        }
    }
}

fn is_plain_number(text: &str) -> bool {
    let plain = text == "0" || text.starts_with('-') || text.starts_with(|c: char| matches!(c, '1'..='9'));
    plain && text.parse::<i32>().is_ok()
}

fn seccomp(at: &At, profile: &str, errors: &mut Errors) {
    match profile.strip_prefix("localhost/") {
        _ if matches!(profile, "runtime/default" | "docker/default" | "unconfined") => {}
        Some(path) => descending(at, path, errors),
        None => at.invalid_value(errors, profile, "must be a valid seccomp profile"),
    }
}

/// Fields that say the same as annotations must agree with them.
pub(super) fn agree(annotations: &At, spec: &At, errors: &mut Errors) {
    let pod_profile = spec.get("securityContext.seccompProfile");
    if let (true, Some(text)) = (pod_profile.is_set(), annotations.key(SECCOMP_POD).value.as_str()) {
        agrees(&pod_profile, &pod_profile, text, "seccomp", errors);
    }
    Pod::each_container(spec, |container| {
        let profile = container.get("securityContext.seccompProfile");
        let key = format!("{SECCOMP_CONTAINER}{}", container.str("name"));
        if let (true, Some(text)) = (profile.is_set(), annotations.key(&key).value.as_str()) {
            agrees(&profile, &profile, text, "seccomp", errors);
        }
    });
    if spec.str("os.name") == "windows" {
        return;
    }
    let whole = spec.get("securityContext.appArmorProfile");
    Pod::each_container(spec, |container| {
        let own = container.get("securityContext.appArmorProfile");
        let profile = if own.is_set() { own } else { whole };
        let key = format!("{APP_ARMOR}{}", container.str("name"));
        if let (true, Some(text)) = (profile.is_set(), annotations.key(&key).value.as_str()) {
            agrees(&own, &profile, text, "apparmor", errors);
        }
    });
}

fn agrees(at: &At, profile: &At, annotation: &str, what: &str, errors: &mut Errors) {
    let same_type = match profile.str("type") {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => annotation == "runtime/default" || (what == "seccomp" && annotation == "docker/default"),
        "Localhost" => annotation.starts_with("localhost/"),
        _ => true,
    };
    if !same_type {
        at.get("type").forbidden(errors, format!("{what} type in annotation and field must match"));
    } else if profile.str("type") == "Localhost"
        && annotation.strip_prefix("localhost/") != profile.get("localhostProfile").value.as_str()
    {
        let detail = format!("{what} profile in annotation and field must match");
        at.get("localhostProfile").forbidden(errors, detail);
    }
}

/// Some annotations of a pod stay as they were.
pub(super) fn change(new: &At, old: &At, errors: &mut Errors) {
    let fixed = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        _ if key.starts_with(APP_ARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, value) in old.entries() {
        if let Some(what) = fixed(key).filter(|_| new.key(key).value != value.value) {
            new.key(key).forbidden(errors, format!("may not remove or update {what}"));
        }
    }
    for (key, value) in new.entries() {
        if let Some(what) = fixed(key).filter(|_| !old.key(key).is_set()) {
            value.forbidden(errors, format!("may not add {what}"));
        }
    }
}
