//! Flags of the API server's front, under the names that kube-apiserver has for them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kube1_apiserver::authn::{AuthenticationOptions, TokenWebhookOptions};
use kube1_apiserver::authz::{AuthorizationOptions, WebhookFlags};
use kube1_apiserver::http::requests::{RequestOptions, parse_duration};
use kube1_apiserver::server::{EncryptionOptions, Front};

use super::audit::AuditArgs;

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is no duration such as 90s, 5m or 1h30m"))
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Authentication and authorization")]
pub struct AccessArgs {
    /// AuthenticationConfiguration: outside issuers whose tokens are accepted (OpenID Connect), anonymous requests. Followed
    /// while the server runs
    #[arg(long, env = "KUBE1_AUTHENTICATION_CONFIG", value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    /// Whether requests without a credential are let in as system:anonymous
    #[arg(long, env = "KUBE1_ANONYMOUS_AUTH", value_name = "BOOL")]
    pub anonymous_auth: Option<bool>,
    /// Kubeconfig of a server that is asked whose tokens are
    #[arg(long, env = "KUBE1_AUTHENTICATION_TOKEN_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// How long its answers are remembered
    #[arg(long, env = "KUBE1_AUTHENTICATION_TOKEN_WEBHOOK_CACHE_TTL", value_parser = duration, default_value = "2m", value_name = "TIME")]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// Version of the TokenReviews sent to it
    #[arg(long, env = "KUBE1_AUTHENTICATION_TOKEN_WEBHOOK_VERSION", default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    pub authentication_token_webhook_version: String,
    /// AuthorizationConfiguration: the authorizers that are asked, webhooks among them, in order. Followed while the server
    /// runs
    #[arg(long, env = "KUBE1_AUTHORIZATION_CONFIG", value_name = "FILE", conflicts_with_all = ["authorization_mode", "authorization_webhook_config_file"])]
    pub authorization_config: Option<PathBuf>,
    /// Authorizers that are asked, in order: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny [default: Node,RBAC]
    #[arg(long, env = "KUBE1_AUTHORIZATION_MODE", value_delimiter = ',', value_name = "MODE")]
    pub authorization_mode: Vec<String>,
    /// Kubeconfig of the server that the mode Webhook asks
    #[arg(long, env = "KUBE1_AUTHORIZATION_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// Version of the SubjectAccessReviews sent to it
    #[arg(long, env = "KUBE1_AUTHORIZATION_WEBHOOK_VERSION", default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    pub authorization_webhook_version: String,
    /// How long what it allowed is remembered
    #[arg(long, env = "KUBE1_AUTHORIZATION_WEBHOOK_CACHE_AUTHORIZED_TTL", value_parser = duration, default_value = "5m", value_name = "TIME")]
    pub authorization_webhook_cache_authorized_ttl: Duration,
    /// How long what it did not allow is remembered
    #[arg(long, env = "KUBE1_AUTHORIZATION_WEBHOOK_CACHE_UNAUTHORIZED_TTL", value_parser = duration, default_value = "30s", value_name = "TIME")]
    pub authorization_webhook_cache_unauthorized_ttl: Duration,
}

impl AccessArgs {
    fn authorization(&self) -> AuthorizationOptions {
        let default = AuthorizationOptions::default();
        AuthorizationOptions {
            config_file: self.authorization_config.clone(),
            modes: if self.authorization_mode.is_empty() { default.modes } else { self.authorization_mode.clone() },
            webhook: self.authorization_webhook_config_file.as_ref().map(|file| WebhookFlags {
                config_file: file.clone(),
                version: self.authorization_webhook_version.clone(),
                authorized_ttl: self.authorization_webhook_cache_authorized_ttl,
                unauthorized_ttl: self.authorization_webhook_cache_unauthorized_ttl,
            }),
        }
    }

    fn authentication(&self) -> AuthenticationOptions {
        AuthenticationOptions {
            config_file: self.authentication_config.clone(),
            token_webhook: self.authentication_token_webhook_config_file.as_ref().map(|file| TokenWebhookOptions {
                config_file: file.clone(),
                version: self.authentication_token_webhook_version.clone(),
                cache_ttl: self.authentication_token_webhook_cache_ttl,
            }),
            anonymous: self.anonymous_auth,
        }
    }
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Requests")]
pub struct RequestArgs {
    /// How long a request may take that is not a watch or a stream
    #[arg(long, env = "KUBE1_REQUEST_TIMEOUT", value_parser = duration, default_value = "1m", value_name = "TIME")]
    pub request_timeout: Duration,
    /// Seconds after which watches without a timeout of their own end at the earliest, and after twice this at the latest
    #[arg(long, env = "KUBE1_MIN_REQUEST_TIMEOUT", default_value_t = 1800, value_name = "SECONDS")]
    pub min_request_timeout: u64,
    /// Reading requests handled at once; with --max-mutating-requests-inflight the seats of priority and fairness
    #[arg(long, env = "KUBE1_MAX_REQUESTS_INFLIGHT", default_value_t = 400, value_name = "COUNT")]
    pub max_requests_inflight: u32,
    /// Changing requests handled at once
    #[arg(long, env = "KUBE1_MAX_MUTATING_REQUESTS_INFLIGHT", default_value_t = 200, value_name = "COUNT")]
    pub max_mutating_requests_inflight: u32,
    /// Chance that an HTTP/2 client is told to connect anew, so that clients spread over several servers; at most 0.02
    #[arg(long, env = "KUBE1_GOAWAY_CHANCE", default_value_t = 0.0, value_parser = chance, value_name = "CHANCE")]
    pub goaway_chance: f64,
    /// How long requests are still taken after shutdown began, while /readyz already fails
    #[arg(long, env = "KUBE1_SHUTDOWN_DELAY_DURATION", value_parser = duration, default_value = "0s", value_name = "TIME")]
    pub shutdown_delay_duration: Duration,
    /// Requests of one HTTP/2 connection at a time
    #[arg(long, env = "KUBE1_HTTP2_MAX_STREAMS_PER_CONNECTION", default_value_t = 1000, value_name = "COUNT")]
    pub http2_max_streams_per_connection: u32,
}

fn chance(text: &str) -> Result<f64, String> {
    let chance: f64 = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    if (0.0..=0.02).contains(&chance) { Ok(chance) } else { Err("must lie between 0 and 0.02".to_owned()) }
}

impl RequestArgs {
    fn options(&self) -> RequestOptions {
        RequestOptions {
            timeout: self.request_timeout,
            min_watch_timeout: Duration::from_secs(self.min_request_timeout),
            max_inflight: self.max_requests_inflight,
            max_mutating_inflight: self.max_mutating_requests_inflight,
            goaway_chance: self.goaway_chance,
            shutdown_delay: self.shutdown_delay_duration,
            http2_max_streams: self.http2_max_streams_per_connection,
            ..RequestOptions::default()
        }
    }
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Encryption at rest")]
pub struct EncryptionArgs {
    /// EncryptionConfiguration: which resources are kept encrypted by which keys; without it, Secrets by a key of this server
    #[arg(long, env = "KUBE1_ENCRYPTION_PROVIDER_CONFIG", value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Follow that file while the server runs
    #[arg(long, env = "KUBE1_ENCRYPTION_PROVIDER_CONFIG_AUTOMATIC_RELOAD", requires = "encryption_provider_config")]
    pub encryption_provider_config_automatic_reload: bool,
}

/// All flags of the front.
#[derive(Clone, Debug, Args)]
pub struct FrontArgs {
    #[command(flatten)]
    pub access: AccessArgs,
    #[command(flatten)]
    pub audit: AuditArgs,
    #[command(flatten)]
    pub encryption: EncryptionArgs,
    #[command(flatten)]
    pub requests: RequestArgs,
}

impl FrontArgs {
    pub fn front(&self) -> Front {
        Front {
            requests: self.requests.options(),
            authentication: self.access.authentication(),
            authorization: self.access.authorization(),
            audit: self.audit.options(),
            encryption: EncryptionOptions {
                config_file: self.encryption.encryption_provider_config.clone(),
                automatic_reload: self.encryption.encryption_provider_config_automatic_reload,
            },
            flags: Vec::new(),
        }
    }
}
