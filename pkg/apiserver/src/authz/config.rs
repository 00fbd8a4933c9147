//! AuthorizationConfiguration (`apiserver.config.k8s.io`): which authorizers are asked, in which order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube1_api::cel::Env;
use kube1_api::expression::Expression;
use kube1_api::field::{FieldError, FieldPath};
use serde::{Deserialize, Deserializer};

use crate::http::requests::parse_duration;

const API_VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];
const TYPES: [&str; 6] = [ABAC, "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
/// The mode that needs `--authorization-policy-file`.
const ABAC: &str = "ABAC";
const CONDITIONS_MAX: usize = 64;

/// The flags of authorization.
#[derive(Clone, Debug)]
pub struct AuthorizationOptions {
    /// An AuthorizationConfiguration; followed while the server runs. Without it `modes` are asked.
    pub config_file: Option<PathBuf>,
    pub modes: Vec<String>,
    /// For the mode `ABAC`; read together with the configuration.
    pub policy_file: Option<PathBuf>,
    /// For the mode `Webhook`.
    pub webhook: Option<WebhookFlags>,
}

/// The flags of the mode `Webhook`.
#[derive(Clone, Debug)]
pub struct WebhookFlags {
    /// A kubeconfig file.
    pub config_file: PathBuf,
    pub version: String,
    pub authorized_ttl: Duration,
    pub unauthorized_ttl: Duration,
}

impl Default for AuthorizationOptions {
    fn default() -> Self {
        Self { config_file: None, modes: vec!["Node".into(), "RBAC".into()], policy_file: None, webhook: None }
    }
}

/// The file as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationConfiguration {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub authorizers: Vec<AuthorizerConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthorizerConfig {
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub webhook: Option<WebhookConfig>,
}

/// A duration as Go writes it; zero when it is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time(pub Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = parse_duration(text.trim_start_matches('-'));
        time.map(Self).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no duration")))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WebhookConfig {
    #[serde(rename = "authorizedTTL")]
    pub authorized_ttl: Time,
    #[serde(rename = "unauthorizedTTL")]
    pub unauthorized_ttl: Time,
    pub cache_authorized_requests: Option<bool>,
    pub cache_unauthorized_requests: Option<bool>,
    pub timeout: Time,
    pub subject_access_review_version: String,
    pub match_condition_subject_access_review_version: String,
    pub failure_policy: String,
    pub connection_info: ConnectionInfo,
    pub match_conditions: Vec<MatchCondition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConnectionInfo {
    #[serde(rename = "type")]
    pub kind: String,
    pub kube_config_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchCondition {
    pub expression: String,
}

/// Authorizers that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizationError {
    #[error("cannot read the authorization configuration {path}")]
    Read { path: String, source: std::io::Error },
    #[error("the authorization configuration {path} does not parse: {reason}")]
    Parse { path: String, reason: String },
    #[error("the authorization configuration {path} is invalid: {}", problems.join("; "))]
    Invalid { path: String, problems: Vec<String> },
    #[error("cannot read the authorization policies {path}")]
    Policy { path: String, source: std::io::Error },
    #[error("the authorization policies {path} cannot be used: line {line}: {reason}")]
    PolicyLine { path: String, line: usize, reason: String },
    #[error("the flags of authorization cannot be used: {0}")]
    Flags(String),
    #[error("an authorization webhook cannot be used")]
    Webhook(#[from] crate::dial::RemoteError),
}

impl AuthorizationConfiguration {
    /// Reads and checks a file, YAML or JSON.
    pub fn read(path: &Path) -> Result<Self, AuthorizationError> {
        let shown = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| AuthorizationError::Read { path: shown.clone(), source })?;
        let mut config: Self = serde_saphyr::from_str(&text)
            .map_err(|error| AuthorizationError::Parse { path: shown.clone(), reason: error.to_string() })?;
        for webhook in config.authorizers.iter_mut().filter_map(|a| a.webhook.as_mut()) {
            webhook.set_defaults();
        }
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(AuthorizationError::Invalid { path: shown, problems }) }
    }

    /// What the flags say, as a file would.
    pub fn of_flags(options: &AuthorizationOptions) -> Result<Self, AuthorizationError> {
        let mut authorizers = Vec::new();
        for mode in &options.modes {
            if !TYPES.contains(&mode.as_str()) {
                let known = TYPES.join(", ");
                return Err(AuthorizationError::Flags(format!("--authorization-mode {mode} is none of {known}")));
            }
            if authorizers.iter().any(|a: &AuthorizerConfig| a.kind == *mode) {
                return Err(AuthorizationError::Flags(format!("--authorization-mode has {mode} twice")));
            }
            let webhook = (mode == "Webhook").then_some(&options.webhook);
            let webhook = match webhook {
                Some(None) => {
                    let text = "--authorization-mode Webhook needs --authorization-webhook-config-file";
                    return Err(AuthorizationError::Flags(text.into()));
                }
                Some(Some(flags)) => Some(WebhookConfig::of_flags(flags)),
                None => None,
            };
            authorizers.push(AuthorizerConfig { kind: mode.clone(), name: mode.to_lowercase(), webhook });
        }
        if options.policy_file.is_some() && !options.modes.iter().any(|mode| mode == ABAC) {
            let text = "--authorization-policy-file is of use with --authorization-mode ABAC only";
            return Err(AuthorizationError::Flags(text.into()));
        }
        Ok(Self { authorizers, ..Self::default() })
    }

    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if !API_VERSIONS.contains(&self.api_version.as_str()) || self.kind != "AuthorizationConfiguration" {
            found.push("apiVersion and kind must be apiserver.config.k8s.io/v1 and AuthorizationConfiguration".into());
        }
        let path = FieldPath::new("authorizers");
        let mut errors = Vec::new();
        if self.authorizers.is_empty() {
            errors.push(FieldError::required(&path, "at least one authorization mode must be defined"));
        }
        for (index, authorizer) in self.authorizers.iter().enumerate() {
            authorizer.check(&self.authorizers[..index], &path.index(index), &mut errors);
        }
        found.extend(errors.iter().map(ToString::to_string));
        found
    }
}

impl AuthorizerConfig {
    fn check(&self, before: &[Self], path: &FieldPath, errors: &mut Vec<FieldError>) {
        let kind = self.kind.as_str();
        if kind.is_empty() {
            return errors.push(FieldError::required(&path.child("type"), ""));
        }
        if !TYPES.contains(&kind) {
            return errors.push(FieldError::not_supported(&path.child("type"), kind, &TYPES));
        }
        if kind != "Webhook" && before.iter().any(|other| other.kind == kind) {
            return errors.push(FieldError::duplicate(&path.child("type"), kind));
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        if self.name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if before.iter().any(|other| other.name == self.name) {
            errors.push(FieldError::duplicate(&path.child("name"), self.name.as_str()));
        } else if !self.name.chars().all(plain) || self.name.starts_with(['-', '.']) || self.name.ends_with(['-', '.'])
        {
            let why = "authorizer name is invalid: a lowercase RFC 1123 subdomain is needed";
            errors.push(FieldError::invalid(&path.child("name"), self.name.as_str(), why));
        }
        match (&self.webhook, kind) {
            (None, "Webhook") => {
                errors.push(FieldError::required(&path.child("webhook"), "required when type=Webhook"));
            }
            (Some(webhook), "Webhook") => webhook.check(path, errors),
            (Some(_), _) => {
                let why = "may only be specified when type=Webhook";
                errors.push(FieldError::invalid(&path.child("webhook"), "non-null", why));
            }
            (None, _) => {}
        }
    }
}

impl WebhookConfig {
    fn of_flags(flags: &WebhookFlags) -> Self {
        Self {
            authorized_ttl: Time(flags.authorized_ttl),
            unauthorized_ttl: Time(flags.unauthorized_ttl),
            timeout: Time(Duration::from_secs(30)),
            subject_access_review_version: flags.version.clone(),
            failure_policy: "NoOpinion".into(),
            connection_info: ConnectionInfo {
                kind: "KubeConfigFile".into(),
                kube_config_file: Some(flags.config_file.clone()),
            },
            ..Self::default()
        }
    }

    fn set_defaults(&mut self) {
        if self.authorized_ttl.0.is_zero() {
            self.authorized_ttl = Time(Duration::from_secs(300));
        }
        if self.unauthorized_ttl.0.is_zero() {
            self.unauthorized_ttl = Time(Duration::from_secs(30));
        }
    }

    fn check(&self, path: &FieldPath, errors: &mut Vec<FieldError>) {
        let timeout = self.timeout.0;
        if timeout.is_zero() {
            errors.push(FieldError::required(&path.child("timeout"), ""));
        } else if timeout > Duration::from_secs(30) {
            let shown = format!("{}s", timeout.as_secs());
            errors.push(FieldError::invalid(&path.child("timeout"), shown, "must be > 0s and <= 30s"));
        }
        let versions: &[&str] = &["v1", "v1beta1"];
        let one_of = |field: &str, value: &str, known: &[&str]| match value {
            "" => Some(FieldError::required(&path.child(field), "")),
            value if known.contains(&value) => None,
            value => Some(FieldError::not_supported(&path.child(field), value, known)),
        };
        errors.extend(one_of("subjectAccessReviewVersion", &self.subject_access_review_version, versions));
        let conditions = &self.match_conditions;
        let version = self.match_condition_subject_access_review_version.as_str();
        let at = "matchConditionSubjectAccessReviewVersion";
        if version.is_empty() && !conditions.is_empty() {
            errors.push(FieldError::required(&path.child(at), "required if match conditions are specified"));
        } else if !version.is_empty() {
            errors.extend(one_of(at, version, &["v1"]));
        }
        errors.extend(one_of("failurePolicy", &self.failure_policy, &["NoOpinion", "Deny"]));
        self.check_connection(&path.child("connectionInfo"), errors);
        let path = path.child("matchConditions");
        if conditions.len() > CONDITIONS_MAX {
            return errors.push(FieldError::too_many(&path, conditions.len(), CONDITIONS_MAX));
        }
        for (index, condition) in conditions.iter().enumerate() {
            let (at, text) = (path.index(index).child("expression"), condition.expression.as_str());
            if text.trim().is_empty() {
                errors.push(FieldError::required(&at, ""));
            } else if conditions[..index].iter().any(|other| other.expression == text) {
                errors.push(FieldError::duplicate(&at, text));
            } else if let Err(error) = Expression::condition(text, &Env::authorization()) {
                errors.push(FieldError::invalid(&at, text, error));
            }
        }
    }

    fn check_connection(&self, path: &FieldPath, errors: &mut Vec<FieldError>) {
        let (info, at) = (&self.connection_info, path.child("kubeConfigFile"));
        let file = info.kube_config_file.as_deref().unwrap_or(Path::new(""));
        let shown = file.display().to_string();
        match info.kind.as_str() {
            "" => errors.push(FieldError::required(&path.child("type"), "")),
            "KubeConfigFile" if shown.is_empty() => errors.push(FieldError::required(&at, "")),
            "KubeConfigFile" if !file.is_absolute() => {
                errors.push(FieldError::invalid(&at, shown, "must be an absolute path"));
            }
            "KubeConfigFile" => match file.metadata() {
                Err(error) => errors.push(FieldError::invalid(&at, shown, format!("error loading file: {error}"))),
                Ok(found) if !found.is_file() => {
                    errors.push(FieldError::invalid(&at, shown, "must be a regular file"));
                }
                Ok(_) => {}
            },
            // There is no address of another kind that a server could know by itself.
            "InClusterConfig" => errors.push(FieldError::invalid(
                &path.child("type"),
                "InClusterConfig",
                "this server does not run in a pod: use KubeConfigFile",
            )),
            kind => {
                let known = ["InClusterConfig", "KubeConfigFile"];
                errors.push(FieldError::not_supported(&path.child("type"), kind, &known));
            }
        }
    }
}

#[cfg(test)]
mod tests;
