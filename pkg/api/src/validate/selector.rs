//! Selectors: of labels, and of nodes.

use super::at::At;
use super::{Errors, format, metadata};

/// A LabelSelector object; fine when missing.
pub(super) fn label_selector(selector: &At, errors: &mut Errors) {
    metadata::labels(&selector.get("matchLabels"), errors);
    for expression in selector.get("matchExpressions").items() {
        let (operator, values) = (expression.get("operator"), expression.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                values.required(errors, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                values.forbidden(errors, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "Exists" | "DoesNotExist" => {}
            other => operator.invalid_value(errors, other, "not a valid selector operator"),
        }
        label_name(&expression.get("key"), errors);
        for value in values.items() {
            value.check(errors, format::label_value(value.text()));
        }
    }
}

pub(super) fn label_name(name: &At, errors: &mut Errors) {
    for problem in format::qualified_name(name.text()) {
        name.invalid_value(errors, name.text(), problem);
    }
}

/// A NodeSelector: alternatives of requirements on a node's labels and fields.
pub(super) fn node_selector(selector: &At, errors: &mut Errors) {
    let terms = selector.get("nodeSelectorTerms");
    if terms.is_empty() {
        return terms.required(errors, "must have at least one node selector term");
    }
    for term in terms.items() {
        node_selector_term(&term, errors);
    }
}

pub(super) fn node_selector_term(term: &At, errors: &mut Errors) {
    term_with(term, true, errors);
}

/// A term that is only preferred may have values that no label can have.
pub(super) fn preferred_term(term: &At, errors: &mut Errors) {
    term_with(term, false, errors);
}

fn term_with(term: &At, strict: bool, errors: &mut Errors) {
    for expression in term.get("matchExpressions").items() {
        node_requirement(&expression, errors);
        for value in expression.get("values").items().filter(|_| strict) {
            value.check(errors, format::label_value(value.text()));
        }
    }
    for requirement in term.get("matchFields").items() {
        let (key, operator, values) = (requirement.get("key"), requirement.get("operator"), requirement.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.list().len() != 1 => {
                values.required(
                    errors,
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                );
            }
            "In" | "NotIn" => {}
            other => operator.invalid_value(errors, other, "not a valid selector operator"),
        }
        if key.text() == "metadata.name" {
            values.items().for_each(|value| value.check(errors, format::dns_subdomain(value.text())));
        } else {
            key.invalid_value(errors, key.text(), "not a valid field selector key");
        }
    }
}

fn node_requirement(expression: &At, errors: &mut Errors) {
    let (operator, values) = (expression.get("operator"), expression.get("values"));
    match operator.text() {
        "In" | "NotIn" if values.is_empty() => {
            values.required(errors, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            values.forbidden(errors, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Exists" | "DoesNotExist" => {}
        "Gt" | "Lt" if values.list().len() != 1 => {
            values.required(errors, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "Gt" | "Lt" => {}
        other => operator.invalid_value(errors, other, "not a valid selector operator"),
    }
    label_name(&expression.get("key"), errors);
}
