//! What extends admission: webhooks and policies.

use std::collections::HashSet;

use super::at::At;
use super::selector::label_selector;
use super::{Errors, format};
use crate::cel::{Env, Type};
use crate::expression::Expression;

pub(super) fn webhooks(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let mut names: HashSet<&str> = HashSet::new();
    for webhook in object.get("webhooks").items() {
        let name = webhook.get("name");
        if names.contains(&name.text()) {
            name.duplicate(errors);
        }
        names.insert(name.text());
        self::webhook(&webhook, errors);
    }
}

fn webhook(webhook: &At, errors: &mut Errors) {
    let name = webhook.get("name");
    if name.need(errors) {
        name.check(errors, format::dns_subdomain(name.text()));
        if name.text().split('.').count() < 3 {
            name.invalid(errors, "should be a domain with at least three segments separated by dots");
        }
    }
    for rule in webhook.get("rules").items() {
        operation_rule(&rule, errors);
    }
    let (effects, timeout, versions) =
        (webhook.get("sideEffects"), webhook.get("timeoutSeconds"), webhook.get("admissionReviewVersions"));
    effects.need_one_of(errors, &["None", "NoneOnDryRun"]);
    if timeout.int().is_some_and(|s| !(1..=30).contains(&s)) {
        timeout.invalid(errors, "the timeout value must be between 1 and 30 seconds");
    }
    if versions.is_empty() {
        versions.required(errors, "must specify one of v1, v1beta1");
    } else if !versions.list().iter().any(|v| v == "v1" || v == "v1beta1") {
        versions.invalid(errors, "must include at least one of v1, v1beta1");
    }
    label_selector(&webhook.get("namespaceSelector"), errors);
    label_selector(&webhook.get("objectSelector"), errors);
    match_conditions(&webhook.get("matchConditions"), &Env::admission(Type::Dyn).with_authorizer(), errors);
    client_config(&webhook.get("clientConfig"), errors);
}

fn match_conditions(conditions: &At, env: &Env, errors: &mut Errors) {
    if conditions.list().len() > 64 {
        errors.push(crate::field::FieldError::too_many(&conditions.path(), conditions.list().len(), 64));
    }
    let mut names: HashSet<&str> = HashSet::new();
    for condition in conditions.items() {
        let name = condition.get("name");
        if name.need(errors) {
            name.check(errors, format::qualified_name(name.text()));
        }
        if names.contains(&name.text()) {
            name.duplicate(errors);
        }
        names.insert(name.text());
        expression(&condition.get("expression"), env, &[Type::Bool], errors);
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
    for field in ["operations", "apiGroups", "apiVersions", "resources"] {
        let list = rule.get(field);
        list.need(errors);
        if field != "resources" && list.list().len() > 1 && list.list().iter().any(|v| v == "*") {
            list.invalid(errors, "if '*' is present, must not specify other values");
        }
    }
    let resources = rule.get("resources");
    let has = |name: &str| resources.list().iter().any(|r| r == name);
    if has("*/*") && resources.list().len() > 1 {
        resources.invalid(errors, "if '*/*' is present, must not specify other resources");
    }
    for resource in resources.items() {
        if resource.is_empty() {
            resource.required(errors, "");
        }
    }
}

/// Where a webhook is called: a URL or a service.
pub(super) fn client_config(config: &At, errors: &mut Errors) {
    let (url, service) = (config.get("url"), config.get("service"));
    match (url.is_set(), service.is_set()) {
        (true, false) => webhook_url(&url, errors),
        (false, true) => {
            for field in ["name", "namespace"] {
                service.get(field).need(errors);
            }
            let port = service.get("port");
            if port.int().is_some_and(|n| !(1..=65535).contains(&n)) {
                port.invalid(errors, "port is not valid: must be between 1 and 65535, inclusive");
            }
            webhook_path(&service.get("path"), errors);
        }
        _ => config.required(errors, "exactly one of url or service is required"),
    }
}

fn webhook_path(path: &At, errors: &mut Errors) {
    let steps = match path.text() {
        "" | "/" => return,
        "//" => return path.invalid(errors, "segment[0] may not be empty"),
        text if text.starts_with('/') => &text[1..],
        text => {
            path.invalid(errors, "must start with a '/'");
            text.split_at(text.chars().next().map_or(0, char::len_utf8)).1
        }
    };
    for (index, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            path.invalid(errors, format!("segment[{index}] may not be empty"));
            continue;
        }
        let problems = format::dns_subdomain(step);
        path.check(errors, problems.into_iter().map(|why| format!("segment[{index}]: {why}")).collect());
    }
}

fn webhook_url(url: &At, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = url.text();
    if text.starts_with(':') {
        url.required(errors, &format!("url must be a valid URL: parse {text:?}: missing protocol scheme{FORM}"));
        return;
    }
    let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
    if scheme != "https" {
        url.invalid_value(errors, scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.strip_prefix("//").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        url.invalid_value(errors, host, format!("host must be specified{FORM}"));
    }
    for (part, what) in [(user, "user information is"), (fragment, "fragments are"), (query, "query parameters are")] {
        if !part.is_empty() {
            url.invalid_value(errors, part, format!("{what} not permitted in the URL"));
        }
    }
}

pub(super) fn admission_policy(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let param = spec.get("paramKind");
    if param.is_set() {
        for field in ["apiVersion", "kind"] {
            param.get(field).need(errors);
        }
    }
    let constraints = spec.get("matchConstraints");
    if constraints.need(errors) {
        if constraints.get("resourceRules").is_empty() {
            constraints.get("resourceRules").required(errors, "");
        }
        match_resources(&constraints, errors);
    }
    let mut env = Env::admission(Type::Dyn).composing();
    if param.is_set() {
        env = env.with("params", Type::Dyn);
    }
    let messages = env.clone();
    let mut env = env.with_authorizer();
    let mut names: HashSet<&str> = HashSet::new();
    for variable in spec.get("variables").items() {
        let name = variable.get("name");
        if name.need(errors) && names.contains(&name.text()) {
            name.duplicate(errors);
        }
        names.insert(name.text());
        if !name.is_empty() && !is_identifier(name.text()) {
            let why = format!("name is not a valid CEL identifier: {}", name.text());
            name.invalid(errors, why);
        }
        let compiled = expression(&variable.get("expression"), &env, &[], errors);
        env.compose(name.text(), compiled.map_or(Type::Dyn, |c| c.output().clone()));
    }
    let messages = env.share_composed(messages);
    match_conditions(&spec.get("matchConditions"), &env, errors);
    let (validations, audits) = (spec.get("validations"), spec.get("auditAnnotations"));
    if object.str("kind") == "ValidatingAdmissionPolicy" && validations.is_empty() && audits.is_empty() {
        validations.required(errors, "validations or auditAnnotations must be non-empty");
        audits.required(errors, "validations or auditAnnotations must be non-empty");
    }
    for validation in validations.items() {
        expression(&validation.get("expression"), &env, &[Type::Bool], errors);
        let words = validation.get("messageExpression");
        if words.is_set() {
            expression(&words, &messages, &[Type::String], errors);
        }
        let message = validation.get("message");
        if message.is_set() && message.text().trim().is_empty() {
            message.invalid(errors, "message must be non-empty if specified");
        }
        validation.get("reason").one_of(errors, &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"]);
    }
    for annotation in audits.items() {
        annotation.get("key").need(errors);
        expression(&annotation.get("valueExpression"), &env, &[Type::String, Type::Null], errors);
    }
    for mutation in spec.get("mutations").items() {
        let (kind, field) = match mutation.str("patchType") {
            "ApplyConfiguration" => ("applyConfiguration", "applyConfiguration.expression"),
            _ => ("jsonPatch", "jsonPatch.expression"),
        };
        if mutation.get("patchType").need(errors) && mutation.get(kind).need(errors) {
            let gives = match kind {
                "jsonPatch" => Type::list(Type::object("JSONPatch")),
                _ => Type::object("Object"),
            };
            expression(&mutation.get(field), &env.clone().patching(), &[gives], errors);
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
        match (param.get("name").is_empty(), param.get("selector").is_set()) {
            (true, false) => param.get("name").required(errors, "one of name or selector must be specified"),
            (false, true) => param.get("name").forbidden(errors, "name and selector are mutually exclusive"),
            _ => label_selector(&param.get("selector"), errors),
        }
        param.get("parameterNotFoundAction").need_one_of(errors, &["Allow", "Deny"]);
    }
    match_resources(&spec.get("matchResources"), errors);
    if object.str("kind") != "ValidatingAdmissionPolicyBinding" {
        return;
    }
    let actions = spec.get("validationActions");
    actions.need(errors);
    let has = |name: &str| actions.list().iter().any(|a| a == name);
    if has("Deny") && has("Warn") {
        actions.invalid(errors, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
    }
}
