//! What is authenticated by others than this cluster: a file of tokens, issuers of tokens, a webhook, and whether the anonymous are let in.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::jwt::{
    AnonymousConfig, AuthenticationConfigError, AuthenticationConfiguration, JwtAuthenticator, JwtMetrics,
};
use super::service_account::ServiceAccountOptions;
use super::token_file::TokenFile;
use super::token_webhook::{TokenWebhook, TokenWebhookOptions};
use super::trust::TrustOptions;

/// The flags of authentication.
#[derive(Clone, Debug, Default)]
pub struct AuthenticationOptions {
    /// An AuthenticationConfiguration; followed while the server runs.
    pub config_file: Option<PathBuf>,
    /// `--token-auth-file`; read at the start.
    pub token_file: Option<PathBuf>,
    pub token_webhook: Option<TokenWebhookOptions>,
    /// `--anonymous-auth`, which the file may not contradict.
    pub anonymous: Option<bool>,
    pub trust: TrustOptions,
    pub service_accounts: ServiceAccountOptions,
}

/// Authenticators of others. What the file says is exchanged as a whole.
pub struct Outside {
    options: AuthenticationOptions,
    /// Tokens of this cluster's own accounts, which no outside issuer may give.
    own_issuers: Vec<String>,
    current: ArcSwap<Current>,
    metrics: JwtMetrics,
    pub(super) tokens: Option<TokenFile>,
    pub(super) webhook: Option<TokenWebhook>,
}

pub(super) struct Current {
    pub jwt: Vec<Arc<JwtAuthenticator>>,
    pub anonymous: AnonymousConfig,
}

impl Outside {
    /// No others; the anonymous are let in everywhere.
    pub fn none() -> Self {
        let current = Current { jwt: Vec::new(), anonymous: AnonymousConfig::everywhere() };
        Self {
            options: AuthenticationOptions::default(),
            own_issuers: Vec::new(),
            current: ArcSwap::from_pointee(current),
            metrics: JwtMetrics::default(),
            tokens: None,
            webhook: None,
        }
    }

    pub fn open(
        options: &AuthenticationOptions,
        own_issuers: &[String],
        metrics: JwtMetrics,
    ) -> Result<Self, AuthenticationConfigError> {
        let current = ArcSwap::from_pointee(load(options, own_issuers, &metrics)?);
        let tokens = options.token_file.as_deref().map(TokenFile::read).transpose()?;
        let webhook = options.token_webhook.as_ref().map(TokenWebhook::new).transpose()?;
        Ok(Self { options: options.clone(), own_issuers: own_issuers.to_vec(), current, metrics, tokens, webhook })
    }

    /// The file to be followed.
    pub fn file(&self) -> Option<PathBuf> {
        self.options.config_file.clone()
    }

    /// Takes the file over again; on error nothing changes.
    pub fn reload(&self) -> Result<(), AuthenticationConfigError> {
        let new = Arc::new(load(&self.options, &self.own_issuers, &self.metrics)?);
        let old = self.current.swap(new.clone());
        let is_kept = |issuer: &str| new.jwt.iter().any(|jwt| jwt.issuer() == issuer);
        let gone = old.jwt.iter().map(|jwt| jwt.issuer()).filter(|issuer| !is_kept(issuer));
        gone.for_each(|issuer| self.metrics.forget(issuer));
        Ok(())
    }

    pub(super) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }
}

fn load(
    options: &AuthenticationOptions,
    own_issuers: &[String],
    metrics: &JwtMetrics,
) -> Result<Current, AuthenticationConfigError> {
    let flag = options.anonymous.map(|enabled| AnonymousConfig { enabled, conditions: Vec::new() });
    let Some(path) = &options.config_file else {
        return Ok(Current { jwt: Vec::new(), anonymous: flag.unwrap_or_else(AnonymousConfig::everywhere) });
    };
    let config = AuthenticationConfiguration::read(path, own_issuers)?;
    let invalid = |problem: String| AuthenticationConfigError::Invalid {
        path: path.display().to_string(),
        problems: vec![problem],
    };
    if config.anonymous.is_some() && flag.is_some() {
        return Err(invalid("anonymous: cannot be set together with --anonymous-auth".into()));
    }
    let anonymous = config.anonymous.or(flag).unwrap_or_else(AnonymousConfig::everywhere);
    let jwt = config.jwt.into_iter().map(|issuer| JwtAuthenticator::new(issuer, metrics.clone()).map(Arc::new));
    Ok(Current { jwt: jwt.collect::<Result<_, _>>().map_err(invalid)?, anonymous })
}
