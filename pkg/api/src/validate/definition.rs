//! Further APIs: of custom resources, and of servers behind this one.

use std::collections::HashSet;

use serde_json::Value;

use super::at::{At, same};
use super::extension::client_config;
use super::{Errors, format, selectable};
use crate::custom::CustomSchema;
use crate::field::{FieldError, FieldPath};

/// A definition of custom resources; its schemas must be structural.
pub(super) fn custom_resource_definition(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (group, names) = (spec.get("group"), spec.get("names"));
    if group.need(errors) {
        group.check(errors, format::dns_subdomain(group.text()));
        if !group.text().contains('.') {
            group.invalid(errors, "should be a domain with at least one dot");
        }
    }
    let expected = format!("{}.{}", names.str("plural"), group.text());
    if object.str("metadata.name") != expected {
        let detail = format!("must be spec.names.plural+\".\"+spec.group: {expected:?}");
        object.get("metadata.name").invalid(errors, detail);
    }
    spec.get("scope").need_one_of(errors, &["Cluster", "Namespaced"]);
    for field in ["plural", "singular", "kind", "listKind"] {
        let name = names.get(field);
        if name.need(errors) {
            name.check(errors, format::dns_label(&name.text().to_lowercase()));
        }
    }
    for list in ["shortNames", "categories"] {
        for name in names.get(list).items() {
            name.check(errors, format::dns_label(name.text()));
        }
    }
    if names.str("kind") == names.str("listKind") && !names.get("kind").is_empty() {
        names.get("listKind").invalid(errors, "kind and listKind may not be the same");
    }
    if spec.get("preserveUnknownFields").is_true() {
        let detail = "must be false in order to use defaults in the schema";
        spec.get("preserveUnknownFields").invalid(errors, detail);
    }
    versions(&spec, old.map(|old| &old.value["spec"]["versions"]), errors);
    if spec.str("conversion.strategy") == "Webhook" {
        let webhook = spec.get("conversion.webhook");
        if webhook.need(errors) {
            client_config(&webhook.get("clientConfig"), errors);
            let reviews = webhook.get("conversionReviewVersions");
            reviews.need(errors);
        }
    }
    if let Some(old) = old {
        definition_change(object, old, errors);
    }
}

fn versions(spec: &At, old: Option<&Value>, errors: &mut Errors) {
    let versions = spec.get("versions");
    versions.need(errors);
    let mut names: HashSet<&str> = HashSet::new();
    let stored = versions.list().iter().filter(|v| v["storage"] == true).count();
    if stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        versions.invalid(errors, detail);
    }
    for version in versions.items() {
        let name = version.get("name");
        if name.need(errors) {
            name.check(errors, format::dns_label(name.text()));
        }
        if names.contains(&name.text()) {
            name.duplicate(errors);
        }
        names.insert(name.text());
        let schema = version.get("schema.openAPIV3Schema");
        let unchanged = old
            .and_then(Value::as_array)
            .is_some_and(|list| list.iter().any(|v| v["schema"] == version.value["schema"]));
        if !schema.is_set() {
            schema.required(errors, "schemas are required");
        } else if !unchanged {
            let compiled = CustomSchema::compile(schema.value, &schema.path());
            errors.extend(compiled.err().unwrap_or_default());
        }
        scale(&version.get("subresources.scale"), errors);
        for column in version.get("additionalPrinterColumns").items() {
            for field in ["name", "type", "jsonPath"] {
                column.get(field).need(errors);
            }
        }
        selectable::fields(&version, old, errors);
    }
}

fn scale(scale: &At, errors: &mut Errors) {
    if !scale.is_set() {
        return;
    }
    for (field, roots) in [
        ("specReplicasPath", &[".spec."][..]),
        ("statusReplicasPath", &[".status."]),
        ("labelSelectorPath", &[".spec.", ".status."]),
    ] {
        let path = scale.get(field);
        if path.is_empty() {
            if field != "labelSelectorPath" {
                path.required(errors, "");
            }
        } else if !roots.iter().any(|root| path.text().starts_with(root)) {
            path.invalid(errors, format!("should be a json path under {}", roots.join(" or ")));
        }
    }
}

fn definition_change(object: &At, old: &At, errors: &mut Errors) {
    let established =
        old.get("status.conditions").list().iter().any(|c| c["type"] == "Established" && c["status"] == "True");
    let mut fixed = vec!["spec.group", "spec.names.plural"];
    if established {
        fixed.extend(["spec.scope", "spec.names.kind"]);
    }
    for field in fixed {
        object.get(field).immutable(&old.get(field), errors);
    }
    let versions = object.get("spec.versions");
    for stored in old.get("status.storedVersions").list() {
        if !versions.list().iter().any(|v| same(&v["name"], stored)) {
            let path = FieldPath::new("status").child("storedVersions").index(0);
            let detail = "missing from spec.versions; was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in it and removes it from status.storedVersions";
            errors.push(FieldError::invalid(&path, stored.clone(), detail));
        }
    }
}

pub(super) fn api_service(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (group, version, service) = (spec.str("group"), spec.get("version"), spec.get("service"));
    let name = object.get("metadata.name");
    let expected = format!("{}.{group}", version.text());
    if name.text() != expected && !(group.is_empty() && name.text() == format!("{}.", version.text())) {
        name.invalid(errors, format!("must be `spec.version+\".\"+spec.group`: \"{expected}\""));
    }
    if version.need(errors) {
        version.check(errors, format::dns_label(version.text()));
    }
    if !group.is_empty() {
        spec.get("group").check(errors, format::dns_subdomain(group));
    }
    for (field, max) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
        let priority = spec.get(field);
        if !(1..=max).contains(&priority.int().unwrap_or(0)) {
            let detail = format!("must be positive and less than or equal to {max}");
            priority.invalid_value(errors, priority.int().unwrap_or(0), detail);
        }
    }
    let (bundle, insecure) = (spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    if !service.is_set() {
        if !bundle.is_empty() {
            bundle.invalid(errors, "local APIServices may not have a caBundle");
        }
        if insecure.is_true() {
            insecure.invalid(errors, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    for field in ["namespace", "name"] {
        service.get(field).need(errors);
    }
    service.get("port").in_range(errors, 1, 65535);
    if insecure.is_true() && !bundle.is_empty() {
        insecure.invalid(errors, "may not be true if caBundle is present");
    }
}
