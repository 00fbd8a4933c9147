//! What the server itself does to objects before they are stored: which parts a request may write, what is filled in,
//! when generation rises. One table of rules; resources without a row follow the common rules.

mod advice;
mod controllers;
mod core;
mod core_advice;
mod deletion;
mod disabled;
mod generation;
mod metadata;
mod pod;
mod service;
mod volume_advice;
mod warning;

use jiff::Timestamp;
use kube1_api::resource::Resource;
use serde_json::{Value, json};

pub use deletion::{DeletePlan, check_preconditions, delete_plan, is_released};
pub use kube1_api::amounts::qos_class;
pub use metadata::{fill_system_fields, generate_name, wipe_system_fields};
pub use pod::{bind_pod, carry_app_armor};
pub use warning::{dedup_owners, warnings};

use crate::user::UserInfo;
use generation::Generation;

/// Circumstances of a write.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub now: Timestamp,
    pub user: &'a UserInfo,
}

impl Context<'_> {
    /// The time as objects carry it, in seconds.
    pub fn time(&self) -> String {
        time_text(self.now)
    }
}

/// A time as objects carry it, in seconds.
pub fn time_text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

type Create = fn(&mut Value, &Context<'_>);
type Update = fn(&mut Value, &Value, &Context<'_>);

/// Where a resource departs from the common rules.
#[derive(Clone, Copy)]
struct Rule {
    generation: Generation,
    /// Whether an object may come with its status.
    starts_with_status: bool,
    /// Members of metadata that a status update does not take; `*` for all but managedFields.
    status_keeps: &'static [&'static str],
    create: Option<Create>,
    update: Option<Update>,
    status: Option<Update>,
}

const PLAIN: Rule = Rule {
    generation: Generation::None,
    starts_with_status: false,
    status_keeps: &[],
    create: None,
    update: None,
    status: None,
};
/// Generation counts changes of the spec.
const COUNTED: Rule = Rule { generation: Generation::Members(&["spec"]), ..PLAIN };
const ALL: &[&str] = &["*"];

fn rule(resource: &Resource) -> Rule {
    if resource.is_custom() {
        return Rule { generation: Generation::Content, status_keeps: ALL, ..PLAIN };
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "limitranges") => Rule { create: Some(core::create_limit_range), ..PLAIN },
        ("", "namespaces") => {
            Rule { create: Some(core::create_namespace), update: Some(core::update_namespace), ..PLAIN }
        }
        ("", "nodes") => Rule { create: Some(core::create_node), starts_with_status: true, ..PLAIN },
        ("", "persistentvolumeclaims") => {
            Rule { create: Some(core::create_claim), update: Some(core::update_claim), ..PLAIN }
        }
        ("", "persistentvolumes") => {
            Rule { create: Some(core::create_volume), status: Some(core::update_volume_status), ..PLAIN }
        }
        ("", "pods") => Rule {
            create: Some(pod::create),
            status: Some(pod::update_status),
            status_keeps: &["ownerReferences", "deletionTimestamp"],
            ..COUNTED
        },
        ("", "podtemplates") => Rule { generation: Generation::Members(&["template"]), ..PLAIN },
        ("", "secrets") => Rule { create: Some(core::create_secret), update: Some(core::update_secret), ..PLAIN },
        ("", "serviceaccounts") => {
            Rule { create: Some(core::create_account), update: Some(core::update_account), ..PLAIN }
        }
        ("", "services") => Rule { create: Some(service::create), update: Some(service::update), ..PLAIN },
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "replicasets" | "statefulsets")
        | ("batch", "cronjobs")
        | ("networking.k8s.io", "ingressclasses" | "ingresses" | "networkpolicies")
        | ("policy", "poddisruptionbudgets")
        | ("resource.k8s.io", "deviceclasses" | "resourceslices") => COUNTED,
        ("apps", "deployments") => {
            Rule { generation: Generation::SpecOrAnnotations, status_keeps: &["labels"], ..PLAIN }
        }
        ("batch", "jobs") => Rule { create: Some(controllers::create_job), ..COUNTED },
        ("certificates.k8s.io", "certificatesigningrequests") => Rule {
            create: Some(core::create_signing_request),
            update: Some(core::update_signing_request),
            status: Some(core::update_signing_request_status),
            ..PLAIN
        },
        ("networking.k8s.io", "servicecidrs")
        | ("storage.k8s.io", "volumeattachments")
        | ("resource.k8s.io", "resourceclaims")
        | ("storagemigration.k8s.io", _) => Rule { status_keeps: ALL, ..PLAIN },
        ("storage.k8s.io", "csidrivers") => Rule { generation: Generation::FromZero(&["spec"]), ..PLAIN },
        ("admissionregistration.k8s.io", plural) if plural.ends_with("configurations") => {
            Rule { generation: Generation::Members(&["webhooks"]), ..PLAIN }
        }
        ("admissionregistration.k8s.io" | "flowcontrol.apiserver.k8s.io", _) => Rule { status_keeps: ALL, ..COUNTED },
        ("apiextensions.k8s.io", _) => {
            Rule { create: Some(controllers::create_crd), update: Some(controllers::update_crd), ..COUNTED }
        }
        ("apiregistration.k8s.io", _) => Rule {
            create: Some(controllers::create_api_service),
            status_keeps: &["labels", "annotations", "finalizers", "ownerReferences"],
            ..PLAIN
        },
        ("scheduling.k8s.io", "priorityclasses") => Rule { generation: Generation::Members(&[]), ..PLAIN },
        ("coordination.k8s.io", "leases") => {
            Rule { create: Some(controllers::create_lease), update: Some(controllers::update_lease), ..PLAIN }
        }
        ("discovery.k8s.io", _) => Rule { generation: Generation::ContentOrLabels, ..PLAIN },
        _ => PLAIN,
    }
}

/// Makes a decoded, admitted object ready to be validated and stored for the first time.
pub fn prepare_create(resource: &Resource, object: &mut Value, context: &Context<'_>) {
    let rule = rule(resource);
    if resource.has_status() {
        if resource.is_custom() {
            remove(object, "status");
        } else if !(rule.starts_with_status && object["status"].is_object()) {
            let status = resource.ty.and_then(|ty| ty.field("status")).and_then(kube1_api::codec::zero);
            object["status"] = status.unwrap_or_else(|| json!({}));
        }
    }
    disabled::drop_disabled(resource, object, None);
    rule.generation.start(&mut object["metadata"]);
    if let Some(create) = rule.create {
        create(object, context);
    }
}

/// Takes from `new` only what a request to `subresource` (empty: the object itself) may write; the rest comes from
/// `old`. Counts the generation.
pub fn prepare_update(resource: &Resource, subresource: &str, new: &mut Value, old: &Value, context: &Context<'_>) {
    let rule = rule(resource);
    metadata::restore(new, old);
    match subresource {
        "status" => {
            take_members(new, old, &["status"]);
            restore_metadata(new, old, rule.status_keeps);
            disabled::drop_disabled(resource, new, Some(old));
            if let Some(status) = rule.status {
                status(new, old, context);
            }
        }
        "finalize" => {
            let finalizers = new["spec"]["finalizers"].take();
            take_members(new, old, &[]);
            set(new, &["spec", "finalizers"], finalizers);
        }
        "approval" => {
            let conditions = new["status"]["conditions"].take();
            take_members(new, old, &[]);
            set(new, &["status", "conditions"], conditions);
            core::stamp_conditions(new, old, context);
        }
        "ephemeralcontainers" => {
            let containers = new["spec"]["ephemeralContainers"].take();
            take_members(new, old, &[]);
            restore_metadata(new, old, ALL);
            set(new, &["spec", "ephemeralContainers"], containers);
            rule.generation.count(new, old);
        }
        "resize" => {
            pod::take_resources(new, old);
            restore_metadata(new, old, ALL);
            rule.generation.count(new, old);
        }
        _ => {
            if resource.has_status() {
                set(new, &["status"], old["status"].clone());
            }
            disabled::drop_disabled(resource, new, Some(old));
            if let Some(update) = rule.update {
                update(new, old, context);
            }
            rule.generation.count(new, old);
        }
    }
}

/// Keeps metadata and the named members of `new`; all others come from `old`.
fn take_members(new: &mut Value, old: &Value, taken: &[&str]) {
    let mut result = old.clone();
    for member in taken.iter().chain(&["metadata"]) {
        set(&mut result, &[member], new[member].take());
    }
    *new = result;
}

fn restore_metadata(new: &mut Value, old: &Value, kept: &[&str]) {
    if kept == ALL {
        let managed = new["metadata"]["managedFields"].take();
        new["metadata"] = old["metadata"].clone();
        set(new, &["metadata", "managedFields"], managed);
        return;
    }
    for member in kept {
        set(new, &["metadata", member], old["metadata"][*member].clone());
    }
}

/// Sets a member, or removes it when the value is null. Missing objects on the way are made.
fn set(object: &mut Value, path: &[&str], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    if value.is_null() {
        let parent = parents.iter().try_fold(object, |at, key| at.get_mut(*key));
        if let Some(parent) = parent {
            remove(parent, last);
        }
        return;
    }
    let mut at = object;
    for key in parents {
        if !at[*key].is_object() {
            at[*key] = json!({});
        }
        at = &mut at[*key];
    }
    at[*last] = value;
}

fn remove(object: &mut Value, member: &str) {
    if let Some(members) = object.as_object_mut() {
        members.remove(member);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
