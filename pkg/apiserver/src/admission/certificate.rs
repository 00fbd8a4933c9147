//! Who may approve and sign certificate requests, and what no request may ask for.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube1_api::status::Status;
use serde_json::Value;
use x509_parser::prelude::FromDer;

use super::{Attributes, Operation, Plugin};
use crate::authz::{Authorizer, Decision, is_only_bookkeeping};
use crate::request_info::RequestInfo;
use crate::user::MASTERS;

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Whether the user may do `verb` on the signer, by name or by its whole domain.
async fn permits(authorizer: &dyn Authorizer, attributes: &Attributes, verb: &str, signer: &str) -> bool {
    let domain = signer.split_once('/').map(|(domain, _)| format!("{domain}/*"));
    for name in [Some(signer.to_owned()), domain].into_iter().flatten() {
        let request = RequestInfo {
            is_resource: true,
            verb: verb.into(),
            group: GROUP.into(),
            version: "*".into(),
            resource: "signers".into(),
            name,
            ..RequestInfo::default()
        };
        if authorizer.authorize(&attributes.user, &request).await == Decision::Allow {
            return true;
        }
    }
    false
}

fn signer(object: &Value) -> &str {
    object["spec"]["signerName"].as_str().unwrap_or_default()
}

/// Approving needs verb approve on the signer.
pub struct CertificateApproval {
    authorizer: Arc<dyn Authorizer>,
}

impl CertificateApproval {
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self { authorizer }
    }
}

#[async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.is(GROUP, REQUESTS)
            && attributes.subresource == "approval"
            && attributes.operation == Operation::Update
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let signer = signer(attributes.old.as_ref().unwrap_or(&Value::Null)).to_owned();
        if permits(&*self.authorizer, attributes, "approve", &signer).await {
            return Ok(());
        }
        Err(attributes.forbidden(format!("user not permitted to approve requests with signerName \"{signer}\"")))
    }
}

/// Writing the certificate, or that it failed, needs verb sign on the signer.
pub struct CertificateSigning {
    authorizer: Arc<dyn Authorizer>,
}

impl CertificateSigning {
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self { authorizer }
    }
}

#[async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.is(GROUP, REQUESTS)
            && attributes.subresource == "status"
            && attributes.operation == Operation::Update
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let (Some(new), Some(old)) = (&attributes.object, &attributes.old) else { return Ok(()) };
        let status = |object: &Value, member: &str| object["status"][member].clone();
        let same = |member: &str| status(new, member) == status(old, member);
        if same("certificate") && same("conditions") {
            return Ok(());
        }
        let signer = signer(old).to_owned();
        if permits(&*self.authorizer, attributes, "sign", &signer).await {
            return Ok(());
        }
        Err(attributes.forbidden(format!("user not permitted to sign requests with signerName \"{signer}\"")))
    }
}

/// Writing a ClusterTrustBundle for a signer needs verb attest on the signer. The kind is off by default in 1.36.
pub struct ClusterTrustBundleAttest {
    authorizer: Arc<dyn Authorizer>,
}

impl ClusterTrustBundleAttest {
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self { authorizer }
    }
}

#[async_trait]
impl Plugin for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.writes(GROUP, "clustertrustbundles")
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(bundle) = &attributes.object else { return Ok(()) };
        let signer = signer(bundle).to_owned();
        // The garbage collector and migrations of what is stored attest nothing.
        let kept = attributes.old.as_ref().is_some_and(|old| is_only_bookkeeping(bundle, old));
        if signer.is_empty() || kept || permits(&*self.authorizer, attributes, "attest", &signer).await {
            return Ok(());
        }
        Err(attributes.forbidden(format!("user not permitted to attest for signerName \"{signer}\"")))
    }
}

/// Nobody becomes an administrator by a client certificate of the cluster's own signer.
pub struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.creates(GROUP, REQUESTS)
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(request) = &attributes.object else { return Ok(()) };
        if signer(request) != CLIENT_SIGNER {
            return Ok(());
        }
        let organizations = organizations(request["spec"]["request"].as_str().unwrap_or_default());
        let organizations = organizations.ok_or_else(|| attributes.forbidden("could not parse the request"))?;
        if organizations.iter().any(|o| o == MASTERS) {
            return Err(
                attributes.forbidden(format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"))
            );
        }
        Ok(())
    }
}

/// Organizations in the subject of a request, which is PEM in base64.
fn organizations(request: &str) -> Option<Vec<String>> {
    let pem = STANDARD.decode(request).ok()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents).ok()?;
    let subject = &request.certification_request_info.subject;
    Some(subject.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect())
}
