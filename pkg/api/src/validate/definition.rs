//! Further APIs: of custom resources, and of servers behind this one.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::at::{At, same};
use super::extension::client_config;
use super::{Errors, format, selectable};
use crate::custom::CustomSchema;
use crate::field::{FieldError, FieldPath};
use crate::structural;

/// A definition of custom resources; its schemas must be structural.
pub(super) fn custom_resource_definition(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (group, names) = (spec.get("group"), spec.get("names"));
    if group.need(errors) {
        let problems = format::dns_subdomain(group.text());
        if problems.is_empty() && !group.text().contains('.') {
            group.invalid(errors, "should be a domain with at least one dot");
        }
        group.check(errors, problems);
    }
    if object.str("metadata.name") != format!("{}.{}", names.str("plural"), group.text()) {
        object.get("metadata.name").invalid(errors, "must be spec.names.plural+\".\"+spec.group");
    }
    spec.get("scope").need_one_of(errors, &["Cluster", "Namespaced"]);
    definition_names(&names, errors);
    if spec.get("preserveUnknownFields").is_true() {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        spec.get("preserveUnknownFields").invalid(errors, detail);
    }
    versions(&spec, old.map(|old| &old.value["spec"]["versions"]), errors);
    conversion(&spec.get("conversion"), errors);
    if let Some(old) = old {
        definition_change(object, old, errors);
    }
}

fn definition_names(names: &At, errors: &mut Errors) {
    for field in ["plural", "singular"] {
        let name = names.get(field);
        if name.need(errors) {
            name.check(errors, format::dns1035_label(name.text()));
        }
    }
    for field in ["kind", "listKind"] {
        let name = names.get(field);
        if name.need(errors) {
            let problems = format::dns1035_label(&name.text().to_lowercase());
            let mixed = |p: String| format!("may have mixed case, but should otherwise match: {p}");
            name.check(errors, problems.into_iter().map(mixed).collect());
        }
    }
    for list in ["shortNames", "categories"] {
        for name in names.get(list).items() {
            name.check(errors, format::dns1035_label(name.text()));
        }
    }
    if names.str("kind") == names.str("listKind") && !names.get("kind").is_empty() {
        names.get("listKind").invalid(errors, "kind and listKind may not be the same");
    }
}

fn conversion(conversion: &At, errors: &mut Errors) {
    let (strategy, webhook) = (conversion.get("strategy"), conversion.get("webhook"));
    match strategy.text() {
        "Webhook" => {
            if !webhook.get("clientConfig").is_set() {
                webhook.get("clientConfig").required(errors, "required when strategy is set to Webhook");
            } else {
                client_config(&webhook.get("clientConfig"), errors);
            }
            let reviews = webhook.get("conversionReviewVersions");
            let known = |v: &Value| v == "v1" || v == "v1beta1";
            if reviews.need(errors) && !reviews.list().iter().any(known) {
                reviews.invalid(errors, "must include at least one of v1, v1beta1");
            }
        }
        "None" | "" => {
            for field in ["clientConfig", "conversionReviewVersions"] {
                let field = webhook.get(field);
                if field.is_set() {
                    field.forbidden(errors, "should not be set when strategy is not set to Webhook");
                }
            }
        }
        _ => strategy.not_supported(errors, &["None", "Webhook"]),
    }
}

/// What all versions have alike is told of the definition, as upstream does.
fn place(versions: &At, version: &At, member: &'static str, common: &str) -> FieldPath {
    let list = versions.list();
    let alike = list.iter().all(|v| same(&v[member], &list[0][member]));
    if alike { FieldPath::new("spec").child(common) } else { version.path().child(member) }
}

fn versions(spec: &At, old: Option<&Value>, errors: &mut Errors) {
    let versions = spec.get("versions");
    let mut names: HashSet<&str> = HashSet::new();
    let stored = versions.list().iter().filter(|v| v["storage"] == true).count();
    if stored != 1 {
        versions.invalid(errors, "must have exactly one version marked as storage version");
    }
    if !versions.list().iter().all(|v| names.insert(v["name"].as_str().unwrap_or_default())) {
        versions.invalid(errors, "must contain unique version names");
    }
    for version in versions.items() {
        let name = version.get("name");
        if name.need(errors) {
            name.check(errors, format::dns1035_label(name.text()));
        }
        version_schema(spec, &version, old, errors);
        deprecation(&version, errors);
        let path = place(&versions, &version, "subresources", "subresources");
        scale(&version.get("subresources.scale"), &path.child("scale"), errors);
        let path = place(&versions, &version, "additionalPrinterColumns", "additionalPrinterColumns");
        for (index, column) in version.get("additionalPrinterColumns").items().enumerate() {
            printer_column(&column, &path.index(index), errors);
        }
        selectable::fields(&version, old, errors);
    }
}

fn version_schema(spec: &At, version: &At, old: Option<&Value>, errors: &mut Errors) {
    let schema = version.get("schema.openAPIV3Schema");
    let path = place(&spec.get("versions"), version, "schema", "validation");
    // Those of all versions alike are told once.
    let first = !version.path().to_string().ends_with("[0]") && path.to_string() == "spec.validation";
    let path = if path.to_string() == "spec.validation" { path } else { version.path().child("schema") };
    let path = path.child("openAPIV3Schema");
    let before = old.and_then(Value::as_array).into_iter().flatten();
    if first || before.clone().any(|v| v["schema"] == version.value["schema"]) {
        return;
    }
    if !schema.is_set() {
        errors.push(FieldError::required(&path, ""));
        return;
    }
    let found = structural::check(schema.value, &path);
    match structural::parse(schema.value, &path) {
        Ok(parsed) => {
            let wrong = structural::check_defaults(&parsed, &path);
            if found.is_empty() && wrong.is_empty() {
                let compiled = CustomSchema::compile(schema.value, &path);
                errors.extend(compiled.err().unwrap_or_default());
            }
            errors.extend(wrong);
        }
        Err(wrong) => errors.extend(wrong.into_iter().filter(|error| !found.contains(error))),
    }
    errors.extend(found);
}

fn deprecation(version: &At, errors: &mut Errors) {
    let warning = version.get("deprecationWarning");
    if !warning.is_set() {
        return;
    }
    if !version.get("deprecated").is_true() {
        warning.invalid(errors, "can only be set for deprecated versions");
    }
    if warning.text().len() > 256 {
        warning.invalid(errors, "must be <= 256 characters long");
    }
    if warning.text().is_empty() {
        warning.invalid(errors, "must not be an empty string");
    }
    if let Some((index, _)) = warning.text().char_indices().find(|(_, c)| c.is_control()) {
        let detail =
            format!("must only contain printable UTF-8 characters; non-printable character found at index {index}");
        warning.invalid(errors, detail);
    }
}

fn scale(scale: &At, path: &FieldPath, errors: &mut Errors) {
    if !scale.is_set() {
        return;
    }
    for (field, roots, under) in [
        ("specReplicasPath", &[".spec."][..], ".spec"),
        ("statusReplicasPath", &[".status."], ".status"),
        ("labelSelectorPath", &[".spec.", ".status."], "either .spec or .status"),
    ] {
        let (given, path) = (scale.str(field), path.child(field));
        if given.is_empty() {
            if field != "labelSelectorPath" {
                errors.push(FieldError::required(&path, ""));
            }
        } else if !given.starts_with('.') {
            errors.push(FieldError::invalid(&path, given, "must be a simple json path starting with ."));
        } else if !roots.iter().any(|root| given.starts_with(root)) {
            errors.push(FieldError::invalid(&path, given, format!("should be a json path under {under}")));
        }
    }
}

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

fn printer_column(column: &At, path: &FieldPath, errors: &mut Errors) {
    if column.str("name").is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    for (field, known) in [("type", &COLUMN_TYPES[..]), ("format", &COLUMN_FORMATS)] {
        let given = column.str(field);
        if given.is_empty() {
            if field == "type" {
                let detail = format!("must be one of {}", known.join(","));
                errors.push(FieldError::required(&path.child(field), detail));
            }
        } else if !known.contains(&given) {
            let detail = format!("must be one of {}", known.join(","));
            errors.push(FieldError::invalid(&path.child(field), given, detail));
        }
    }
    // Upstream's own name of the field.
    let (given, path) = (column.str("jsonPath"), path.child("JSONPath"));
    if given.is_empty() {
        errors.push(FieldError::required(&path, ""));
    } else if !given.starts_with('.') {
        errors.push(FieldError::invalid(&path, given, "must be a simple json path starting with ."));
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
    let problems = format::path_segment(name.text());
    if problems.is_empty() && name.text() != expected && !name.is_empty() {
        name.invalid(errors, format!("must be `spec.version+\".\"+spec.group`: \"{expected}\""));
    }
    if group.is_empty() && version.text() != "v1" {
        spec.get("group").required(errors, "only v1 may have an empty group and it better be legacy kube");
    }
    if !group.is_empty() {
        spec.get("group").check(errors, format::dns_subdomain(group));
    }
    for problem in format::dns1035_label(version.text()) {
        version.invalid_value(errors, version.text(), problem);
    }
    for (field, max) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
        let priority = spec.number(field);
        if !(1..=max).contains(&priority) {
            let detail = format!("must be positive and less than {max}");
            spec.get(field).invalid_value(errors, priority, detail);
        }
    }
    let (bundle, insecure) = (spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    if !service.is_set() {
        if !bundle.is_empty() {
            let bytes = STANDARD.decode(bundle.text()).map_or(0, |bytes| bytes.len());
            bundle.invalid_value(errors, format!("{bytes} bytes"), "local APIServices may not have a caBundle");
        }
        if insecure.is_true() {
            insecure.invalid(errors, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    for field in ["namespace", "name"] {
        service.get(field).need(errors);
    }
    let port = service.get("port");
    if port.int().is_some_and(|port| !(1..=65535).contains(&port)) {
        port.invalid(errors, "port is not valid: must be between 1 and 65535, inclusive");
    }
    if insecure.is_true() && !bundle.is_empty() {
        insecure.invalid(errors, "may not be true if caBundle is present");
    }
}

pub(super) fn api_service_status(object: &At, _old: &At, errors: &mut Errors) {
    for condition in object.get("status.conditions").items() {
        let status = condition.get("status");
        if !["True", "False", "Unknown"].contains(&status.text()) {
            status.not_supported(errors, &["True", "False", "Unknown"]);
        }
    }
}
