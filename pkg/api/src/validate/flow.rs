//! Flow schemas and priority levels.

use super::at::{At, same};
use super::{Errors, format};
use crate::field::FieldError;

const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const MAX_QUEUES: i64 = 10_000_000;
/// Bits of the hash that deals requests to queues.
const HASH_BITS: f64 = 60.0;

pub(super) fn schema(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let precedence = spec.get("matchingPrecedence");
    match precedence.int().unwrap_or(0) {
        n if n <= 0 => precedence.invalid_value(errors, n, "must be a positive value"),
        n if n > 10000 => precedence.invalid(errors, "must not be greater than 10000"),
        1 if object.str("metadata.name") != "exempt" => {
            precedence.invalid(errors, "only the schema named 'exempt' may have matchingPrecedence 1");
        }
        _ => {}
    }
    let method = spec.get("distinguisherMethod");
    if method.is_set() && !["ByNamespace", "ByUser"].contains(&method.str("type")) {
        let path = method.get("type").path();
        errors.push(FieldError::not_supported(&path, method.value.clone(), &["ByNamespace", "ByUser"]));
    }
    let level = spec.get("priorityLevelConfiguration.name");
    match level.text() {
        "" => level.required(errors, "must reference a priority level"),
        name => level.check(errors, format::dns_subdomain(name)),
    }
    for rule in spec.get("rules").items() {
        self::rule(&rule, errors);
    }
    fixed(object, old, &["exempt", "catch-all"], errors);
    status_of(object, errors);
}

/// The server makes these objects, and only so.
fn fixed(object: &At, old: Option<&At>, names: &[&str], errors: &mut Errors) {
    let (name, spec) = (object.str("metadata.name"), object.get("spec"));
    if names.contains(&name) && old.is_some_and(|old| !same(old.get("spec").value, spec.value)) {
        spec.invalid(errors, format!("spec of '{name}' must equal the fixed value"));
    }
}

pub(super) fn status(object: &At, _old: &At, errors: &mut Errors) {
    status_of(object, errors);
}

fn status_of(object: &At, errors: &mut Errors) {
    let mut kinds = std::collections::HashSet::new();
    for condition in object.get("status.conditions").items() {
        let kind = condition.get("type");
        kind.unique(&mut kinds, errors);
        if kind.is_empty() {
            kind.required(errors, "must not be empty");
        }
    }
}

fn rule(rule: &At, errors: &mut Errors) {
    let (subjects, resources, paths) = (rule.get("subjects"), rule.get("resourceRules"), rule.get("nonResourceRules"));
    for subject in subjects.items() {
        self::subject(&subject, errors);
    }
    if subjects.is_empty() {
        subjects.required(errors, "subjects must contain at least one value");
    }
    if resources.is_empty() && paths.is_empty() {
        rule.required(errors, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for resource in resources.items() {
        resource_rule(&resource, errors);
    }
    for path in paths.items() {
        verbs(&path.get("verbs"), errors);
        let urls = path.get("nonResourceURLs");
        if listed(&urls, "nonResourceURLs must contain at least one value", "non-resource URLs", errors) {
            for url in urls.items() {
                url_path(&url, errors);
            }
        }
    }
}

const SUBJECTS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

fn subject(subject: &At, errors: &mut Errors) {
    let kind = subject.get("kind");
    let Some((_, member)) = SUBJECTS.iter().find(|(name, _)| *name == kind.text()) else {
        return errors.push(FieldError::not_supported(&kind.path(), kind.text(), &["Group", "ServiceAccount", "User"]));
    };
    let given = subject.get(member);
    if given.is_set() {
        let name = given.get("name");
        name.need(errors);
        if *member == "serviceAccount" {
            account(&given, errors);
        }
    } else {
        given.required(errors, &format!("{member} is required when subject kind is '{}'", kind.text()));
    }
    let order: &[usize] = if *member == "serviceAccount" { &[1, 2] } else { &[0, 1, 2] };
    for (other, field) in order.iter().map(|index| SUBJECTS[*index]).filter(|(other, _)| *other != kind.text()) {
        if subject.get(field).is_set() {
            subject.get(field).forbidden(errors, format!("{field} is forbidden when subject kind is not '{other}'"));
        }
    }
}

fn account(account: &At, errors: &mut Errors) {
    let (name, namespace) = (account.get("name"), account.get("namespace"));
    if !matches!(name.text(), "" | "*") {
        name.check(errors, format::dns_subdomain(name.text()));
    }
    match namespace.text() {
        "" => namespace.required(errors, "must specify namespace for service account"),
        text => namespace.check(errors, format::dns_label(text)),
    }
}

/// Tells whether a list is there without a star; with one it has nothing else.
fn listed(list: &At, missing: &str, items: &str, errors: &mut Errors) -> bool {
    let star = list.list().iter().any(|v| v == "*");
    if list.is_empty() {
        list.required(errors, missing);
    } else if star && list.list().len() > 1 {
        list.invalid(errors, format!("if '*' is present, must not specify other {items}"));
    }
    !list.is_empty() && !star
}

fn verbs(list: &At, errors: &mut Errors) {
    let plain = listed(list, "verbs must contain at least one value", "verbs", errors);
    let known = list.list().iter().all(|verb| verb.as_str().is_some_and(|verb| VERBS.contains(&verb)));
    if plain && !known {
        list.not_supported(errors, &VERBS);
    }
}

fn resource_rule(rule: &At, errors: &mut Errors) {
    verbs(&rule.get("verbs"), errors);
    listed(&rule.get("apiGroups"), "resource rules must supply at least one api group", "api groups", errors);
    listed(&rule.get("resources"), "resource rules must supply at least one resource", "resources", errors);
    let namespaces = rule.get("namespaces");
    if namespaces.is_empty() && rule.get("clusterScope").is_true() {
        return;
    }
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    if listed(&namespaces, missing, "namespaces", errors) {
        for namespace in namespaces.items() {
            let problems = format::dns_label(namespace.text()).into_iter();
            let words = "each member of this list must be '*' or a DNS-1123 label; ";
            namespace.check(errors, problems.map(|problem| format!("{words}{problem}")).collect());
        }
    }
}

fn url_path(url: &At, errors: &mut Errors) {
    let text = url.text();
    let stars = text.matches('*').count();
    let problem = match text {
        "" => "must not be empty",
        "/" => return,
        _ if !text.starts_with('/') => "must start with slash",
        _ if text.contains(' ') => "must not contain white-space",
        _ if text.contains("//") => "must not contain double slash",
        _ if stars > 1 || (stars == 1 && !text.ends_with("/*")) => "wildcard can only do suffix matching",
        _ => return,
    };
    url.invalid(errors, problem);
}

pub(super) fn level(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
    if (object.str("metadata.name") == "exempt") != (kind.text() == "Exempt") {
        kind.invalid_value(errors, kind.text(), "type must be 'Exempt' if and only if name is 'exempt'");
    }
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                limited.forbidden(errors, "must be nil if the type is not Limited");
            }
            shares(&exempt, errors);
        }
        "Limited" => {
            if exempt.is_set() {
                exempt.forbidden(errors, "must be nil if the type is Limited");
            }
            if limited.is_set() {
                shares(&limited, errors);
                limit_response(&limited.get("limitResponse"), errors);
            } else {
                limited.required(errors, "must not be empty when type is Limited");
            }
        }
        _ => errors.push(FieldError::not_supported(&kind.path(), kind.text(), &["Exempt", "Limited"])),
    }
    fixed(object, old, &["catch-all"], errors);
    status_of(object, errors);
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
    let (kind, queuing) = (response.get("type"), response.get("queuing"));
    match kind.text() {
        "Reject" if queuing.is_set() => {
            queuing.forbidden(errors, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if queuing.is_set() => self::queuing(&queuing, errors),
        "Queue" => queuing.required(errors, "must not be empty if limited.limitResponse.type is Limited"),
        _ => errors.push(FieldError::not_supported(&kind.path(), kind.text(), &["Queue", "Reject"])),
    }
}

fn queuing(queuing: &At, errors: &mut Errors) {
    queuing.get("queueLengthLimit").need_positive(errors, "must be positive");
    let (queues, hand) = (queuing.number("queues"), queuing.number("handSize"));
    queuing.get("queues").need_positive(errors, "must be positive");
    if queues > MAX_QUEUES {
        queuing.get("queues").invalid(errors, format!("must not be greater than {MAX_QUEUES}"));
    }
    let dealt = queuing.get("handSize");
    dealt.need_positive(errors, "must be positive");
    if hand <= 0 {
        return;
    }
    if hand > queues {
        dealt.invalid(errors, format!("should not be greater than queues ({queues})"));
    } else if too_random(queues, hand) {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        dealt.invalid(errors, detail);
    }
}

/// Whether a hand out of that many queues takes more bits than the hash has.
fn too_random(queues: i64, hand: i64) -> bool {
    let mut bits = 0.0;
    // Each further card takes at least one bit, but for the last.
    for card in 0..hand {
        bits += f64::from(u32::try_from(queues - card).unwrap_or(u32::MAX)).log2();
        if bits.ceil() > HASH_BITS {
            return true;
        }
    }
    false
}
