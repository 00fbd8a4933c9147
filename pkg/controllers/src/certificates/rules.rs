//! What each signer demands of a request.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use k8s_openapi::api::core::v1::Node;
use kube1_pki::{AltName, CertificateRequest, CsrSigning, Usage};

use super::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, NODE_PREFIX};

const NODES: &str = "system:nodes";
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
const LIFETIME_MIN: Duration = Duration::from_secs(600);

pub fn signing(spec: &CertificateSigningRequestSpec) -> CsrSigning {
    let usages = usages(spec);
    let wanted = spec.expiration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
    let extended = [("server auth", Usage::ServerAuth), ("client auth", Usage::ClientAuth)];
    CsrSigning {
        usages: extended.iter().filter(|(name, _)| usages.contains(name)).map(|(_, usage)| *usage).collect(),
        digital_signature: usages.contains("digital signature") || usages.contains("signing"),
        key_encipherment: usages.contains("key encipherment"),
        lifetime: wanted.map_or(LIFETIME, |w| w.clamp(LIFETIME_MIN, LIFETIME)),
    }
}

fn usages(spec: &CertificateSigningRequestSpec) -> BTreeSet<&str> {
    spec.usages.iter().flatten().map(String::as_str).collect()
}

/// What each signer demands.
pub fn check(spec: &CertificateSigningRequestSpec, request: &CertificateRequest) -> Result<(), String> {
    match spec.signer_name.as_str() {
        KUBELET_CLIENT => check_kubelet_client(spec, request),
        KUBELET_SERVING => check_kubelet_serving(spec, request),
        CLIENT => check_usages(spec, "client auth"),
        _ => Ok(()),
    }
}

/// The usages must be exactly digital signature, perhaps key encipherment, and `main`.
fn check_usages(spec: &CertificateSigningRequestSpec, main: &str) -> Result<(), String> {
    let usages = usages(spec);
    let allowed = ["digital signature", "key encipherment", main];
    if !usages.contains(main) || usages.iter().any(|u| !allowed.contains(u)) {
        return Err(format!("usages did not match {allowed:?}"));
    }
    Ok(())
}

fn check_node_subject(request: &CertificateRequest) -> Result<(), String> {
    let subject = request.subject();
    if subject.organizations != [NODES] {
        return Err(format!("organization in subject is not {NODES}"));
    }
    if subject.common_name.strip_prefix(NODE_PREFIX).is_none_or(str::is_empty) {
        return Err(format!("subject common name does not begin with {NODE_PREFIX}"));
    }
    Ok(())
}

pub fn check_kubelet_client(spec: &CertificateSigningRequestSpec, request: &CertificateRequest) -> Result<(), String> {
    check_node_subject(request)?;
    if !request.alt_names().is_empty() {
        return Err("DNS, IP, email and URI subject alternative names are not allowed".into());
    }
    check_usages(spec, "client auth")?;
    if !usages(spec).contains("digital signature") {
        return Err("the usage digital signature is missing".into());
    }
    Ok(())
}

pub fn check_kubelet_serving(spec: &CertificateSigningRequestSpec, request: &CertificateRequest) -> Result<(), String> {
    check_node_subject(request)?;
    if spec.username.as_deref() != Some(&request.subject().common_name) {
        return Err("the requester is not the node in the subject".into());
    }
    let plain = |name: &AltName| matches!(name, AltName::Dns(_) | AltName::Ip(_));
    if request.alt_names().is_empty() || !request.alt_names().iter().all(plain) {
        return Err("one or more DNS or IP subject alternative names are required, and no others allowed".into());
    }
    check_usages(spec, "server auth")
}

pub fn addresses(node: &Node) -> Vec<&str> {
    let addresses = node.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or(&[]);
    addresses.iter().map(|a| a.address.as_str()).collect()
}

/// Whether all names are addresses of the node.
pub fn names_are_of(node: &Node, names: &[AltName]) -> bool {
    let mut own: Vec<AltName> = addresses(node).into_iter().map(AltName::parse).collect();
    own.extend(node.metadata.name.clone().map(AltName::Dns));
    names.iter().all(|name| own.contains(name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use kube1_pki::{PrivateKey, Subject, create_csr};
    use serde_json::json;

    use super::*;

    fn request(subject: &Subject, names: &[AltName]) -> CertificateRequest {
        CertificateRequest::from_pem(&create_csr(subject, names, &PrivateKey::generate().unwrap()).unwrap()).unwrap()
    }

    fn spec(username: &str, usages: &[&str]) -> CertificateSigningRequestSpec {
        serde_json::from_value(json!({"signerName": "s", "request": "", "username": username, "usages": usages}))
            .unwrap()
    }

    #[test]
    fn only_proper_node_requests_are_approved() {
        let node = Subject::new("system:node:n", &[NODES]);
        let (plain, names) = (request(&node, &[]), request(&node, &[AltName::parse("10.0.0.1"), AltName::parse("n")]));
        let client = spec("system:bootstrap:x", &["digital signature", "client auth"]);
        assert!(check_kubelet_client(&client, &plain).is_ok());
        assert!(check_kubelet_client(&client, &names).is_err());
        assert!(check_kubelet_client(&client, &request(&Subject::new("jane", &[NODES]), &[])).is_err());
        let masters = Subject::new("system:node:n", &["system:masters"]);
        assert!(check_kubelet_client(&client, &request(&masters, &[])).is_err());
        assert!(check_kubelet_client(&spec("x", &["digital signature", "server auth"]), &plain).is_err());
        let serving = |user| spec(user, &["digital signature", "server auth"]);
        assert!(check_kubelet_serving(&serving("system:node:n"), &names).is_ok());
        assert!(check_kubelet_serving(&serving("system:node:m"), &names).is_err());
        assert!(check_kubelet_serving(&serving("system:node:n"), &plain).is_err());
        let of = |address: &str| -> Node {
            serde_json::from_value(json!({"metadata": {"name": "n"},
                "status": {"addresses": [{"type": "InternalIP", "address": address}]}}))
            .unwrap()
        };
        assert!(names_are_of(&of("10.0.0.1"), names.alt_names()));
        assert!(!names_are_of(&of("10.0.0.2"), names.alt_names()));
    }
}
