//! Jobs and cron jobs.

use serde_json::{Value, json};

use super::at::{At, same};
use super::selector::label_selector;
use super::workload::selects;
use super::{Errors, format, pod, schedule};

const MAX_INDEXED_PARALLELISM: i64 = 100_000;

pub(super) fn job(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    job_spec(&spec, old.map(|o| &o.value["spec"]), errors);
    let selector = spec.get("selector");
    if selector.need(errors) {
        label_selector(&selector, errors);
        selects(&selector, &spec.get("template"), errors);
    }
    match old {
        None => generated_selector(object, errors),
        Some(old) => job_change(object, old, errors),
    }
    if spec.str("completionMode") == "Indexed" && old.is_none() {
        let (name, last) = (object.get("metadata.name"), spec.get("completions").int().unwrap_or(1).max(1) - 1);
        if !name.is_empty() {
            name.check(errors, format::dns_label(&format!("{}-{last}", name.text())));
        }
    }
}

/// Unless the selector was made by hand, it is the server's own.
fn generated_selector(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let uid = object.str("metadata.uid");
    if spec.get("manualSelector").is_true() || uid.is_empty() {
        return;
    }
    let labels = spec.get("template.metadata.labels");
    let expected = [
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", object.str("metadata.name")),
        ("controller-uid", uid),
        ("job-name", object.str("metadata.name")),
    ];
    for (key, value) in expected {
        let label = labels.key(key);
        if !label.is_set() {
            label.required(errors, &format!("must be '{value}'"));
        } else if label.text() != value {
            label.invalid(errors, format!("must be '{value}'"));
        }
    }
    let selector = spec.get("selector");
    if selector.value != &json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}) {
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
    let indexed = spec.str("completionMode") == "Indexed";
    let parallelism = spec.get("parallelism");
    if indexed && !spec.get("completions").is_set() {
        spec.get("completions").required(errors, "when completion mode is Indexed");
    }
    if indexed && parallelism.int().is_some_and(|n| n > MAX_INDEXED_PARALLELISM) {
        let detail = format!("must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed");
        parallelism.invalid(errors, detail);
    }
    let (per_index, max_failed) = (spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"));
    if per_index.is_set() && !indexed {
        per_index.invalid(errors, "requires indexed completion mode");
    }
    if max_failed.is_set() && !per_index.is_set() {
        per_index.required(errors, "when maxFailedIndexes is specified");
    }
    let managed_by = spec.get("managedBy");
    if managed_by.is_set() {
        managed_by.check(errors, format::domain_prefixed_path(managed_by.text()));
        if managed_by.text().len() > 63 {
            managed_by.too_long(errors, 63);
        }
    }
    let template = spec.get("template");
    if old.is_none_or(|old| !same(&old["template"], template.value)) {
        pod::template(&template, errors);
    }
    let policy = template.get("spec.restartPolicy");
    if !matches!(policy.text(), "OnFailure" | "Never") {
        policy.required(errors, "valid values: \"OnFailure\", \"Never\"");
    }
    failure_policy(spec, errors);
    success_policy(&spec.get("successPolicy"), indexed, errors);
}

fn failure_policy(spec: &At, errors: &mut Errors) {
    let failure = spec.get("podFailurePolicy");
    if !failure.is_set() {
        return;
    }
    let policy = spec.get("template.spec.restartPolicy");
    if policy.text() == "OnFailure" {
        policy.invalid(errors, "only \"Never\" is supported when podFailurePolicy is specified");
    }
    let replacement = spec.get("podReplacementPolicy");
    if replacement.text() == "TerminatingOrFailed" {
        replacement.not_supported(errors, &["Failed"]);
    }
    let rules = failure.get("rules");
    if rules.list().len() > 20 {
        errors.push(crate::field::FieldError::too_many(&rules.path(), rules.list().len(), 20));
    }
    for rule in rules.items() {
        let (action, codes, conditions) = (rule.get("action"), rule.get("onExitCodes"), rule.get("onPodConditions"));
        action.need(errors);
        if action.text() == "FailIndex" && !spec.get("backoffLimitPerIndex").is_set() {
            action.invalid(errors, "requires the backoffLimitPerIndex to be set");
        }
        match (codes.is_set(), conditions.is_empty()) {
            (true, false) => rule.invalid(errors, "specifying both OnExitCodes and OnPodConditions is not supported"),
            (false, true) => rule.invalid(errors, "specifying one of OnExitCodes and OnPodConditions is required"),
            (true, true) => exit_codes(&codes, spec, errors),
            (false, false) => {
                for condition in conditions.items() {
                    super::selector::label_name(&condition.get("type"), errors);
                    condition.get("status").need_one_of(errors, &["False", "True", "Unknown"]);
                }
            }
        }
    }
}

fn exit_codes(codes: &At, spec: &At, errors: &mut Errors) {
    let (operator, values, container) = (codes.get("operator"), codes.get("values"), codes.get("containerName"));
    operator.need(errors);
    let known = |list: &str| {
        spec.get("template.spec").value[list]
            .as_array()
            .is_some_and(|l| l.iter().any(|c| c["name"] == container.text()))
    };
    if container.is_set() && !known("containers") && !known("initContainers") {
        container.invalid(errors, "must be one of the container or initContainer names in the pod template");
    }
    let numbers: Vec<i64> = values.list().iter().filter_map(Value::as_i64).collect();
    if numbers.is_empty() {
        values.invalid(errors, "at least one value is required");
    } else if numbers.len() > 255 {
        errors.push(crate::field::FieldError::too_many(&values.path(), numbers.len(), 255));
    }
    if !numbers.is_sorted() {
        values.invalid(errors, "must be ordered");
    }
    for (index, number) in numbers.iter().enumerate() {
        let value = values.index(index);
        if operator.text() == "In" && *number == 0 {
            value.invalid(errors, "must not be 0 for the In operator");
        } else if numbers[..index].contains(number) {
            value.duplicate(errors);
        }
    }
}

fn success_policy(policy: &At, indexed: bool, errors: &mut Errors) {
    if !policy.is_set() {
        return;
    }
    if !indexed {
        policy.invalid(errors, "requires indexed completion mode");
        return;
    }
    let rules = policy.get("rules");
    if rules.is_empty() {
        rules.required(errors, "at least one rules must be specified when the successPolicy is specified");
    }
    for rule in rules.items() {
        if !rule.get("succeededCount").is_set() && !rule.get("succeededIndexes").is_set() {
            rule.required(errors, "at least one of succeededCount or succeededIndexes must be specified");
        }
        rule.get("succeededCount").positive(errors);
    }
}

fn job_change(object: &At, old: &At, errors: &mut Errors) {
    let (spec, old_spec) = (object.get("spec"), old.get("spec"));
    for field in
        ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        spec.get(field).immutable(&old_spec.get(field), errors);
    }
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    let elastic =
        spec.str("completionMode") == "Indexed" && completions.is_set() && completions.value == parallelism.value;
    if !elastic {
        completions.immutable(&old_spec.get("completions"), errors);
    } else if !same(completions.value, &old_spec.value["completions"])
        && same(parallelism.value, &old_spec.value["parallelism"])
    {
        completions.invalid(errors, "can only be modified in tandem with parallelism");
    }
    let template = spec.get("template");
    let waiting = old_spec.get("suspend").is_true() && old.get("status.active").int().unwrap_or(0) == 0;
    let fixed =
        if waiting { same(&unscheduled(template.value), &unscheduled(&old_spec.value["template"])) } else { false };
    if !fixed {
        template.immutable(&old_spec.get("template"), errors);
    }
}

/// The template without what may change while its job is suspended.
fn unscheduled(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(meta) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("labels");
        meta.remove("annotations");
    }
    if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
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
    }
    template
}

/// Status of a job: what is over stays over.
pub(super) fn job_status(object: &At, old: &At, errors: &mut Errors) {
    let (status, old_status) = (object.get("status"), old.get("status"));
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        status.get(field).not_negative(errors);
    }
    let (ready, active) = (status.get("ready"), status.get("active").int().unwrap_or(0));
    if ready.int().is_some_and(|n| n > active) {
        ready.invalid(errors, "more ready than active pods");
    }
    let is_true = |status: &At, kind: &str| {
        status.get("conditions").list().iter().any(|c| c["type"] == kind && c["status"] == "True")
    };
    let conditions = status.get("conditions");
    for kind in ["Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"] {
        if is_true(&old_status, kind) && !is_true(&status, kind) {
            conditions.invalid(errors, format!("cannot disable {kind}=True condition"));
        }
    }
    for (one, other) in [("Complete", "Failed"), ("SuccessCriteriaMet", "FailureTarget"), ("Complete", "FailureTarget")]
    {
        if is_true(&status, one) && is_true(&status, other) {
            conditions.invalid(errors, format!("cannot set {one}=True and {other}=True conditions"));
        }
    }
    let complete = is_true(&status, "Complete");
    if (complete || is_true(&status, "Failed")) && active > 0 {
        status.get("active").invalid(errors, "active>0 is invalid for finished job");
    }
    let completion = status.get("completionTime");
    if complete && !completion.is_set() {
        completion.required(errors, "completionTime is required for Complete jobs");
    }
    if completion.is_set() && !complete {
        completion.invalid(errors, "completionTime cannot be set for non-complete jobs");
    }
    if old_status.get("completionTime").is_set() {
        completion.immutable(&old_status.get("completionTime"), errors);
    }
}

pub(super) fn cron_job(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (schedule, zone) = (spec.get("schedule"), spec.get("timeZone"));
    if schedule.need(errors) {
        if let Err(problem) = schedule::check(schedule.text()) {
            schedule.invalid(errors, problem);
        }
        let unchanged = old.is_some_and(|old| old.str("spec.schedule") == schedule.text());
        if schedule.text().contains("TZ") && !unchanged {
            schedule.invalid(errors, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        }
    }
    if zone.is_set() && old.is_none_or(|old| old.str("spec.timeZone") != zone.text()) {
        if zone.text().is_empty() {
            zone.invalid(errors, "timeZone must be nil or non-empty string");
        } else if zone.text().eq_ignore_ascii_case("local") {
            zone.invalid(
                errors,
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            );
        } else if jiff::tz::TimeZone::get(zone.text()).is_err() {
            zone.invalid(errors, format!("unknown time zone {}", zone.text()));
        }
    }
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.get(field).not_negative(errors);
    }
    spec.get("concurrencyPolicy").need(errors);
    let job = spec.get("jobTemplate.spec");
    job_spec(&job, old.map(|o| &o.value["spec"]["jobTemplate"]["spec"]), errors);
    if job.get("manualSelector").is_true() {
        job.get("manualSelector").not_supported(errors, &["nil", "false"]);
    }
    let selector = job.get("selector");
    if selector.is_set() {
        selector.invalid(errors, "`selector` will be auto-generated");
    }
}
