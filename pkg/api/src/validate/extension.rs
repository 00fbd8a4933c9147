//! What extends admission: webhooks and policies.

use std::collections::HashSet;

use super::at::At;
use super::selector::label_selector;
use super::{Errors, format};
use crate::cel::{Env, Type};
use crate::expression::Expression;

const REVIEWS: [&str; 2] = ["v1", "v1beta1"];
const NO_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];

pub(super) fn webhooks(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let mut names: HashSet<&str> = HashSet::new();
    for webhook in object.get("webhooks").items() {
        self::webhook(&webhook, errors);
        let name = webhook.get("name");
        if !name.is_empty() {
            name.unique(&mut names, errors);
        }
    }
}

fn webhook(webhook: &At, errors: &mut Errors) {
    let name = webhook.get("name");
    if name.need(errors) {
        name.check(errors, format::domain(name.text(), 3));
    }
    for rule in webhook.get("rules").items() {
        operation_rule(&rule, errors);
    }
    let (effects, timeout) = (webhook.get("sideEffects"), webhook.get("timeoutSeconds"));
    if !effects.is_set() {
        effects.required(errors, &format!("must specify one of {}", NO_EFFECTS.join(", ")));
    } else if !NO_EFFECTS.contains(&effects.text()) {
        effects.not_supported(errors, &NO_EFFECTS);
    }
    if timeout.int().is_some_and(|s| !(1..=30).contains(&s)) {
        timeout.invalid(errors, "the timeout value must be between 1 and 30 seconds");
    }
    label_selector(&webhook.get("namespaceSelector"), errors);
    label_selector(&webhook.get("objectSelector"), errors);
    client_config(&webhook.get("clientConfig"), errors);
    match_conditions(&webhook.get("matchConditions"), &Env::admission(Type::Dyn).with_authorizer(), errors);
    review_versions(&webhook.get("admissionReviewVersions"), errors);
}

/// Forms of reviews that a webhook takes; this server must know one of them.
pub(super) fn review_versions(versions: &At, errors: &mut Errors) {
    let known = REVIEWS.join(", ");
    if versions.is_empty() {
        return versions.required(errors, &format!("must specify one of {known}"));
    }
    let mut seen: HashSet<&str> = HashSet::new();
    for version in versions.items() {
        if seen.insert(version.text()) {
            version.check(errors, format::dns1035_label(version.text()));
        } else {
            version.invalid(errors, "duplicate version");
        }
    }
    if !REVIEWS.iter().any(|known| seen.contains(known)) {
        versions.invalid(errors, format!("must include at least one of {known}"));
    }
}

fn match_conditions(conditions: &At, env: &Env, errors: &mut Errors) {
    conditions.at_most(errors, 64);
    let mut names: HashSet<&str> = HashSet::new();
    for condition in conditions.items() {
        let name = condition.get("name");
        expression(&condition.get("expression"), env, &[Type::Bool], errors);
        if name.need(errors) {
            name.check(errors, format::qualified_name(name.text()));
            name.unique(&mut names, errors);
        }
    }
}

/// A CEL expression that must be there, compile and give one of the types; any if there are none.
pub(super) fn expression(text: &At, env: &Env, gives: &[Type], errors: &mut Errors) -> Option<Expression> {
    if text.text().trim().is_empty() {
        text.required(errors, "");
        return None;
    }
    let compiled = match gives {
        [] => Expression::compile(text.text(), env),
        gives => Expression::typed(text.text(), env, gives),
    };
    compiled.map_err(|problem| text.invalid(errors, problem)).ok()
}

fn operation_rule(rule: &At, errors: &mut Errors) {
    for (field, items) in [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let list = rule.get(field);
        list.need(errors);
        if list.list().len() > 1 && list.list().iter().any(|v| v == "*") {
            list.invalid(errors, format!("if '*' is present, must not specify other {items}"));
        }
    }
    for version in rule.get("apiVersions").items().filter(|version| version.is_empty()) {
        version.required(errors, "");
    }
    rule_resources(&rule.get("resources"), errors);
}

/// Resources and subresources, among them `*`, `*/*`, `pods/*` and `*/status`, none within another.
fn rule_resources(resources: &At, errors: &mut Errors) {
    resources.need(errors);
    let (mut all_of, mut everywhere) = (HashSet::new(), HashSet::new());
    let mut whole_at_last = false;
    for resource in resources.items() {
        let text = resource.text();
        let Some((main, sub)) = text.split_once('/') else {
            if text.is_empty() {
                resource.required(errors, "");
            } else {
                whole_at_last = text != "*";
            }
            continue;
        };
        if all_of.contains(main) {
            resource.invalid(errors, format!("if '{main}/*' is present, must not specify {text}"));
        }
        if everywhere.contains(sub) {
            resource.invalid(errors, format!("if '*/{sub}' is present, must not specify {text}"));
        }
        if sub == "*" {
            all_of.insert(main);
        }
        if main == "*" {
            everywhere.insert(sub);
        }
    }
    let has = |name: &str| resources.list().iter().any(|r| r == name);
    if has("*/*") && resources.list().len() > 1 {
        resources.invalid(errors, "if '*/*' is present, must not specify other resources");
    }
    if has("*") && whole_at_last {
        let words = "if '*' is present, must not specify other resources without subresources";
        resources.invalid(errors, words);
    }
}

/// Where a webhook is called: a URL or a service.
pub(super) fn client_config(config: &At, errors: &mut Errors) {
    let (url, service) = (config.get("url"), config.get("service"));
    match (url.is_set(), service.is_set()) {
        (true, false) => webhook_url(&url, errors),
        (false, true) => webhook_service(&service, errors),
        _ => config.required(errors, "exactly one of url or service is required"),
    }
}

fn webhook_service(service: &At, errors: &mut Errors) {
    // Upstream names the one where the other is missing.
    for (field, told) in [("namespace", "name"), ("name", "namespace")] {
        if service.get(field).is_empty() {
            service.get(told).required(errors, "");
        }
    }
    let (port, path) = (service.get("port"), service.get("path"));
    if port.int().is_some_and(|port| !(1..=65535).contains(&port)) {
        port.invalid(errors, "port is not valid: must be between 1 and 65535, inclusive");
    }
    match path.text() {
        "" | "/" => return,
        "//" => return path.invalid(errors, "segment[0] may not be empty"),
        text if !text.starts_with('/') => path.invalid(errors, "must start with a '/'"),
        _ => {}
    }
    let mut rest = path.text().chars();
    rest.next();
    let rest = rest.as_str();
    for (index, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            path.invalid(errors, format!("segment[{index}] may not be empty"));
            continue;
        }
        let problems = format::dns_subdomain(step).into_iter();
        path.check(errors, problems.map(|problem| format!("segment[{index}]: {problem}")).collect());
    }
}

fn webhook_url(url: &At, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = url.text();
    if text.starts_with(':') || text.bytes().any(|b| b.is_ascii_control()) {
        let why =
            if text.starts_with(':') { "missing protocol scheme" } else { "net/url: invalid control character in URL" };
        return url.required(errors, &format!("url must be a valid URL: parse {text:?}: {why}{FORM}"));
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_scheme = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let (scheme, rest) = rest.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", rest));
    let authority = rest.strip_prefix("//").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if !scheme.eq_ignore_ascii_case("https") {
        url.invalid_value(errors, scheme.to_ascii_lowercase(), format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        url.invalid_value(errors, "", format!("host must be specified{FORM}"));
    }
    let parts =
        [(user.unwrap_or(""), "user information is"), (fragment, "fragments are"), (query, "query parameters are")];
    for (index, (part, name)) in parts.into_iter().enumerate() {
        if !part.is_empty() || (index == 0 && user.is_some()) {
            url.invalid_value(errors, part, format!("{name} not permitted in the URL"));
        }
    }
}

const NO_VALIDATIONS: &str = "validations or auditAnnotations must contain at least one item";
const MAX_ANNOTATIONS: usize = 20;
const MAX_ANNOTATION_BYTES: usize = 5 * 1024;

pub(super) fn admission_policy(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let param = spec.get("paramKind");
    spec.get("failurePolicy").need(errors);
    if param.is_set() {
        param_kind(&param, errors);
    }
    let constraints = spec.get("matchConstraints");
    if constraints.need(errors) {
        match_resources(&constraints, errors);
        constraints.get("resourceRules").need(errors);
    }
    let mut env = Env::admission(Type::Dyn);
    if param.is_set() {
        env = env.with("params", Type::Dyn);
    }
    match_conditions(&spec.get("matchConditions"), &env.clone().with_authorizer(), errors);
    let messages = env.composing();
    let mut env = messages.clone().with_authorizer();
    let mut names: HashSet<&str> = HashSet::new();
    for variable in spec.get("variables").items() {
        let (name, text) = (variable.get("name"), variable.get("expression"));
        if name.text().trim().is_empty() {
            name.required(errors, "name is not specified");
        } else if !is_identifier(name.text()) {
            name.invalid(errors, "name is not a valid CEL identifier");
        }
        name.unique(&mut names, errors);
        let compiled = stated(&text, &env, &[], errors);
        env.compose(name.text(), compiled.map_or(Type::Dyn, |c| c.output().clone()));
    }
    let messages = env.share_composed(messages);
    if object.str("kind") == "MutatingAdmissionPolicy" {
        return mutations(&spec.get("mutations"), &env, errors);
    }
    let (validations, audits) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.is_empty() && audits.is_empty() {
        validations.required(errors, NO_VALIDATIONS);
        audits.required(errors, NO_VALIDATIONS);
    }
    for validation in validations.items() {
        self::validation(&validation, &env, &messages, errors);
    }
    audit_annotations(object, &audits, &env, errors);
}

/// An expression that must be there.
fn stated(text: &At, env: &Env, gives: &[Type], errors: &mut Errors) -> Option<Expression> {
    if text.text().trim().is_empty() {
        text.required(errors, "expression is not specified");
        return None;
    }
    expression(text, env, gives, errors)
}

fn validation(validation: &At, env: &Env, messages: &Env, errors: &mut Errors) {
    stated(&validation.get("expression"), env, &[Type::Bool], errors);
    let (words, message) = (validation.get("messageExpression"), validation.get("message"));
    if !words.is_empty() && words.text().trim().is_empty() {
        words.invalid(errors, "must be non-empty if specified");
    } else if !words.is_empty() {
        expression(&words, messages, &[Type::String], errors);
    }
    let trimmed = message.text().trim();
    if !message.is_empty() && trimmed.is_empty() {
        message.invalid(errors, "message must be non-empty if specified");
    } else if trimmed.contains(['\n', '\r']) {
        message.invalid(errors, "message must not contain line breaks");
    }
    let reason = validation.get("reason");
    const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
    if reason.is_set() && !REASONS.contains(&reason.text()) {
        reason.not_supported(errors, &REASONS);
    }
}

fn audit_annotations(object: &At, audits: &At, env: &Env, errors: &mut Errors) {
    if audits.list().len() > MAX_ANNOTATIONS {
        audits.invalid(errors, format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations"));
    }
    let name = object.str("metadata.name");
    let mut keys: HashSet<&str> = HashSet::new();
    for annotation in audits.items() {
        let (key, value) = (annotation.get("key"), annotation.get("valueExpression"));
        let full = format!("{name}/{}", key.text());
        for problem in format::qualified_name(&full) {
            key.invalid_value(errors, full.as_str(), problem);
        }
        match value.text().trim() {
            "" => value.required(errors, "valueExpression is not specified"),
            text if text.len() > MAX_ANNOTATION_BYTES => {
                value.required(errors, &format!("must not exceed {MAX_ANNOTATION_BYTES} bytes in length"));
            }
            _ => {
                expression(&value, env, &[Type::String, Type::Null], errors);
            }
        }
        key.unique(&mut keys, errors);
    }
}

fn mutations(mutations: &At, env: &Env, errors: &mut Errors) {
    if mutations.is_empty() {
        mutations.required(errors, "mutations must contain at least one item");
    }
    for mutation in mutations.items() {
        let (kind, other, gives) = match mutation.str("patchType") {
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Type::object("Object")),
            _ => ("jsonPatch", "applyConfiguration", Type::list(Type::object("JSONPatch"))),
        };
        if !mutation.get("patchType").need(errors) {
            continue;
        }
        if mutation.get(other).is_set() {
            mutation
                .get(other)
                .forbidden(errors, format!("must not be specified when patchType is {}", mutation.str("patchType")));
        }
        if mutation.get(kind).need(errors) {
            let text = mutation.get(kind);
            stated(&text.get("expression"), &env.clone().patching(), &[gives], errors);
        }
    }
}

/// The kind of the objects that parameterise a policy.
fn param_kind(param: &At, errors: &mut Errors) {
    let (version, kind) = (param.get("apiVersion"), param.get("kind"));
    let text = version.text();
    if version.need(errors) {
        let (group, name) = text.split_once('/').unwrap_or(("", text));
        if name.contains('/') {
            version.invalid(errors, format!("unexpected GroupVersion string: {text}"));
        } else {
            let problems = if group.is_empty() { Vec::new() } else { format::dns_subdomain(group) };
            if !problems.is_empty() {
                version.invalid_value(errors, group, problems.join(","));
            }
            let problems = format::dns1035_label(name);
            if name.is_empty() {
                version.invalid(errors, "version must be specified");
            } else if !problems.is_empty() {
                version.invalid_value(errors, name, problems.join(","));
            }
        }
    }
    if kind.need(errors) {
        let problems = format::dns1035_label(&kind.text().to_lowercase());
        if !problems.is_empty() {
            let words = "may have mixed case, but should otherwise match: ";
            kind.invalid(errors, format!("{words}{}", problems.join(",")));
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    plain
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && crate::cel::escape(name).is_some_and(|e| !e.ends_with("__") || e == name)
}

fn match_resources(resources: &At, errors: &mut Errors) {
    label_selector(&resources.get("namespaceSelector"), errors);
    label_selector(&resources.get("objectSelector"), errors);
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in resources.get(list).items() {
            let mut names: HashSet<&str> = HashSet::new();
            for name in rule.get("resourceNames").items() {
                name.check(errors, format::path_segment(name.text()));
                name.unique(&mut names, errors);
            }
            operation_rule(&rule, errors);
        }
    }
}

pub(super) fn admission_binding(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let name = spec.get("policyName");
    if name.need(errors) {
        name.check(errors, format::dns_subdomain(name.text()));
    }
    let param = spec.get("paramRef");
    if param.is_set() {
        param_ref(&param, errors);
    }
    match_resources(&spec.get("matchResources"), errors);
    if object.str("kind") != "ValidatingAdmissionPolicyBinding" {
        return;
    }
    let actions = spec.get("validationActions");
    let mut seen: HashSet<&str> = HashSet::new();
    for action in actions.items() {
        action.unique(&mut seen, errors);
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        actions.invalid(errors, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
    }
    if actions.is_empty() {
        actions.required(errors, "at least one validation action is required");
    }
}

fn param_ref(param: &At, errors: &mut Errors) {
    const BOTH: &str = "name and selector are mutually exclusive";
    let (name, selector, missing) = (param.get("name"), param.get("selector"), param.get("parameterNotFoundAction"));
    let both = !name.is_empty() && selector.is_set();
    if !name.is_empty() {
        name.check(errors, format::path_segment(name.text()));
    }
    if both {
        name.forbidden(errors, BOTH);
    }
    label_selector(&selector, errors);
    if both {
        selector.forbidden(errors, BOTH);
    }
    if name.is_empty() && !selector.is_set() {
        param.required(errors, "one of name or selector must be specified");
    }
    missing.need_one_of(errors, &["Deny", "Allow"]);
}
