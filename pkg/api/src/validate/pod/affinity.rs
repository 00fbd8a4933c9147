//! Where a pod may run: affinity, tolerations, spreading.

use std::collections::HashSet;

use crate::validate::at::At;
use crate::validate::selector::{label_name, label_selector, node_selector, node_selector_term};
use crate::validate::{Errors, format};

pub(super) fn affinity(affinity: &At, errors: &mut Errors) {
    let node = affinity.get("nodeAffinity");
    let required = node.get("requiredDuringSchedulingIgnoredDuringExecution");
    if required.is_set() {
        node_selector(&required, errors);
    }
    for preferred in node.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(&preferred.get("weight"), errors);
        node_selector_term(&preferred.get("preference"), errors);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let group = affinity.get(name);
        for term in group.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            pod_term(&term, errors);
        }
        for preferred in group.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            weight(&preferred.get("weight"), errors);
            pod_term(&preferred.get("podAffinityTerm"), errors);
        }
    }
}

fn weight(weight: &At, errors: &mut Errors) {
    if !(1..=100).contains(&weight.int().unwrap_or(0)) {
        weight.invalid_value(errors, weight.int().unwrap_or(0), "must be in the range 1-100");
    }
}

fn pod_term(term: &At, errors: &mut Errors) {
    label_selector(&term.get("labelSelector"), errors);
    label_selector(&term.get("namespaceSelector"), errors);
    for namespace in term.get("namespaces").items() {
        namespace.check(errors, format::dns_label(namespace.text()));
    }
    topology_key(&term.get("topologyKey"), errors);
}

fn topology_key(key: &At, errors: &mut Errors) {
    if key.is_empty() {
        key.required(errors, "can not be empty");
    } else {
        label_name(key, errors);
    }
}

pub(in crate::validate) fn tolerations(tolerations: &At, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let (key, operator, effect) = (toleration.get("key"), toleration.get("operator"), toleration.get("effect"));
        let exists = operator.text() == "Exists";
        if !key.is_empty() {
            label_name(&key, errors);
        } else if !exists {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            operator.invalid_value(errors, operator.text(), detail);
        }
        if toleration.get("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            effect.invalid_value(errors, effect.text(), "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator.text() {
            "" | "Equal" => {
                for problem in format::label_value(toleration.str("value")) {
                    operator.invalid_value(errors, toleration.str("value"), problem);
                }
            }
            "Exists" if !toleration.get("value").is_empty() => {
                operator.invalid_value(
                    errors,
                    toleration.value.clone(),
                    "value must be empty when `operator` is 'Exists'",
                );
            }
            "Exists" => {}
            _ => operator.not_supported(errors, &["Equal", "Exists"]),
        }
        effect.one_of(errors, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
    }
}

pub(super) fn spread_constraints(constraints: &At, errors: &mut Errors) {
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    for constraint in constraints.items() {
        let skew = constraint.get("maxSkew");
        if skew.int().unwrap_or(0) <= 0 {
            skew.invalid_value(errors, skew.int().unwrap_or(0), "must be greater than zero");
        }
        topology_key(&constraint.get("topologyKey"), errors);
        let action = constraint.get("whenUnsatisfiable");
        action.need(errors);
        let pair = (constraint.str("topologyKey"), action.text());
        if seen.contains(&pair) {
            let value = format!("{{{}, {}}}", pair.0, pair.1);
            errors.push(crate::field::FieldError::duplicate(
                &constraint.get("{topologyKey, whenUnsatisfiable}").path(),
                value,
            ));
        }
        seen.insert(pair);
        let domains = constraint.get("minDomains");
        domains.positive(errors);
        if domains.is_set() && action.text() != "DoNotSchedule" {
            let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", action.text());
            domains.invalid(errors, detail);
        }
        label_selector(&constraint.get("labelSelector"), errors);
    }
}
