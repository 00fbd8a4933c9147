//! Where a pod may run: affinity, tolerations, spreading.

use std::collections::HashSet;

use crate::field::FieldError;
use crate::validate::at::At;
use crate::validate::selector::{label_name, label_selector, node_selector, preferred_term};
use crate::validate::{Errors, format};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(affinity: &At, errors: &mut Errors) {
    let node = affinity.get("nodeAffinity");
    let required = node.get(REQUIRED);
    if required.is_set() {
        node_selector(&required, errors);
    }
    for preferred in node.get(PREFERRED).items() {
        weight(&preferred.get("weight"), errors);
        preferred_term(&preferred.get("preference"), errors);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let group = affinity.get(name);
        for term in group.get(REQUIRED).items() {
            pod_term(&term, errors);
        }
        for preferred in group.get(PREFERRED).items() {
            weight(&preferred.get("weight"), errors);
            pod_term(&preferred.get("podAffinityTerm"), errors);
        }
    }
}

fn weight(weight: &At, errors: &mut Errors) {
    let number = weight.int().unwrap_or(0);
    if !(1..=100).contains(&number) {
        weight.invalid_value(errors, number, "must be in the range 1-100");
    }
}

fn pod_term(term: &At, errors: &mut Errors) {
    label_selector(&term.get("labelSelector"), errors);
    label_selector(&term.get("namespaceSelector"), errors);
    let at = term.get("namespace");
    for namespace in term.get("namespaces").items() {
        for problem in format::dns_label(namespace.text()) {
            at.invalid_value(errors, namespace.text(), problem);
        }
    }
    label_keys(term, errors);
    let key = term.get("topologyKey");
    if key.is_empty() {
        key.required(errors, "can not be empty");
    }
    label_name(&key, errors);
}

/// Keys whose values the pod's own labels give to the selector.
fn label_keys(term: &At, errors: &mut Errors) {
    let (selector, wanted, unwanted) =
        (term.get("labelSelector"), term.get("matchLabelKeys"), term.get("mismatchLabelKeys"));
    for keys in [wanted, unwanted].iter().filter(|keys| !keys.is_empty()) {
        if selector.is_set() {
            keys.items().for_each(|key| label_name(&key, errors));
        } else {
            keys.forbidden(errors, "must not be specified when labelSelector is not set");
        }
    }
    // By now the selector has one expression for each key; another one is the caller's.
    let mut selected: HashSet<&str> = selector.get("matchLabels").entries().map(|(key, _)| key).collect();
    for expression in selector.get("matchExpressions").items() {
        let key = expression.str("key");
        if let Some(index) = wanted.list().iter().rposition(|k| k == key)
            && selected.contains(key)
        {
            term.index(index).invalid_value(errors, key, "exists in both matchLabelKeys and labelSelector");
        }
        selected.insert(key);
    }
    for key in wanted.items().filter(|key| unwanted.list().contains(key.value)) {
        key.invalid(errors, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

pub(in crate::validate) fn taint_effect(effect: &At, errors: &mut Errors) {
    effect.one_of(errors, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
}

pub(in crate::validate) fn tolerations(tolerations: &At, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let (key, operator, effect) = (toleration.get("key"), toleration.get("operator"), toleration.get("effect"));
        let value = toleration.str("value");
        if !key.is_empty() {
            label_name(&key, errors);
        } else if operator.text() != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            operator.invalid_value(errors, operator.text(), detail);
        }
        if toleration.get("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            effect.invalid_value(errors, effect.text(), "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator.text() {
            "" | "Equal" => {
                let problems = format::label_value(value);
                if !problems.is_empty() {
                    operator.invalid_value(errors, value, problems.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                operator.invalid_value(errors, value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            // Comparisons of numbers are known, and switched off.
            "Lt" | "Gt" => operator.not_supported(errors, &["Equal", "Exists", "Lt", "Gt"]),
            _ => operator.not_supported(errors, &["Equal", "Exists"]),
        }
        taint_effect(&effect, errors);
    }
}

pub(super) fn spread_constraints(constraints: &At, errors: &mut Errors) {
    let pair = |c: &At| format!("{{{}, {}}}", c.str("topologyKey"), c.str("whenUnsatisfiable"));
    for (index, constraint) in constraints.items().enumerate() {
        constraint.get("maxSkew").need_positive(errors, "must be greater than zero");
        let (key, action) = (constraint.get("topologyKey"), constraint.get("whenUnsatisfiable"));
        if key.is_empty() {
            key.required(errors, "can not be empty");
        }
        action.exactly_one_of(errors, &["DoNotSchedule", "ScheduleAnyway"]);
        let this = pair(&constraint);
        if constraints.items().skip(index + 1).any(|other| pair(&other) == this) {
            let path = constraint.get("{topologyKey, whenUnsatisfiable}").path();
            errors.push(FieldError::duplicate(&path, this));
        }
        let domains = constraint.get("minDomains");
        domains.positive(errors);
        if domains.is_set() && action.text() != "DoNotSchedule" {
            let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", action.text());
            domains.invalid(errors, detail);
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"].map(|policy| constraint.get(policy)) {
            if policy.is_set() {
                policy.exactly_one_of(errors, &["Honor", "Ignore"]);
            }
        }
        label_keys(&constraint, errors);
        label_selector(&constraint.get("labelSelector"), errors);
    }
}
