//! Who may ask this node: the apiserver by its certificate, and others by a token that the apiserver vouches for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use kube1_pki::ReloadingCertificate;
use kube1_supervisor::BoxError;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::node::Node;

/// How long an answer about a token is believed.
const BELIEVED: Duration = Duration::from_secs(60);
const REMEMBERED: usize = 256;

/// TLS that shows the node's certificate and checks a client's, if it shows one.
pub(super) fn tls(serving: Arc<ReloadingCertificate>, ca_pem: &str) -> Result<rustls::ServerConfig, BoxError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    let builder =
        rustls::ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if roots.is_empty() {
        builder.with_no_client_auth()
    } else {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
    };
    let mut config = builder.with_cert_resolver(serving);
    // Upgraded connections need HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Who a verified client certificate names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Caller {
    name: Option<String>,
    groups: Vec<String>,
}

impl Caller {
    pub fn of(certificates: Option<&[CertificateDer<'_>]>) -> Self {
        let Some(der) = certificates.and_then(|c| c.first()) else { return Self::default() };
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Self::default() };
        let subject = certificate.subject();
        let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().ok().map(str::to_owned);
        Self {
            name: subject.iter_common_name().filter_map(text).next(),
            groups: subject.iter_organization().filter_map(text).collect(),
        }
    }
}

/// What a refused client is told.
type Refusal = (StatusCode, String);

/// An answer and when it was given.
type Belief = (Instant, Result<(), StatusCode>);

pub(super) struct Authenticator {
    client: kube::Client,
    believed: Mutex<HashMap<[u8; 32], Belief>>,
}

impl Authenticator {
    pub fn new(client: kube::Client) -> Self {
        Self { client, believed: Mutex::default() }
    }

    /// Whether the client may do this. Certificates of `system:masters` may do all; others are asked about.
    pub async fn allow(
        &self,
        node: &Node,
        caller: &Caller,
        bearer: Option<&str>,
        verb: &str,
        what: &str,
    ) -> Result<(), Refusal> {
        if caller.groups.iter().any(|g| g == "system:masters") {
            return Ok(());
        }
        let unauthorized = || (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned());
        let token = bearer.and_then(|h| h.strip_prefix("Bearer "));
        if caller.name.is_none() && token.is_none() {
            return Err(unauthorized());
        }
        let resources = subresources(what);
        let who = format!(
            "{}\n{:?}\n{}\n{verb}\n{}",
            caller.name.as_deref().unwrap_or_default(),
            caller.groups,
            token.unwrap_or_default(),
            resources[0],
        );
        let key: [u8; 32] = Sha256::digest(who).into();
        let known = self.believed.lock().get(&key).filter(|(at, _)| at.elapsed() < BELIEVED).map(|(_, answer)| *answer);
        let answer = match known {
            Some(answer) => answer,
            None => {
                let answer = self.ask(node, caller, token, verb, resources).await.map_err(|error| {
                    tracing::warn!(%error, "cannot ask the apiserver about a client");
                    (StatusCode::INTERNAL_SERVER_ERROR, "the apiserver cannot be asked about this client".to_owned())
                })?;
                let mut believed = self.believed.lock();
                if believed.len() >= REMEMBERED {
                    believed.retain(|_, (at, _)| at.elapsed() < BELIEVED);
                }
                if believed.len() < REMEMBERED {
                    believed.insert(key, (Instant::now(), answer));
                }
                answer
            }
        };
        answer.map_err(|code| match code {
            StatusCode::UNAUTHORIZED => unauthorized(),
            code => (code, format!("Forbidden (verb={verb}, resource=nodes, subresource(s)={resources:?})")),
        })
    }

    async fn ask(
        &self,
        node: &Node,
        caller: &Caller,
        token: Option<&str>,
        verb: &str,
        subresources: &[&str],
    ) -> Result<Result<(), StatusCode>, kube::Error> {
        let user = match (&caller.name, token) {
            (Some(name), _) => UserInfo {
                username: Some(name.clone()),
                groups: Some(caller.groups.iter().cloned().chain(["system:authenticated".to_owned()]).collect()),
                ..UserInfo::default()
            },
            (None, Some(token)) => {
                let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
                let review = TokenReview { spec, ..TokenReview::default() };
                let reviews: Api<TokenReview> = Api::all(self.client.clone());
                let status = reviews.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
                match status.user.filter(|_| status.authenticated == Some(true)) {
                    Some(user) => user,
                    None => return Ok(Err(StatusCode::UNAUTHORIZED)),
                }
            }
            (None, None) => return Ok(Err(StatusCode::UNAUTHORIZED)),
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        for subresource in subresources {
            let review = review(node, &user, verb, subresource);
            if reviews.create(&PostParams::default(), &review).await?.status.is_some_and(|s| s.allowed) {
                return Ok(Ok(()));
            }
        }
        Ok(Err(StatusCode::FORBIDDEN))
    }
}

/// Asks whether a user may do this with a subresource of the node.
fn review(node: &Node, user: &UserInfo, verb: &str, subresource: &str) -> SubjectAccessReview {
    let spec = SubjectAccessReviewSpec {
        user: user.username.clone(),
        groups: user.groups.clone(),
        uid: user.uid.clone(),
        extra: user.extra.clone(),
        resource_attributes: Some(ResourceAttributes {
            name: Some(node.config.node_name.clone()),
            resource: Some("nodes".to_owned()),
            subresource: Some(subresource.to_owned()),
            verb: Some(verb.to_owned()),
            version: Some("v1".to_owned()),
            ..ResourceAttributes::default()
        }),
        ..SubjectAccessReviewSpec::default()
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}

/// Under which subresources of the node a path is permitted; one of them is enough. Those that upstream split from `proxy`
/// (KEP-2862) are still permitted under it.
fn subresources(first: &str) -> &'static [&'static str] {
    match first {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        "statusz" => &["statusz"],
        "flagz" => &["flagz"],
        "healthz" => &["healthz", "proxy"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use kube1_pki::{Authority, LeafProfile, Subject, Usage};

    use super::*;

    #[test]
    fn a_certificate_names_user_and_groups() {
        let ca = Authority::create("ca").unwrap();
        let subject = Subject::new("kube-apiserver-kubelet-client", &["system:masters"]);
        let leaf = ca.issue(&LeafProfile { subject, usages: vec![Usage::ClientAuth], alt_names: vec![] }).unwrap();
        let caller = Caller::of(Some(&[leaf.certificate_der().unwrap()]));
        assert_eq!(caller.name.as_deref(), Some("kube-apiserver-kubelet-client"));
        assert_eq!(caller.groups, ["system:masters"]);
        assert_eq!(Caller::of(None), Caller::default());
    }
}
