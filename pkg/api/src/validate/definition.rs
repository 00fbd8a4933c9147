//! Definitions of custom resources.

use serde_json::Value;

use super::at::{At, same};
use super::extension::client_config;
use super::version::{joined, versions};
use super::{Errors, format};
use crate::custom::Approval;
use crate::field::{FieldError, FieldPath};

/// A definition of custom resources; its schemas must be structural.
pub(super) fn custom_resource_definition(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (group, plural) = (spec.get("group"), spec.str("names.plural"));
    // What a change makes of the names is told by what may not change.
    if old.is_none() && object.str("metadata.name") != format!("{plural}.{}", group.text()) {
        object.get("metadata.name").invalid(errors, "must be spec.names.plural+\".\"+spec.group");
    }
    if group.need(errors) {
        let problems = format::dns_subdomain(group.text());
        if problems.is_empty() && !group.text().contains('.') {
            group.invalid(errors, "should be a domain with at least one dot");
        }
        group.check(errors, joined(problems));
    }
    spec.get("scope").need_one_of(errors, &["Cluster", "Namespaced"]);
    versions(&spec, old.map(|old| &old.value["spec"]["versions"]), errors);
    conversion(&spec.get("conversion"), old, errors);
    if let Some(old) = old {
        definition_change(object, old, errors);
    }
    // Who writes the status alone may say what is stored.
    if old.is_none_or(|old| old.value["spec"] != object.value["spec"]) {
        stored_versions(object, errors);
    }
    approval(object, old, errors);
    if spec.get("preserveUnknownFields").is_true() {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        spec.get("preserveUnknownFields").invalid(errors, detail);
    }
}

pub(super) fn names(names: &At, errors: &mut Errors) {
    for field in ["plural", "singular", "kind", "listKind"] {
        names.get(field).need(errors);
    }
    let named = |field| Some(names.get(field)).filter(|name: &At| !name.is_empty());
    for name in ["plural", "singular"].into_iter().filter_map(named) {
        name.check(errors, joined(format::dns1035_label(name.text())));
    }
    for name in ["kind", "listKind"].into_iter().filter_map(named) {
        let problems = joined(format::dns1035_label(&name.text().to_lowercase()));
        let mixed = |p: String| format!("may have mixed case, but should otherwise match: {p}");
        name.check(errors, problems.into_iter().map(mixed).collect());
    }
    for name in names.get("shortNames").items() {
        name.check(errors, joined(format::dns1035_label(name.text())));
    }
    if names.str("kind") == names.str("listKind") && !names.get("kind").is_empty() {
        names.get("listKind").invalid(errors, "kind and listKind may not be the same");
    }
    for name in names.get("categories").items() {
        name.check(errors, joined(format::dns1035_label(name.text())));
    }
}

/// The webhook is told of under the names of upstream's inner form.
fn conversion(conversion: &At, old: Option<&At>, errors: &mut Errors) {
    if !conversion.is_set() {
        return;
    }
    let mut found = Errors::new();
    let (strategy, webhook) = (conversion.get("strategy"), conversion.get("webhook"));
    strategy.need_one_of(&mut found, &["None", "Webhook"]);
    let (client, reviews) = (webhook.get("clientConfig"), webhook.get("conversionReviewVersions"));
    if strategy.text() == "Webhook" {
        if client.is_set() {
            client_config(&client, &mut found);
        } else {
            client.required(&mut found, "required when strategy is set to Webhook");
        }
        review_versions(&reviews, old, &mut found);
    } else {
        for field in [&client, &reviews].into_iter().filter(|field| field.is_set()) {
            field.forbidden(&mut found, "should not be set when strategy is not set to Webhook");
        }
    }
    for mut error in found {
        error.field =
            error.field.replacen("webhook.clientConfig", "webhookClientConfig", 1).replacen("webhook.", "", 1);
        errors.push(error);
    }
}

fn review_versions(reviews: &At, old: Option<&At>, errors: &mut Errors) {
    let known = |v: &Value| v == "v1" || v == "v1beta1";
    if !reviews.need(errors) {
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for review in reviews.items() {
        if seen.contains(&review.text()) {
            review.invalid(errors, "duplicate version");
            continue;
        }
        seen.push(review.text());
        review.check(errors, format::dns1035_label(review.text()));
    }
    let before = old.map(|old| old.get("spec.conversion.webhook.conversionReviewVersions").list());
    let tolerated = before.is_some_and(|list| !list.is_empty() && !list.iter().any(known));
    if !tolerated && !reviews.list().iter().any(known) {
        reviews.invalid(errors, "must include at least one of v1, v1beta1");
    }
}

fn definition_change(object: &At, old: &At, errors: &mut Errors) {
    let established =
        old.get("status.conditions").list().iter().any(|c| c["type"] == "Established" && c["status"] == "True");
    let fixed = if established { &["spec.scope", "spec.names.kind"][..] } else { &[] };
    for field in fixed.iter().chain(&["spec.group", "spec.names.plural"]) {
        object.get(field).immutable(&old.get(field), errors);
    }
}

fn stored_versions(object: &At, errors: &mut Errors) {
    let (stored, versions) = (object.get("status.storedVersions"), object.get("spec.versions"));
    if stored.is_empty() {
        let path = stored.path();
        errors.push(FieldError::invalid(&path, Value::Null, "must have at least one stored version"));
        return;
    }
    for version in versions.list().iter().filter(|v| v["storage"] == true) {
        if !stored.list().contains(&version["name"]) {
            let name = version["name"].as_str().unwrap_or_default();
            stored.invalid(errors, format!("must have the storage version {name}"));
        }
    }
    for gone in stored.items().filter(|s| !versions.list().iter().any(|v| same(&v["name"], s.value))) {
        let name = gone.text();
        let why = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a \
             storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
        );
        gone.invalid(errors, why);
    }
}

/// Groups of the Kubernetes project need word of the review of their API. What was let in before may stay as it is.
fn approval(object: &At, old: Option<&At>, errors: &mut Errors) {
    let now = Approval::of(object.value);
    if old.is_some_and(|old| Approval::of(old.value) == now) {
        return;
    }
    let path = FieldPath::new("metadata").child("annotations").key(Approval::ANNOTATION);
    match now {
        Approval::Missing => errors.push(FieldError::required(&path, now.message())),
        Approval::Invalid(ref text) => errors.push(FieldError::invalid(&path, text.clone(), now.message())),
        Approval::NotNeeded | Approval::Given(_) | Approval::Bypassed(_) => {}
    }
}
