//! Requests for certificates and the decisions about them.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::error::X509Error;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::at::At;
use super::{Errors, format};

pub(super) fn signing_request(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (request, usages, signer) = (spec.get("request"), spec.get("usages"), spec.get("signerName"));
    // What is stored stays as it is, so that it needs no second look.
    if old.is_none()
        && let Err(why) = check_request(request.text())
    {
        request.invalid(errors, why);
    }
    usages.need(errors);
    let mut seen: HashSet<&str> = HashSet::new();
    for usage in usages.items() {
        usage.unique(&mut seen, errors);
    }
    if signer.text() == "kubernetes.io/legacy-unknown" {
        signer.invalid(errors, "the legacy signerName is not allowed via this API version");
    } else {
        signer_name(&signer, errors);
    }
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|s| s < 600) {
        seconds.invalid(errors, "may not specify a duration less than 600 seconds (10 minutes)");
    }
}

/// Whether encoded text is a request that its own key has signed. Signatures of kinds that cannot be checked here are left
/// to the signer.
fn check_request(encoded: &str) -> Result<(), &'static str> {
    if pem_blocks(encoded).first().map(String::as_str) != Some("CERTIFICATE REQUEST") {
        return Err("PEM block type must be CERTIFICATE REQUEST");
    }
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    let malformed = "asn1: structure error: this is no certificate request";
    let (_, pem) = x509_parser::pem::parse_x509_pem(&bytes).map_err(|_| malformed)?;
    let (rest, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|_| malformed)?;
    if !rest.is_empty() {
        return Err("asn1: syntax error: trailing data");
    }
    match request.verify_signature() {
        Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => Ok(()),
        Err(_) => Err(match request.certification_request_info.subject_pki.parsed() {
            Ok(PublicKey::RSA(_)) => "crypto/rsa: verification error",
            Ok(PublicKey::EC(_)) => "x509: ECDSA verification failure",
            _ => "x509: Ed25519 verification failure",
        }),
    }
}

/// A domain and a name: `example.com/signer`.
fn signer_name(signer: &At, errors: &mut Errors) {
    const MAX_NAME: usize = MAX_DOMAIN + 1 + MAX_DOMAIN + 64;
    const MAX_DOMAIN: usize = 253;
    let parts: Vec<&str> = signer.text().split('/').collect();
    let [domain, name] = parts[..] else {
        return match signer.text() {
            "" => signer.required(errors, "signerName must be provided"),
            _ => signer
                .invalid(errors, "must be a fully qualified domain and path of the form 'example.com/signer-name'"),
        };
    };
    if domain.len() > MAX_DOMAIN {
        signer.too_long(errors, MAX_DOMAIN);
    }
    let first_problems = |text: &str, check: fn(&str) -> Vec<String>| {
        let wrong = text.split('.').find_map(|label| Some((label, check(label))).filter(|(_, p)| !p.is_empty()));
        let (label, problems) = wrong.unwrap_or_default();
        problems.into_iter().map(|problem| format!("validating label {label:?}: {problem}")).collect::<Vec<_>>()
    };
    for problem in first_problems(domain, format::dns_label) {
        signer.invalid_value(errors, domain, problem);
    }
    if !domain.contains('.') {
        signer.invalid_value(errors, domain, "should be a domain with at least two segments separated by dots");
    }
    for problem in first_problems(name, format::dns_subdomain) {
        signer.invalid_value(errors, name, problem);
    }
    signer.no_longer(errors, MAX_NAME);
}

/// The types of the PEM blocks in encoded text.
fn pem_blocks(encoded: &str) -> Vec<String> {
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut blocks = Vec::new();
    let mut rest: &str = &text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let Some((kind, body)) = after.split_once("-----") else { break };
        let Some((_, next)) = body.split_once(&format!("-----END {kind}-----")) else { break };
        blocks.push(kind.to_owned());
        rest = next;
    }
    blocks
}

/// Decisions about a request, once made, stay; `approval` is the endpoint where they are made.
fn decisions(object: &At, old: &At, approval: bool, errors: &mut Errors) {
    let (conditions, before) = (object.get("status.conditions"), old.get("status.conditions"));
    let of = |list: &At, kind: &str| list.list().iter().filter(|c| c["type"] == kind).cloned().collect::<Vec<_>>();
    let mut kinds: HashSet<&str> = HashSet::new();
    for condition in conditions.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        kind.need(errors);
        if status.need(errors) {
            let final_kind = matches!(kind.text(), "Approved" | "Denied" | "Failed");
            status.one_of(errors, if final_kind { &["True"] } else { &["False", "True", "Unknown"] });
        }
        let other = match kind.text() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if kinds.contains(other) {
            let words = "Approved and Denied conditions are mutually exclusive";
            conditions.invalid_value(errors, kind.text(), words);
        }
        kind.unique(&mut kinds, errors);
    }
    for kind in ["Approved", "Denied", "Failed"] {
        if of(&conditions, kind).len() < of(&before, kind).len() {
            conditions.forbidden(errors, format!("updates may not remove a condition of type \"{kind}\""));
        }
    }
    for kind in ["Approved", "Denied"].into_iter().filter(|_| !approval) {
        let (new, old) = (of(&conditions, kind), of(&before, kind));
        if new.len() > old.len() {
            conditions.forbidden(errors, format!("updates may not add a condition of type \"{kind}\""));
        } else if new.len() == old.len() && new != old {
            conditions.forbidden(errors, format!("updates may not modify a condition of type \"{kind}\""));
        }
    }
}

pub(super) fn approval(object: &At, old: &At, errors: &mut Errors) {
    decisions(object, old, true, errors);
}

pub(super) fn signing_request_status(object: &At, old: &At, errors: &mut Errors) {
    let (certificate, before) = (object.get("status.certificate"), old.get("status.certificate"));
    decisions(object, old, false, errors);
    if certificate.text() == before.text() {
        return;
    }
    let blocks = pem_blocks(certificate.text());
    let problem = match blocks.iter().find(|kind| *kind != "CERTIFICATE") {
        Some(other) => Some(format!("only CERTIFICATE PEM blocks are allowed, found {other:?}")),
        None if blocks.is_empty() && !certificate.is_empty() => {
            Some("must contain at least one CERTIFICATE PEM block".into())
        }
        None => None,
    };
    if let Some(problem) = problem {
        certificate.invalid_value(errors, "<certificate data>", problem);
    }
    if !before.is_empty() {
        certificate.forbidden(errors, "updates may not modify existing certificate content");
    }
}
