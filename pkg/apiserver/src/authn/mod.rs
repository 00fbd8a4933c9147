//! Who makes a request: client certificates, tokens, front proxies, impersonation.

mod bootstrap_token;
mod cache;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod headers;
mod impersonation;
mod jwt;
mod outside;
mod request_header;
mod service_account;
mod signer;
mod token_file;
mod token_secret;
mod token_webhook;
mod trust;
mod x509;

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use kube1_api::status::Status;
use kube1_pki::{JwtError, ServiceAccountKeys};
use rustls::pki_types::CertificateDer;

pub use cache::TokenCache;
pub use impersonation::{Impersonated, impersonate};
pub use jwt::{
    AnonymousConfig, AuthenticationConfigError, AuthenticationConfiguration, JwtAuthenticator, JwtConfig, JwtMetrics,
};
pub use outside::{AuthenticationOptions, Outside};
pub use service_account::{ServiceAccountOptions, ServiceAccountTokens, groups as service_account_groups};
pub use signer::{ExternalSigner, SignerError};
pub use token_secret::TokenSecrets;
pub use token_webhook::TokenWebhookOptions;
pub use trust::{ProxyHeaders, Trust, TrustOptions};
pub use x509::{AnyClientCertificate, Authorities, AuthoritiesError, CREDENTIAL_ID, Peer};

use crate::reader::Reader;
use crate::user::UserInfo;

const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// Why a token is refused. It is logged and shown in reviews; the caller of a request learns only of the 401.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token was not made by this cluster")]
    Signature(#[from] JwtError),
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token is meant for other audiences")]
    Audience,
    #[error("the token is malformed: {0}")]
    Claims(&'static str),
    #[error("the token's service account does not exist any more")]
    NoAccount,
    #[error("the object of {0} that the token is bound to does not exist any more")]
    BoundObjectGone(&'static str),
    #[error("there is no such bootstrap token")]
    UnknownBootstrapToken,
    #[error("no authenticator knows this token")]
    Unknown,
    #[error("{0}")]
    Refused(String),
    #[error("the token webhook failed: {0}")]
    Webhook(String),
    #[error("the keys of the issuer {issuer} cannot be had: {reason}")]
    Issuer { issuer: String, reason: String },
}

/// The user of a token, and those of the asked audiences that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUser {
    pub user: Arc<UserInfo>,
    pub audiences: Vec<String>,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// What authentication is configured with.
pub struct Config {
    pub trust: Trust,
    pub service_account_keys: Arc<ServiceAccountKeys>,
    /// Signs new tokens instead of those keys.
    pub signer: Option<Arc<ExternalSigner>>,
    /// The first is put into new tokens, all are accepted.
    pub issuers: Vec<String>,
    /// What tokens for this server are for; the issuers when empty.
    pub api_audiences: Vec<String>,
    pub outside: Outside,
    pub reader: Arc<dyn Reader>,
}

/// Finds the user of a request.
pub struct Authenticator {
    config: Config,
    service_accounts: ServiceAccountTokens,
    cache: TokenCache,
}

impl Authenticator {
    pub fn new(mut config: Config) -> Self {
        if config.api_audiences.is_empty() {
            config.api_audiences = config.issuers.clone();
        }
        let service_accounts = ServiceAccountTokens::new(
            config.service_account_keys.clone(),
            config.issuers.clone(),
            config.reader.clone(),
        );
        Self { service_accounts, cache: TokenCache::default(), config }
    }

    /// What tokens for this server are for.
    pub fn api_audiences(&self) -> &[String] {
        &self.config.api_audiences
    }

    /// For the TLS listener: asks clients for a certificate and lets [`Authenticator::peer`] judge it.
    pub fn certificate_verifier(&self) -> Arc<AnyClientCertificate> {
        let trusted = self.config.trust.current();
        let proxies = trusted.proxies.iter().map(|proxies| &proxies.authorities);
        Arc::new(AnyClientCertificate::new(&std::iter::once(&trusted.clients).chain(proxies).collect::<Vec<_>>()))
    }

    /// Judges the certificates a client showed; to be called once for a connection.
    pub fn peer(&self, chain: &[CertificateDer<'_>]) -> Peer {
        self.config.trust.peer(chain)
    }

    /// Whose certificates are believed.
    pub fn trust(&self) -> &Trust {
        &self.config.trust
    }

    /// The user of a request, `None` when it has no credential and anonymous requests are off, or a 401.
    ///
    /// The front proxy's headers come first, then the client certificate, then a token.
    pub async fn authenticate(&self, parts: &Parts, peer: &Peer) -> Result<Option<Arc<UserInfo>>, Status> {
        let (expired, judged) = (peer.is_expired(), self.config.trust.judge(peer));
        if !expired
            && judged.is_proxy
            && let Some(user) = request_header::user(&parts.headers, self.config.trust.headers())
        {
            return Ok(Some(user.into()));
        }
        if !expired && let Some(user) = &judged.user {
            return Ok(Some(user.clone()));
        }
        if let Some(token) = bearer_token(parts) {
            return match self.authenticate_token(&token, &self.config.api_audiences).await {
                Ok(found) => Ok(Some(found.user.clone())),
                Err(error) => {
                    tracing::debug!(%error, "token refused");
                    Err(Status::unauthorized())
                }
            };
        }
        if expired || judged.rejected {
            return Err(Status::unauthorized());
        }
        Ok(self.config.outside.current().anonymous.admits(parts.uri.path()).then(|| UserInfo::anonymous().into()))
    }

    /// The user of `token` when it is for at least one of `audiences`. A service account's is remembered for ten seconds.
    pub async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Arc<TokenUser>, TokenError> {
        // Looked up each time, so that a deleted one is of no use any more.
        let mut refused = match bootstrap_token::authenticate(token, &*self.config.reader) {
            Ok(Some(user)) => return self.for_this_server(user, audiences).map(Arc::new),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if let Some(found) = self.cache.get(token, audiences) {
            return Ok(found);
        }
        let mut known = self.service_accounts.authenticate(token, audiences);
        if let (Err(TokenError::Signature(JwtError::UnknownKey)), Some(signer)) = (&known, &self.config.signer) {
            match Box::pin(signer.fetch()).await {
                Ok(()) => known = self.service_accounts.authenticate(token, audiences),
                Err(error) => tracing::warn!(%error, "the keys of the service that signs tokens cannot be had"),
            }
        }
        let found = known.unwrap_or_else(|error| {
            refused = Some(error);
            None
        });
        let found = match found {
            Some(found) => found,
            // Boxed, since few requests need it and all would be as large as it is.
            None => Box::pin(self.outside_user(token, audiences, refused)).await?,
        };
        let found = Arc::new(found);
        self.cache.put(token, audiences, &found);
        Ok(found)
    }

    /// Asks the others. Each may know a token that another, of which the first is `refused`, does not take.
    async fn outside_user(
        &self,
        token: &str,
        audiences: &[String],
        mut refused: Option<TokenError>,
    ) -> Result<TokenUser, TokenError> {
        let outside = &self.config.outside;
        if let Some(user) = outside.tokens.as_ref().and_then(|tokens| tokens.user(token)) {
            return self.for_this_server(user.clone(), audiences);
        }
        for issuer in &outside.current().jwt {
            match issuer.authenticate(token).await {
                Ok(Some((user, not_after))) => {
                    return Ok(TokenUser { not_after, ..self.for_this_server(user, audiences)? });
                }
                Ok(None) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        if let Some(webhook) = &outside.webhook {
            match webhook.authenticate(token, audiences).await? {
                Some((user, None)) => return self.for_this_server(user, audiences),
                Some((user, Some(told))) => {
                    let audiences = audiences.iter().filter(|a| told.contains(a)).cloned().collect();
                    return Ok(TokenUser { user: user.into(), audiences, not_after: i64::MAX });
                }
                None => {}
            }
        }
        Err(refused.unwrap_or(TokenError::Unknown))
    }

    /// Authenticators of others, which may change while the server runs.
    pub fn outside(&self) -> &Outside {
        &self.config.outside
    }

    /// Forgets which tokens were good.
    pub fn forget(&self) {
        self.cache.clear();
    }

    /// Tokens without audiences of this cluster are for this server.
    fn for_this_server(&self, user: UserInfo, audiences: &[String]) -> Result<TokenUser, TokenError> {
        let own = audiences.iter().filter(|a| self.config.api_audiences.contains(a));
        let audiences: Vec<String> = own.cloned().collect();
        if audiences.is_empty() {
            return Err(TokenError::Audience);
        }
        Ok(TokenUser { user: user.into(), audiences, not_after: i64::MAX })
    }
}

/// The token of `Authorization: Bearer`, or of a websocket's subprotocol.
fn bearer_token(parts: &Parts) -> Option<Cow<'_, str>> {
    if let Some(value) = parts.headers.get(AUTHORIZATION) {
        let value = std::str::from_utf8(value.as_bytes()).ok().filter(|value| value.is_ascii())?;
        let (scheme, token) = value.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token.into());
    }
    let offered = parts.headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let encoded = offered.flat_map(|v| v.split(',')).find_map(|p| p.trim().strip_prefix(WEBSOCKET_TOKEN))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok().map(Cow::Owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::Request;
    use kube1_pki::{Authority, LeafProfile, PrivateKey, Subject, Usage};

    use super::*;
    use crate::reader::testing::Objects;

    fn authenticator(ca: &Authority, proxy_ca: &Authority) -> Authenticator {
        Authenticator::new(Config {
            trust: Trust::open(ca.certificate_pem(), Some(proxy_ca.certificate_pem()), TrustOptions::default())
                .unwrap(),
            service_account_keys: Arc::new(ServiceAccountKeys::new(PrivateKey::generate().unwrap())),
            signer: None,
            issuers: vec!["https://k".into()],
            api_audiences: vec![],
            outside: Outside::none(),
            reader: Arc::new(Objects::default()),
        })
    }

    #[tokio::test]
    async fn credentials_are_tried_in_order_and_a_bad_one_is_a_401() {
        let (ca, proxy_ca) = (Authority::create("a").unwrap(), Authority::create("b").unwrap());
        let authn = authenticator(&ca, &proxy_ca);
        let peer = |ca: &Authority, name: &str| {
            let subject = Subject::new(name, &[]);
            let leaf = ca.issue(&LeafProfile { subject, usages: vec![Usage::ClientAuth], alt_names: vec![] }).unwrap();
            authn.peer(&[leaf.certificate_der().unwrap()])
        };
        let other = Authority::create("c").unwrap();
        let remote: &[(&str, &str)] =
            &[("x-remote-user", "bob"), ("x-remote-group", "dev"), ("x-remote-extra-a%2Fb", "c")];
        let socket = format!("{WEBSOCKET_TOKEN}{}, v4.channel.k8s.io", URL_SAFE_NO_PAD.encode("abc"));
        for (peer, headers, expected) in [
            (Peer::default(), &[][..], Ok("system:anonymous")),
            (peer(&ca, "alice"), &[], Ok("alice")),
            (peer(&ca, "alice"), remote, Ok("alice")),
            (peer(&proxy_ca, "front-proxy-client"), remote, Ok("bob")),
            (peer(&proxy_ca, "someone"), remote, Ok("system:anonymous")),
            (Peer::default(), remote, Ok("system:anonymous")),
            (peer(&other, "eve"), &[], Err(401)),
            (Peer::default(), &[("authorization", "Bearer abc")], Err(401)),
            (Peer::default(), &[("authorization", "Bearer ")], Ok("system:anonymous")),
            (Peer::default(), &[("sec-websocket-protocol", socket.as_str())], Err(401)),
            (Peer::default(), &[("authorization", "Basic abc")], Ok("system:anonymous")),
        ] {
            let mut request = Request::builder().uri("/");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let found = authn.authenticate(&parts, &peer).await;
            let found = found.map(|user| user.unwrap().name.clone()).map_err(|status| status.code());
            assert_eq!(found, expected.map(str::to_owned), "{headers:?}");
        }
    }
}
