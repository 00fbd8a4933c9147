//! Flow schemas and priority levels.

use super::at::At;
use super::{Errors, format};

pub(super) fn schema(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (level, precedence) = (spec.get("priorityLevelConfiguration.name"), spec.get("matchingPrecedence"));
    if level.need(errors) {
        level.check(errors, format::dns_subdomain(level.text()));
    }
    match precedence.int().unwrap_or(0) {
        n if n <= 0 => precedence.invalid_value(errors, n, "must be a positive value"),
        n if n > 10000 => precedence.invalid(errors, "must not be greater than 10000"),
        1 if object.str("metadata.name") != "exempt" => {
            precedence.invalid(errors, "only the schema named 'exempt' may have matchingPrecedence 1");
        }
        _ => {}
    }
    let method = spec.get("distinguisherMethod");
    if method.is_set() {
        method.get("type").need_one_of(errors, &["ByNamespace", "ByUser"]);
    }
    for rule in spec.get("rules").items() {
        self::rule(&rule, errors);
    }
}

fn rule(rule: &At, errors: &mut Errors) {
    let (subjects, resources, paths) = (rule.get("subjects"), rule.get("resourceRules"), rule.get("nonResourceRules"));
    if subjects.is_empty() {
        subjects.required(errors, "subjects must contain at least one value");
    }
    for subject in subjects.items() {
        let (field, kind) = match subject.str("kind") {
            "User" => ("user", subject.get("user")),
            "Group" => ("group", subject.get("group")),
            "ServiceAccount" => ("serviceAccount", subject.get("serviceAccount")),
            _ => {
                subject.get("kind").not_supported(errors, &["Group", "ServiceAccount", "User"]);
                continue;
            }
        };
        if !kind.is_set() {
            kind.required(errors, &format!("{field} is required when subject kind is '{}'", subject.str("kind")));
            continue;
        }
        kind.get("name").need(errors);
        if field == "serviceAccount" {
            kind.get("namespace").need(errors);
        }
    }
    if resources.is_empty() && paths.is_empty() {
        rule.required(errors, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for resource in resources.items() {
        for field in ["verbs", "apiGroups", "resources"] {
            let list = resource.get(field);
            list.need(errors);
            lone_star(&list, errors);
        }
        if resource.get("namespaces").is_empty() && !resource.get("clusterScope").is_true() {
            resource
                .get("namespaces")
                .required(errors, "resource rules that are not cluster scoped must supply at least one namespace");
        }
    }
    for path in paths.items() {
        for field in ["verbs", "nonResourceURLs"] {
            path.get(field).need(errors);
            lone_star(&path.get(field), errors);
        }
    }
}

fn lone_star(list: &At, errors: &mut Errors) {
    if list.list().len() > 1 && list.list().iter().any(|v| v == "*") {
        list.invalid(errors, "if '*' is present, must not specify other values");
    }
}

pub(super) fn level(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (limited, exempt) = (spec.get("limited"), spec.get("exempt"));
    let is_exempt = object.str("metadata.name") == "exempt";
    match spec.str("type") {
        "Exempt" => {
            if !is_exempt {
                spec.get("type").invalid(errors, "must be 'Limited' unless the name is 'exempt'");
            }
            if limited.is_set() {
                limited.forbidden(errors, "must be nil if the type is not Limited");
            }
            shares(&exempt, errors);
        }
        "Limited" => {
            if exempt.is_set() {
                exempt.forbidden(errors, "must be nil if the type is Limited");
            }
            if !limited.is_set() {
                limited.required(errors, "must not be empty when type is Limited");
                return;
            }
            shares(&limited, errors);
            limit_response(&limited.get("limitResponse"), errors);
        }
        _ => spec.get("type").not_supported(errors, &["Exempt", "Limited"]),
    }
}

fn shares(limits: &At, errors: &mut Errors) {
    let shares = limits.get("nominalConcurrencyShares");
    if shares.int().is_some_and(|n| n < 0) {
        shares.invalid(errors, "must be a non-negative integer");
    }
    limits.get("lendablePercent").in_range(errors, 0, 100);
    let borrowing = limits.get("borrowingLimitPercent");
    if borrowing.int().is_some_and(|n| n < 0) {
        borrowing.invalid(errors, "if specified, must be a non-negative integer");
    }
}

fn limit_response(response: &At, errors: &mut Errors) {
    let queuing = response.get("queuing");
    match response.str("type") {
        "Reject" if queuing.is_set() => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            queuing.forbidden(errors, detail);
        }
        "Reject" => {}
        "Queue" if !queuing.is_set() => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            queuing.required(errors, detail);
        }
        "Queue" => {
            for field in ["queueLengthLimit", "queues", "handSize"] {
                let number = queuing.get(field);
                if number.int().unwrap_or(0) <= 0 {
                    number.invalid_value(errors, number.int().unwrap_or(0), "must be positive");
                }
            }
            let (hand, queues) = (queuing.get("handSize"), queuing.get("queues").int().unwrap_or(0));
            if hand.int().is_some_and(|hand| hand > queues) {
                hand.invalid(errors, format!("should not be greater than queues ({queues})"));
            }
        }
        _ => response.get("type").not_supported(errors, &["Queue", "Reject"]),
    }
}
