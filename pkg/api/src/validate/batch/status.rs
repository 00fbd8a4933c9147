//! Status of a job: what is over stays over.
//!
//! Whatever a write leaves alone is not looked at, so that what is wrong with one part blocks no other.

use super::indexes;
use crate::validate::Errors;
use crate::validate::at::{At, same};

pub(in crate::validate) fn job_status(object: &At, old: &At, errors: &mut Errors) {
    let job = Job { status: object.get("status"), old: old.get("status"), spec: object.get("spec") };
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        job.status.get(field).not_negative(errors);
    }
    for list in ["succeeded", "failed"] {
        for uid in job.status.get("uncountedTerminatedPods").get(list).items().filter(|uid| uid.is_empty()) {
            uid.invalid(errors, "must not be empty");
        }
    }
    uncounted_twice(&job.status, errors);
    job.conditions(errors);
    job.times(errors);
    job.end(errors);
    job.indexes(errors);
    job.changes(errors);
}

fn uncounted_twice(status: &At, errors: &mut Errors) {
    let uncounted = status.get("uncountedTerminatedPods");
    let mut seen = std::collections::HashSet::new();
    for list in ["succeeded", "failed"] {
        for uid in uncounted.get(list).items().filter(|uid| !uid.is_empty()) {
            uid.unique(&mut seen, errors);
        }
    }
}

struct Job<'v, 'p> {
    status: At<'v, 'p>,
    old: At<'v, 'p>,
    spec: At<'v, 'p>,
}

fn told(status: &At, kind: &str) -> bool {
    status.get("conditions").list().iter().any(|c| c["type"] == kind && c["status"] == "True")
}

impl Job<'_, '_> {
    fn is(&self, kind: &str) -> bool {
        told(&self.status, kind)
    }

    fn was(&self, kind: &str) -> bool {
        told(&self.old, kind)
    }

    fn turned(&self, kind: &str) -> bool {
        self.is(kind) != self.was(kind)
    }

    fn changed(&self, field: &str) -> bool {
        !same(self.status.get(field).value, self.old.get(field).value)
    }

    fn conditions(&self, errors: &mut Errors) {
        let finished = self.turned("Complete") || self.turned("Failed");
        let rules = [
            (finished, "Complete", "Failed", "cannot set Complete=True and Failed=true conditions"),
            (
                self.turned("Complete") || self.turned("FailureTarget"),
                "Complete",
                "FailureTarget",
                "cannot set Complete=True and FailureTarget=true conditions",
            ),
            (true, "SuccessCriteriaMet", "Failed", "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
            (
                true,
                "SuccessCriteriaMet",
                "FailureTarget",
                "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
            ),
        ];
        let conditions = self.status.get("conditions");
        for (looked_at, one, other, words) in rules {
            if looked_at && self.is(one) && self.is(other) {
                conditions.invalid_part(errors, words);
            }
        }
        let needed = [
            ("Failed", "FailureTarget", "cannot set Failed=True condition without the FailureTarget=true condition"),
            (
                "Complete",
                "SuccessCriteriaMet",
                "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            ),
        ];
        for (kind, before, words) in needed {
            if self.turned(kind) && self.is(kind) && !self.is(before) {
                conditions.invalid_part(errors, words);
            }
        }
        if self.spec.get("successPolicy").is_set() && self.is("Complete") && !self.is("SuccessCriteriaMet") {
            let words = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
            conditions.invalid_part(errors, words);
        }
    }

    fn times(&self, errors: &mut Errors) {
        let (start, completion) = (self.status.get("startTime"), self.status.get("completionTime"));
        let looked_at = self.turned("Complete") || self.changed("completionTime");
        if looked_at && completion.is_set() && !self.is("Complete") {
            completion.invalid(errors, "cannot set completionTime when there is no Complete=True condition");
        }
        if looked_at && !completion.is_set() && self.is("Complete") {
            completion.required(errors, "completionTime is required for Complete jobs");
        }
        let time = |at: &At| at.text().parse::<jiff::Timestamp>().ok();
        let backwards = time(&start).zip(time(&completion)).is_some_and(|(start, completion)| completion < start);
        if backwards && (self.changed("startTime") || self.changed("completionTime")) {
            completion.invalid(errors, "completionTime cannot be set before startTime");
        }
    }

    /// What a job that is over has no more of.
    fn end(&self, errors: &mut Errors) {
        let is_over = self.is("Complete") || self.is("Failed");
        let ends = is_over != (self.was("Complete") || self.was("Failed"));
        let status = &self.status;
        let looked_at = |field: &str| is_over && (ends || self.changed(field));
        if looked_at("active") && status.number("active") > 0 {
            status.get("active").invalid(errors, "active>0 is invalid for finished job");
        }
        if looked_at("startTime") && !status.get("startTime").is_set() {
            status.get("startTime").required(errors, "startTime is required for finished job");
        }
        let uncounted = status.get("uncountedTerminatedPods");
        let some = !uncounted.get("succeeded").is_empty() || !uncounted.get("failed").is_empty();
        if looked_at("uncountedTerminatedPods") && some {
            uncounted.invalid(errors, "uncountedTerminatedPods needs to be empty for finished job");
        }
        if looked_at("terminating") && status.number("terminating") > 0 {
            status.get("terminating").invalid(errors, "terminating>0 is invalid for finished job");
        }
        let (ready, active) = (status.get("ready"), status.number("active"));
        let counted_again = self.changed("ready") || self.changed("active");
        if counted_again && ready.int().is_some_and(|n| n > active) {
            ready.invalid(errors, "cannot set more ready pods than active");
        }
    }

    fn indexes(&self, errors: &mut Errors) {
        let (completed, failed) = (self.status.get("completedIndexes"), self.status.get("failedIndexes"));
        let (completed_changed, failed_changed) = (self.changed("completedIndexes"), self.changed("failedIndexes"));
        let per_index = self.spec.get("backoffLimitPerIndex").is_set();
        if let Some(completions) = self.spec.get("completions").int() {
            for (list, looked_at, name) in [
                (completed, completed_changed, "completedIndexes"),
                (failed, failed_changed && per_index, "failedIndexes"),
            ] {
                if let (true, Err(problem)) = (looked_at, indexes::count(list.text(), completions)) {
                    list.invalid(errors, format!("error parsing {name}: {problem}"));
                }
            }
        }
        if completed_changed && !completed.is_empty() && self.spec.str("completionMode") != "Indexed" {
            completed.invalid(errors, "cannot set non-empty completedIndexes when non-indexed completion mode");
        }
        if failed_changed && failed.is_set() && !per_index {
            failed.invalid(errors, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
        }
        if (completed_changed || failed_changed)
            && let Some(completions) = self.spec.get("completions").int()
            && let Some(index) = indexes::common(completed.text(), failed.text(), completions)
        {
            failed.invalid(errors, format!("failedIndexes and completedIndexes overlap at index: {index}"));
        }
    }

    fn changes(&self, errors: &mut Errors) {
        let conditions = self.status.get("conditions");
        for kind in ["Failed", "Complete", "FailureTarget"] {
            if self.was(kind) && !self.is(kind) {
                conditions.invalid_part(errors, format!("cannot disable the terminal {kind}=True condition"));
            }
        }
        // Those of jobs that scale may become fewer.
        let scales = self.spec.str("completionMode") == "Indexed"
            && same(self.spec.get("completions").value, self.spec.get("parallelism").value);
        for (field, looked_at) in [("failed", true), ("succeeded", !scales)] {
            if looked_at && self.status.number(field) < self.old.number(field) {
                let detail = format!("cannot decrease the {field} counter");
                self.status.get(field).invalid_value(errors, self.status.number(field), detail);
            }
        }
        let completion = self.status.get("completionTime");
        if completion.is_set() && self.old.get("completionTime").is_set() && self.changed("completionTime") {
            completion.invalid(errors, "completionTime cannot be mutated");
        }
        let restarted = self.old.get("startTime").is_set() && self.changed("startTime");
        if restarted && !self.spec.get("suspend").is_true() {
            self.status.get("startTime").required(errors, "startTime cannot be removed for unsuspended job");
        }
        if self.was("SuccessCriteriaMet") && !self.is("SuccessCriteriaMet") {
            conditions.invalid_part(errors, "cannot disable the SuccessCriteriaMet=True condition");
        }
        if self.was("Complete") && !self.was("SuccessCriteriaMet") && self.is("SuccessCriteriaMet") {
            let words = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
            conditions.invalid_part(errors, words);
        }
    }
}
