//! Flags of the API server's front, under the names that kube-apiserver has for them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kube1_apiserver::admission::AdmissionOptions;
use kube1_apiserver::authn::{
    AuthenticationOptions, ProxyHeaders, ServiceAccountOptions, TokenWebhookOptions, TrustOptions,
};
use kube1_apiserver::authz::{AuthorizationOptions, WebhookFlags};
use kube1_apiserver::http::requests::{RequestOptions, parse_duration};
use kube1_apiserver::http::tls::{CipherSuite, TlsOptions, TlsVersion};
use kube1_apiserver::server::{EncryptionOptions, Front, ServingOptions};
use kube1_pki::{CertificateFiles, ServiceAccountKeyFiles};

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
    /// Tokens and their users, a line each: TOKEN,NAME,UID,"GROUP,…"
    #[arg(long, env = "KUBE1_TOKEN_AUTH_FILE", value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,
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
    /// Authorizers that are asked, in order: Node, RBAC, Webhook, ABAC, AlwaysAllow, AlwaysDeny [default: Node,RBAC]
    #[arg(long, env = "KUBE1_AUTHORIZATION_MODE", value_delimiter = ',', value_name = "MODE")]
    pub authorization_mode: Vec<String>,
    /// Policies of the mode ABAC, one in JSON on each line
    #[arg(long, env = "KUBE1_AUTHORIZATION_POLICY_FILE", value_name = "FILE")]
    pub authorization_policy_file: Option<PathBuf>,
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

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Certificates and keys")]
pub struct KeyArgs {
    /// Authorities of client certificates beside the cluster's own (PEM). Followed while the server runs
    #[arg(long, env = "KUBE1_CLIENT_CA_FILE", value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Authorities of front proxies beside the cluster's own (PEM). Followed while the server runs
    #[arg(long, env = "KUBE1_REQUESTHEADER_CLIENT_CA_FILE", value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names that front proxies by those authorities may have; any without
    #[arg(long, env = "KUBE1_REQUESTHEADER_ALLOWED_NAMES", value_delimiter = ',', value_name = "NAME")]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers in which front proxies name the user, the first that says anything counts
    #[arg(long, env = "KUBE1_REQUESTHEADER_USERNAME_HEADERS", value_delimiter = ',', default_value = "X-Remote-User", value_parser = header, value_name = "HEADER")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers in which front proxies tell the user's uid
    #[arg(long, env = "KUBE1_REQUESTHEADER_UID_HEADERS", value_delimiter = ',', default_value = "X-Remote-Uid", value_parser = header, value_name = "HEADER")]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers in which front proxies tell the user's groups
    #[arg(long, env = "KUBE1_REQUESTHEADER_GROUP_HEADERS", value_delimiter = ',', default_value = "X-Remote-Group", value_parser = header, value_name = "HEADER")]
    pub requestheader_group_headers: Vec<String>,
    /// How headers begin in which front proxies tell more about the user
    #[arg(long, env = "KUBE1_REQUESTHEADER_EXTRA_HEADERS_PREFIX", value_delimiter = ',', default_value = "X-Remote-Extra-", value_parser = header, value_name = "PREFIX")]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Keys by which service-account tokens are verified beside the cluster's own (PEM); may be repeated. Followed while the
    /// server runs
    #[arg(long, env = "KUBE1_SERVICE_ACCOUNT_KEY_FILE", value_delimiter = ',', value_name = "FILE")]
    pub service_account_key_file: Vec<PathBuf>,
    /// Key that signs service-account tokens instead of the cluster's own (PEM). Followed while the server runs
    #[arg(long, env = "KUBE1_SERVICE_ACCOUNT_SIGNING_KEY_FILE", value_name = "FILE")]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Socket of a service that signs service-account tokens and tells their keys, instead of keys here: a path, or @NAME in
    /// the abstract namespace
    #[arg(long, env = "KUBE1_SERVICE_ACCOUNT_SIGNING_ENDPOINT", value_name = "SOCKET", value_parser = socket, conflicts_with_all = ["service_account_key_file", "service_account_signing_key_file"])]
    pub service_account_signing_endpoint: Option<PathBuf>,
    /// Issuer of service-account tokens; may be repeated: the first is put into new tokens, all are accepted [default: https://kubernetes.default.svc.DOMAIN]
    #[arg(long, env = "KUBE1_SERVICE_ACCOUNT_ISSUER", value_delimiter = ',', value_name = "URL")]
    pub service_account_issuer: Vec<String>,
    /// Where others find the keys of tokens [default: below the issuer]
    #[arg(long, env = "KUBE1_SERVICE_ACCOUNT_JWKS_URI", value_name = "URL")]
    pub service_account_jwks_uri: Option<String>,
    /// Longest life of a token that is asked for
    #[arg(long, env = "KUBE1_SERVICE_ACCOUNT_MAX_TOKEN_EXPIRATION", value_parser = token_life, value_name = "TIME")]
    pub service_account_max_token_expiration: Option<Duration>,
    /// Let the tokens of pods, which are renewed every hour, live for a year, for clients that do not read them again
    #[arg(long, env = "KUBE1_SERVICE_ACCOUNT_EXTEND_TOKEN_EXPIRATION", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub service_account_extend_token_expiration: bool,
    /// What tokens for this server are for; may be repeated [default: the issuers]
    #[arg(long, env = "KUBE1_API_AUDIENCES", value_delimiter = ',', value_name = "AUDIENCE")]
    pub api_audiences: Vec<String>,
    /// Certificate shown to clients instead of the cluster's own (PEM, with those between it and its authority). Agents and
    /// pods find the server by its address and trust the cluster's authority: for others' certificates see --tls-sni-cert-key.
    /// Followed while the server runs
    #[arg(long, env = "KUBE1_TLS_CERT_FILE", value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of that certificate (PEM). Followed while the server runs
    #[arg(long, env = "KUBE1_TLS_PRIVATE_KEY_FILE", value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Least version of TLS: VersionTLS12 or VersionTLS13
    #[arg(long, env = "KUBE1_TLS_MIN_VERSION", default_value = "VersionTLS12", value_name = "VERSION")]
    pub tls_min_version: TlsVersion,
    /// Cipher suites of TLS 1.2, by their names in Go [default: all that are strong]
    #[arg(long, env = "KUBE1_TLS_CIPHER_SUITES", value_delimiter = ',', value_name = "SUITE")]
    pub tls_cipher_suites: Vec<CipherSuite>,
    /// Certificate and key shown to clients that ask for its names, or for those given; may be repeated. Followed while the
    /// server runs
    #[arg(long, env = "KUBE1_TLS_SNI_CERT_KEY", value_delimiter = ';', value_parser = named_certificate, value_name = "CERT,KEY[:NAME,…]")]
    pub tls_sni_cert_key: Vec<CertificateFiles>,
}

fn header(text: &str) -> Result<String, String> {
    let name = text.trim().to_ascii_lowercase();
    let fine = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if fine { Ok(name) } else { Err(format!("{text:?} is no name of a header")) }
}

fn socket(text: &str) -> Result<PathBuf, String> {
    let fine = text.starts_with('/') || text.strip_prefix('@').is_some_and(|name| !name.is_empty());
    let why =
        "should be a valid location on the filesystem or must be prefixed with @ to name UDS in abstract namespace";
    if fine { Ok(text.into()) } else { Err(why.to_owned()) }
}

fn token_life(text: &str) -> Result<Duration, String> {
    let life = duration(text)?;
    let fine = (3600..=1 << 32).contains(&life.as_secs());
    if fine { Ok(life) } else { Err("must lie between 1h and 2^32 seconds".to_owned()) }
}

fn named_certificate(text: &str) -> Result<CertificateFiles, String> {
    let (files, names) = text.split_once(':').unwrap_or((text, ""));
    let (certificate, key) = files.split_once(',').ok_or("expected CERT,KEY or CERT,KEY:NAME,…")?;
    if certificate.is_empty() || key.is_empty() {
        return Err("expected CERT,KEY or CERT,KEY:NAME,…".to_owned());
    }
    let names = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(CertificateFiles { certificate: certificate.into(), key: key.into(), names })
}

impl KeyArgs {
    fn serving(&self) -> ServingOptions {
        let pair = self.tls_cert_file.clone().zip(self.tls_private_key_file.clone());
        ServingOptions {
            default: pair.map(|(certificate, key)| CertificateFiles { certificate, key, names: Vec::new() }),
            named: self.tls_sni_cert_key.clone(),
            tls: TlsOptions { min_version: self.tls_min_version, suites: self.tls_cipher_suites.clone() },
        }
    }

    fn trust(&self) -> TrustOptions {
        TrustOptions {
            client_ca_file: self.client_ca_file.clone(),
            proxy_ca_file: self.requestheader_client_ca_file.clone(),
            proxy_names: self.requestheader_allowed_names.clone(),
            headers: ProxyHeaders {
                user: self.requestheader_username_headers.clone(),
                uid: self.requestheader_uid_headers.clone(),
                group: self.requestheader_group_headers.clone(),
                extra_prefix: self.requestheader_extra_headers_prefix.clone(),
            },
        }
    }

    fn service_accounts(&self) -> ServiceAccountOptions {
        ServiceAccountOptions {
            key_files: ServiceAccountKeyFiles {
                signing: self.service_account_signing_key_file.clone(),
                accepted: self.service_account_key_file.clone(),
            },
            signing_endpoint: self.service_account_signing_endpoint.clone(),
            issuers: self.service_account_issuer.clone(),
            api_audiences: self.api_audiences.clone(),
            jwks_uri: self.service_account_jwks_uri.clone(),
            max_expiration: self.service_account_max_token_expiration,
            extend_expiration: self.service_account_extend_token_expiration,
        }
    }
}

impl AccessArgs {
    fn authorization(&self) -> AuthorizationOptions {
        let default = AuthorizationOptions::default();
        AuthorizationOptions {
            config_file: self.authorization_config.clone(),
            modes: if self.authorization_mode.is_empty() { default.modes } else { self.authorization_mode.clone() },
            policy_file: self.authorization_policy_file.clone(),
            webhook: self.authorization_webhook_config_file.as_ref().map(|file| WebhookFlags {
                config_file: file.clone(),
                version: self.authorization_webhook_version.clone(),
                authorized_ttl: self.authorization_webhook_cache_authorized_ttl,
                unauthorized_ttl: self.authorization_webhook_cache_unauthorized_ttl,
            }),
        }
    }

    fn authentication(&self, keys: &KeyArgs) -> AuthenticationOptions {
        AuthenticationOptions {
            config_file: self.authentication_config.clone(),
            token_file: self.token_auth_file.clone(),
            token_webhook: self.authentication_token_webhook_config_file.as_ref().map(|file| TokenWebhookOptions {
                config_file: file.clone(),
                version: self.authentication_token_webhook_version.clone(),
                cache_ttl: self.authentication_token_webhook_cache_ttl,
            }),
            anonymous: self.anonymous_auth,
            trust: keys.trust(),
            service_accounts: keys.service_accounts(),
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

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Admission")]
pub struct AdmissionArgs {
    /// AdmissionConfiguration: how admission plugins are set up
    #[arg(long, env = "KUBE1_ADMISSION_CONTROL_CONFIG_FILE", value_name = "FILE")]
    pub admission_control_config_file: Option<PathBuf>,
    /// Admission plugins beside those that are on by default
    #[arg(long, env = "KUBE1_ENABLE_ADMISSION_PLUGINS", value_delimiter = ',', value_name = "NAME")]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins that are left out
    #[arg(long, env = "KUBE1_DISABLE_ADMISSION_PLUGINS", value_delimiter = ',', value_name = "NAME")]
    pub disable_admission_plugins: Vec<String>,
}

/// All flags of the front.
#[derive(Clone, Debug, Args)]
pub struct FrontArgs {
    #[command(flatten)]
    pub access: AccessArgs,
    #[command(flatten)]
    pub keys: KeyArgs,
    #[command(flatten)]
    pub admission: AdmissionArgs,
    #[command(flatten)]
    pub audit: AuditArgs,
    #[command(flatten)]
    pub encryption: EncryptionArgs,
    #[command(flatten)]
    pub requests: RequestArgs,
    /// Feature gates, each as it is: kube1 has what is on by default in 1.36, and none of it can be changed. Other wishes are
    /// refused
    #[arg(long, env = "KUBE1_FEATURE_GATES", value_delimiter = ',', value_parser = feature_gate, value_name = "NAME=BOOL")]
    pub feature_gates: Vec<String>,
}

fn feature_gate(text: &str) -> Result<String, String> {
    kube1_api::features::check(text).map(|()| text.to_owned())
}

impl FrontArgs {
    pub fn front(&self) -> Front {
        Front {
            requests: self.requests.options(),
            authentication: self.access.authentication(&self.keys),
            authorization: self.access.authorization(),
            admission: AdmissionOptions {
                config_file: self.admission.admission_control_config_file.clone(),
                enabled: self.admission.enable_admission_plugins.clone(),
                disabled: self.admission.disable_admission_plugins.clone(),
            },
            audit: self.audit.options(),
            encryption: EncryptionOptions {
                config_file: self.encryption.encryption_provider_config.clone(),
                automatic_reload: self.encryption.encryption_provider_config_automatic_reload,
            },
            serving: self.keys.serving(),
            tracing_config_file: None,
            flags: Vec::new(),
        }
    }
}
