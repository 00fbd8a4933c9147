//! Flags of the API server's front, under the names that kube-apiserver has for them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use kube1_apiserver::audit::{AuditOptions, BatchOptions, LogOptions, Mode, WebhookOptions};
use kube1_apiserver::authn::{AuthenticationOptions, TokenWebhookOptions};
use kube1_apiserver::authz::{AuthorizationOptions, WebhookFlags};
use kube1_apiserver::http::requests::{RequestOptions, parse_duration};
use kube1_apiserver::server::{EncryptionOptions, Front};

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is no duration such as 90s, 5m or 1h30m"))
}

/// How requests and the writing of audit events wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuditMode {
    Batch,
    Blocking,
    BlockingStrict,
}

impl From<AuditMode> for Mode {
    fn from(mode: AuditMode) -> Self {
        match mode {
            AuditMode::Batch => Self::Batch,
            AuditMode::Blocking => Self::Blocking,
            AuditMode::BlockingStrict => Self::BlockingStrict,
        }
    }
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Auditing")]
pub struct AuditArgs {
    /// Policy (audit.k8s.io/v1) that says how much of which requests is audited; nothing without
    #[arg(long, env = "KUBE1_AUDIT_POLICY_FILE", value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// File that audit events are appended to, one JSON object a line; - for standard output
    #[arg(long, env = "KUBE1_AUDIT_LOG_PATH", value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// Days that old audit logs are kept; 0 for no limit
    #[arg(long, env = "KUBE1_AUDIT_LOG_MAXAGE", default_value_t = 0, value_name = "DAYS")]
    pub audit_log_maxage: u64,
    /// Old audit logs that are kept; 0 for no limit
    #[arg(long, env = "KUBE1_AUDIT_LOG_MAXBACKUP", default_value_t = 0, value_name = "COUNT")]
    pub audit_log_maxbackup: usize,
    /// Megabytes after which a new audit log is begun
    #[arg(long, env = "KUBE1_AUDIT_LOG_MAXSIZE", default_value_t = 100, value_name = "MB")]
    pub audit_log_maxsize: u64,
    /// Compress old audit logs with gzip
    #[arg(long, env = "KUBE1_AUDIT_LOG_COMPRESS")]
    pub audit_log_compress: bool,
    /// Whether requests wait until their events are taken
    #[arg(long, env = "KUBE1_AUDIT_LOG_MODE", value_enum, default_value_t = AuditMode::Blocking)]
    pub audit_log_mode: AuditMode,
    /// Kubeconfig of a server that audit events are sent to
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// Whether requests wait until their events are taken
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_MODE", value_enum, default_value_t = AuditMode::Batch)]
    pub audit_webhook_mode: AuditMode,
    /// Pause before a failed sending is tried again; it grows
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_INITIAL_BACKOFF", value_parser = duration, default_value = "10s", value_name = "TIME")]
    pub audit_webhook_initial_backoff: Duration,
    /// Events that may wait to be sent; more are dropped and counted
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_BATCH_BUFFER_SIZE", default_value_t = 10_000, value_name = "COUNT")]
    pub audit_webhook_batch_buffer_size: usize,
    /// Most events sent at once
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_BATCH_MAX_SIZE", default_value_t = 400, value_name = "COUNT")]
    pub audit_webhook_batch_max_size: usize,
    /// Longest wait before fewer events are sent
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_BATCH_MAX_WAIT", value_parser = duration, default_value = "30s", value_name = "TIME")]
    pub audit_webhook_batch_max_wait: Duration,
    /// Limit how often events are sent
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_BATCH_THROTTLE_ENABLE", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub audit_webhook_batch_throttle_enable: bool,
    /// Batches a second
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_BATCH_THROTTLE_QPS", default_value_t = 10.0, value_name = "RATE")]
    pub audit_webhook_batch_throttle_qps: f64,
    /// Batches sent at once after a pause
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_BATCH_THROTTLE_BURST", default_value_t = 15, value_name = "COUNT")]
    pub audit_webhook_batch_throttle_burst: u32,
}

impl AuditArgs {
    fn options(&self) -> AuditOptions {
        AuditOptions {
            policy_file: self.audit_policy_file.clone(),
            log: self.audit_log_path.as_ref().map(|path| LogOptions {
                path: path.clone(),
                max_age: self.audit_log_maxage,
                max_backups: self.audit_log_maxbackup,
                max_size: self.audit_log_maxsize,
                compress: self.audit_log_compress,
            }),
            log_mode: self.audit_log_mode.into(),
            log_batch: BatchOptions::default(),
            webhook: self.audit_webhook_config_file.as_ref().map(|file| WebhookOptions {
                config_file: file.clone(),
                mode: self.audit_webhook_mode.into(),
                batch: BatchOptions {
                    buffer: self.audit_webhook_batch_buffer_size,
                    max_size: self.audit_webhook_batch_max_size,
                    max_wait: self.audit_webhook_batch_max_wait,
                    throttle: self
                        .audit_webhook_batch_throttle_enable
                        .then_some((self.audit_webhook_batch_throttle_qps, self.audit_webhook_batch_throttle_burst)),
                },
                initial_backoff: self.audit_webhook_initial_backoff,
            }),
        }
    }
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
            flags: self.flags(),
        }
    }

    /// Names and values, as `/flagz` shows them.
    fn flags(&self) -> Vec<(String, String)> {
        let (requests, access, audit) = (&self.requests, &self.access, &self.audit);
        let file = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
        let time = |time: Duration| format!("{time:?}");
        [
            ("request-timeout", time(requests.request_timeout)),
            ("min-request-timeout", requests.min_request_timeout.to_string()),
            ("max-requests-inflight", requests.max_requests_inflight.to_string()),
            ("max-mutating-requests-inflight", requests.max_mutating_requests_inflight.to_string()),
            ("goaway-chance", requests.goaway_chance.to_string()),
            ("shutdown-delay-duration", time(requests.shutdown_delay_duration)),
            ("http2-max-streams-per-connection", requests.http2_max_streams_per_connection.to_string()),
            ("authentication-config", file(&access.authentication_config)),
            ("authentication-token-webhook-config-file", file(&access.authentication_token_webhook_config_file)),
            ("authorization-config", file(&access.authorization_config)),
            ("authorization-mode", self.access.authorization().modes.join(",")),
            ("authorization-webhook-config-file", file(&access.authorization_webhook_config_file)),
            ("audit-policy-file", file(&audit.audit_policy_file)),
            ("audit-log-path", file(&audit.audit_log_path)),
            ("audit-webhook-config-file", file(&audit.audit_webhook_config_file)),
            ("encryption-provider-config", file(&self.encryption.encryption_provider_config)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}
