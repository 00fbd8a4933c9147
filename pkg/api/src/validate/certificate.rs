//! Requests for certificates and the decisions about them.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::at::At;
use super::{Errors, format};
use crate::field::FieldError;

pub(super) fn signing_request(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let request = spec.get("request");
    if !is_certificate_request(request.text()) {
        request.invalid(errors, "PEM block type must be CERTIFICATE REQUEST");
    }
    spec.get("usages").need(errors);
    let signer = spec.get("signerName");
    if signer.need(errors) {
        match signer.text().split_once('/') {
            Some((domain, path)) if !path.is_empty() => {
                signer.check(errors, format::dns_subdomain(domain));
                if !domain.contains('.') {
                    signer.invalid(errors, "should be a domain with at least two segments separated by dots");
                }
            }
            _ => signer
                .invalid(errors, "must be a fully qualified domain and path of the form 'example.com/signer-name'"),
        }
    }
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|s| s < 600) {
        seconds.invalid(errors, "may not specify a duration less than 600 seconds (10 minutes)");
    }
    for (index, usage) in spec.get("usages").items().enumerate() {
        if spec.get("usages").list()[..index].contains(usage.value) {
            usage.duplicate(errors);
        }
    }
}

fn is_certificate_request(encoded: &str) -> bool {
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.contains("-----BEGIN CERTIFICATE REQUEST-----") && text.contains("-----END CERTIFICATE REQUEST-----")
}

/// Decisions about a request, once made, stay; `approval` is the endpoint where they are made.
fn decisions(object: &At, old: &At, approval: bool, errors: &mut Errors) {
    let (conditions, before) = (object.get("status.conditions"), old.get("status.conditions"));
    let mut kinds: HashSet<&str> = HashSet::new();
    for condition in conditions.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        kind.need(errors);
        if matches!(kind.text(), "Approved" | "Denied" | "Failed") {
            if status.text() != "True" {
                status.not_supported(errors, &["True"]);
            }
        } else {
            status.need_one_of(errors, &["False", "True", "Unknown"]);
        }
        let known = before.list().iter().any(|c| c["type"] == kind.text());
        if !approval && !known && matches!(kind.text(), "Approved" | "Denied") {
            conditions.forbidden(errors, format!("updates may not add a condition of type \"{}\"", kind.text()));
        }
        if kinds.contains(&kind.text()) {
            errors.push(FieldError::duplicate(&kind.path(), kind.text()));
        }
        kinds.insert(kind.text());
    }
    if kinds.contains(&"Approved") && kinds.contains(&"Denied") {
        conditions.invalid_value(errors, "Approved", "Approved and Denied conditions are mutually exclusive");
    }
    for condition in before.items() {
        let kind = condition.str("type");
        if matches!(kind, "Approved" | "Denied" | "Failed") && !kinds.contains(&kind) {
            conditions.forbidden(errors, format!("updates may not remove a condition of type \"{kind}\""));
        }
    }
}

pub(super) fn approval(object: &At, old: &At, errors: &mut Errors) {
    decisions(object, old, true, errors);
}

pub(super) fn signing_request_status(object: &At, old: &At, errors: &mut Errors) {
    decisions(object, old, false, errors);
    let (certificate, before) = (object.get("status.certificate"), old.get("status.certificate"));
    if !before.is_empty() && certificate.value != before.value {
        certificate
            .forbidden(errors, "updates may not set certificate content if existing certificate content is not empty");
    }
}
