//! Jobs and cron jobs.

mod cron;
mod indexes;
mod policy;
mod status;

use serde_json::{Value, json};

use super::at::{At, same};
use super::selector::label_selector;
use super::workload::selects;
use super::{Errors, format, pod};

pub(super) use cron::cron_job;
pub(super) use status::job_status;

const MAX_INDEXED: i64 = 100_000;
/// What may run and fail of a job with more completions than `MAX_INDEXED`.
const MAX_OF_MANY: i64 = 10_000;

pub(super) fn job(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    generated_selector(object, old, errors);
    job_spec(&spec, old.map(|o| &o.value["spec"]), errors);
    let selector = spec.get("selector");
    if !selector.is_set() {
        selector.required(errors, "");
    }
    label_selector(&selector, errors);
    selects(&selector, &spec.get("template"), errors);
    let completions = spec.number("completions");
    if spec.str("completionMode") == "Indexed" && completions > 0 {
        let name = object.get("metadata.name");
        let host = format!("{}-{}", name.text(), completions - 1);
        if !format::dns_label(&host).is_empty() {
            name.invalid(errors, format!("will not able to create pod with invalid DNS label: {host}"));
        }
    }
    if let Some(old) = old {
        job_change(object, old, errors);
    }
}

/// Unless the selector was made by hand, it is the server's own.
fn generated_selector(object: &At, old: Option<&At>, errors: &mut Errors) {
    const OLD_LABELS: [(&str, &str); 2] = [("controller-uid", "uid"), ("job-name", "name")];
    const LABELS: [(&str, &str); 2] =
        [("batch.kubernetes.io/controller-uid", "uid"), ("batch.kubernetes.io/job-name", "name")];
    let (spec, meta) = (object.get("spec"), object.get("metadata"));
    let selector = spec.get("selector");
    if spec.get("manualSelector").is_true() || !selector.is_set() {
        return;
    }
    let template = spec.get("template.metadata");
    let labels = template.get("labels");
    let old_labels = old.map(|old| &old.value["spec"]["template"]["metadata"]["labels"]);
    let prefixed = old_labels.is_none_or(|old| LABELS.iter().all(|(key, _)| old[*key].is_string()));
    let expected = OLD_LABELS.iter().chain(LABELS.iter().filter(|_| prefixed));
    for (key, source) in expected.clone() {
        let (label, value) = (labels.value.get(*key).and_then(Value::as_str), meta.str(source));
        let place = || labels.path().key(key);
        match label {
            Some(label) if label == value => {}
            Some(label) => {
                let detail = format!("must be '{value}'");
                errors.push(crate::field::FieldError::invalid(&place(), label, detail));
            }
            None => errors.push(crate::field::FieldError::required(&place(), format!("must be '{value}'"))),
        }
    }
    let all: Value = expected.map(|(key, source)| ((*key).to_owned(), json!(meta.str(source)))).collect();
    if crate::selector::LabelSelector::from_value(selector.value).is_ok_and(|s| !s.matches_value(&all)) {
        selector.invalid(errors, "`selector` not auto-generated");
    }
}

fn job_spec(spec: &At, old: Option<&Value>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.get(field).not_negative(errors);
    }
    if spec.get("maxFailedIndexes").is_set() && !spec.get("backoffLimitPerIndex").is_set() {
        spec.get("backoffLimitPerIndex").required(errors, "when maxFailedIndexes is specified");
    }
    let managed_by = spec.get("managedBy");
    if managed_by.is_set() {
        if managed_by.need(errors) {
            for (part, problem) in format::domain_prefixed_path(managed_by.text()) {
                managed_by.invalid_value(errors, part, problem);
            }
        }
        managed_by.no_longer(errors, 63);
    }
    completion_mode(spec, errors);
    policy::failure(spec, errors);
    policy::success(spec, errors);
    let replacement = spec.get("podReplacementPolicy");
    let allowed =
        if spec.get("podFailurePolicy").is_set() { &["Failed"][..] } else { &["Failed", "TerminatingOrFailed"] };
    replacement.listed(errors, allowed);
    let template = spec.get("template");
    if old.is_none_or(|old| !same(&old["template"], template.value)) {
        pod::template(&template, errors);
    }
    let policy = template.get("spec.restartPolicy");
    match policy.text() {
        "Always" | "" => policy.required(errors, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.get("podFailurePolicy").is_set() => {
            policy.invalid(errors, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        _ => policy.one_of(errors, &["OnFailure", "Never"]),
    }
}

fn completion_mode(spec: &At, errors: &mut Errors) {
    let mode = spec.get("completionMode");
    mode.listed(errors, &["NonIndexed", "Indexed"]);
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    let (per_index, failed) = (spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"));
    if matches!(mode.text(), "" | "NonIndexed") {
        for field in [per_index, failed] {
            if field.is_set() {
                field.invalid(errors, "requires indexed completion mode");
            }
        }
    }
    if mode.text() != "Indexed" {
        return;
    }
    if !completions.is_set() {
        completions.required(errors, "when completion mode is Indexed");
    }
    let above = |at: &At, max: i64| at.int().is_some_and(|n| n > max);
    if above(&parallelism, MAX_INDEXED) {
        let detail = format!("must be less than or equal to {MAX_INDEXED} when completion mode is Indexed");
        parallelism.invalid(errors, detail);
    }
    if completions.int().is_some_and(|max| above(&failed, max)) {
        failed.invalid(errors, "must be less than or equal to completions");
    }
    if above(&failed, MAX_INDEXED) {
        failed.invalid(errors, format!("must be less than or equal to {MAX_INDEXED}"));
    }
    if above(&completions, MAX_INDEXED) && per_index.is_set() {
        if !failed.is_set() {
            failed.required(errors, &format!("must be specified when completions is above {MAX_INDEXED}"));
        }
        for count in [parallelism, failed] {
            if above(&count, MAX_OF_MANY) {
                let detail = format!(
                    "must be less than or equal to {MAX_OF_MANY} when completions are above {MAX_INDEXED} and used with backoff limit per index"
                );
                count.invalid(errors, detail);
            }
        }
    }
}

fn job_change(object: &At, old: &At, errors: &mut Errors) {
    let (spec, old_spec) = (object.get("spec"), old.get("spec"));
    let (completions, old_completions) = (spec.get("completions"), old_spec.get("completions"));
    if spec.str("completionMode") != "Indexed" {
        completions.immutable(&old_completions, errors);
    } else if completions.is_set()
        && completions.value != old_completions.value
        && completions.value != spec.get("parallelism").value
    {
        completions.invalid(errors, "can only be modified in tandem with spec.parallelism");
    }
    spec.get("selector").immutable(&old_spec.get("selector"), errors);
    let (template, old_template) = (spec.get("template"), old_spec.get("template"));
    let settled = if may_be_set_up(old) {
        same(&settled(template.value), &settled(old_template.value))
    } else {
        same(template.value, old_template.value)
    };
    if !settled {
        template.invalid(errors, "field is immutable");
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        spec.get(field).immutable(&old_spec.get(field), errors);
    }
}

/// Whether a job is suspended and has no pods.
fn may_be_set_up(job: &At) -> bool {
    let status = job.get("status");
    let told = status.get("conditions").list().iter().any(|c| c["type"] == "Suspended" && c["status"] == "True");
    let idle = told && status.number("active") == 0;
    job.get("spec.suspend").is_true() && (idle || !status.get("startTime").is_set())
}

/// The template without what may change of a job that is suspended: where its pods go, and what they ask for.
fn settled(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(meta) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("labels");
        meta.remove("annotations");
    }
    let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else { return template };
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        spec.remove(field);
    }
    if let Some(affinity) = spec.get_mut("affinity").and_then(Value::as_object_mut) {
        affinity.remove("nodeAffinity");
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container.as_object_mut().and_then(|c| c.remove("resources"));
        }
    }
    template
}
