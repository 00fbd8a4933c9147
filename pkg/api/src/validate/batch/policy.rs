//! When pods that fail end their job, and when enough of them have succeeded.

use super::indexes;
use crate::validate::at::At;
use crate::validate::{Errors, selector};

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const MAX_RULES: usize = 20;
const MAX_INDEXES_BYTES: usize = 64 * 1024;

pub(super) fn failure(spec: &At, errors: &mut Errors) {
    let rules = spec.get("podFailurePolicy.rules");
    rules.at_most(errors, MAX_RULES);
    for rule in rules.items() {
        let (action, codes, conditions) = (rule.get("action"), rule.get("onExitCodes"), rule.get("onPodConditions"));
        need_listed(&action, &ACTIONS, errors);
        if action.text() == "FailIndex" && !spec.get("backoffLimitPerIndex").is_set() {
            action.invalid(errors, "requires the backoffLimitPerIndex to be set");
        }
        if codes.is_set() {
            exit_codes(&codes, spec, errors);
        }
        conditions.at_most(errors, MAX_RULES);
        for condition in conditions.items() {
            selector::label_name(&condition.get("type"), errors);
            need_listed(&condition.get("status"), &STATUSES, errors);
            condition.get("status").one_of(errors, &STATUSES);
        }
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => {
                rule.invalid_part(errors, "specifying both OnExitCodes and OnPodConditions is not supported")
            }
            (false, false) => {
                rule.invalid_part(errors, "specifying one of OnExitCodes and OnPodConditions is required")
            }
            _ => {}
        }
    }
}

/// Tells the values that a missing one could have.
fn need_listed(at: &At, values: &[&str], errors: &mut Errors) {
    if at.is_empty() {
        let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        at.required(errors, &format!("valid values: [{}]", quoted.join(" ")));
    }
}

fn exit_codes(codes: &At, spec: &At, errors: &mut Errors) {
    let (operator, values, container) = (codes.get("operator"), codes.get("values"), codes.get("containerName"));
    need_listed(&operator, &OPERATORS, errors);
    let pod = spec.get("template.spec");
    let known = |list: &str| pod.get(list).list().iter().any(|c| c["name"] == container.text());
    if container.is_set() && !known("containers") && !known("initContainers") {
        container.invalid(errors, "must be one of the container or initContainer names in the pod template");
    }
    let numbers = values.list();
    if numbers.is_empty() {
        values.invalid(errors, "at least one value is required");
    } else {
        values.at_most(errors, 255);
    }
    for (index, number) in numbers.iter().enumerate() {
        let value = values.index(index);
        if operator.text() == "In" && number == 0 {
            value.invalid(errors, "must not be 0 for the In operator");
        }
        if numbers[..index].contains(number) {
            value.duplicate(errors);
        }
    }
    if !numbers.is_sorted_by_key(|number| number.as_i64()) {
        values.invalid(errors, "must be ordered");
    }
}

pub(super) fn success(spec: &At, errors: &mut Errors) {
    let policy = spec.get("successPolicy");
    if !policy.is_set() {
        return;
    }
    if spec.str("completionMode") != "Indexed" {
        policy.invalid(errors, "requires indexed completion mode");
        return;
    }
    let rules = policy.get("rules");
    if rules.is_empty() {
        rules.required(errors, "at least one rules must be specified when the successPolicy is specified");
    }
    rules.at_most(errors, MAX_RULES);
    let completions = spec.number("completions");
    for rule in rules.items() {
        let (count, list) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
        if !count.is_set() && !list.is_set() {
            rule.required(errors, "at least one of succeededCount or succeededIndexes must be specified");
        }
        list.no_longer(errors, MAX_INDEXES_BYTES);
        let total = indexes::count(list.text(), completions);
        if let (true, Err(problem)) = (list.is_set(), &total) {
            list.invalid(errors, format!("error parsing succeededIndexes: {problem}"));
        }
        count.not_negative(errors);
        let total = total.unwrap_or(0);
        if count.int().is_some_and(|n| n > completions) {
            let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
            count.invalid(errors, detail);
        }
        if list.is_set() && count.int().is_some_and(|n| n > total) {
            let detail = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            count.invalid(errors, detail);
        }
    }
}
