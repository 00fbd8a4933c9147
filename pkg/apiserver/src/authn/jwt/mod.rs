//! Tokens of outside issuers (OpenID Connect), as an AuthenticationConfiguration describes them.

mod check;
mod claims;
mod config;
pub(super) mod keys;
mod meters;

use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde_json::Value;
use std::sync::Arc;

pub use config::{AnonymousConfig, AuthenticationConfigError, AuthenticationConfiguration, JwtConfig};
pub use meters::JwtMetrics;

use self::claims::Claims;
use self::keys::{KeySet, Signed};
use super::TokenError;
use super::service_account::{check_times, shared_audiences};
use crate::dial::{Address, Target, Trust, get, system_authorities};
use crate::user::UserInfo;

const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// A key that is not known makes the keys be fetched again, but not more often than this.
const REFETCH: Duration = Duration::from_secs(10);
/// Accepts the tokens of one issuer. Its keys are fetched when the first token comes and when they have changed.
pub struct JwtAuthenticator {
    issuer: String,
    discovery_url: String,
    audiences: Vec<String>,
    trust: Trust,
    claims: Claims,
    keys: ArcSwap<KeySet>,
    fetched: tokio::sync::Mutex<Option<Instant>>,
    metrics: JwtMetrics,
}

impl JwtAuthenticator {
    /// `config` must have been checked.
    pub fn new(config: JwtConfig, metrics: JwtMetrics) -> Result<Self, String> {
        let issuer = config.issuer.clone();
        let bundle = match issuer.certificate_authority.as_str() {
            "" => system_authorities(),
            pem => pem.as_bytes().to_vec(),
        };
        let discovery_url = match issuer.discovery_url.as_str() {
            "" => format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/')),
            url => url.to_owned(),
        };
        Ok(Self {
            issuer: issuer.url,
            discovery_url,
            audiences: issuer.audiences,
            trust: Trust::Authorities(bundle),
            claims: Claims::new(config)?,
            keys: ArcSwap::default(),
            fetched: tokio::sync::Mutex::new(None),
            metrics,
        })
    }

    /// The user of a token, `None` when it is not from this issuer.
    pub async fn authenticate(&self, token: &str) -> Result<Option<(UserInfo, i64)>, TokenError> {
        let Some(signed) = Signed::parse(token) else { return Ok(None) };
        if signed.claims["iss"] != self.issuer {
            return Ok(None);
        }
        let started = Instant::now();
        let judged = self.judge(&signed).await;
        self.metrics.judged(&self.issuer, judged.is_ok(), started.elapsed());
        judged.map(Some)
    }

    /// The issuer's URL.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    async fn judge(&self, signed: &Signed<'_>) -> Result<(UserInfo, i64), TokenError> {
        if !self.keys.load().knows(signed) || self.keys.load().is_empty() {
            self.fetch().await?;
        }
        if !self.keys.load().verify(signed) {
            return Err(TokenError::Signature(kube1_pki::JwtError::Signature));
        }
        check_times(&signed.claims)?;
        shared_audiences(&signed.claims["aud"], &self.audiences)?;
        let user = self.claims.user(&signed.claims).map_err(TokenError::Refused)?;
        Ok((user, signed.claims["exp"].as_i64().unwrap_or(0)))
    }

    /// Fetches the issuer's keys, unless that was done just now.
    async fn fetch(&self) -> Result<(), TokenError> {
        let mut fetched = self.fetched.lock().await;
        if fetched.is_some_and(|at| at.elapsed() < REFETCH) {
            return Ok(());
        }
        *fetched = Some(Instant::now());
        let document = self.key_document().await;
        self.metrics.fetched(&self.issuer, document.as_deref().ok());
        let failed = |reason: String| TokenError::Issuer { issuer: self.issuer.clone(), reason };
        let document: Value = serde_json::from_slice(&document.map_err(failed)?).map_err(|e| failed(e.to_string()))?;
        let keys = KeySet::from_jwks(&document);
        if keys.is_empty() {
            return Err(failed("it has no usable key".into()));
        }
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    /// The JWKS document that the issuer's discovery document names.
    async fn key_document(&self) -> Result<Bytes, String> {
        let discovery = self.read(&self.discovery_url).await?;
        let discovery: Value =
            serde_json::from_slice(&discovery).map_err(|e| format!("{}: {e}", self.discovery_url))?;
        if discovery["issuer"] != self.issuer {
            return Err(format!("its discovery document is of the issuer {}", discovery["issuer"]));
        }
        self.read(discovery["jwks_uri"].as_str().ok_or("it names no jwks_uri")?).await
    }

    async fn read(&self, url: &str) -> Result<Bytes, String> {
        let uri: http::Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
        let host = uri.host().ok_or_else(|| format!("{url} has no host"))?;
        if uri.scheme_str() != Some("https") {
            return Err(format!("{url} is not an https URL"));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let target = Target {
            address: Address::Host(bare.to_owned(), uri.port_u16().unwrap_or(443)),
            server_name: bare.to_owned(),
            trust: self.trust.clone(),
            identity: None,
        };
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let answer = get(&target, path, FETCH_TIMEOUT).await.map_err(|e| format!("{url}: {e}"))?;
        if !answer.status.is_success() {
            return Err(format!("{url} answered {}", answer.status));
        }
        Ok(answer.body)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
