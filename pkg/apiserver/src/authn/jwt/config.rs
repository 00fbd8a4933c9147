//! AuthenticationConfiguration (`apiserver.config.k8s.io`): which outside issuers' tokens are accepted, and as whom.

use std::path::Path;

use serde::Deserialize;

/// The file as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub jwt: Vec<JwtConfig>,
    #[serde(default)]
    pub anonymous: Option<AnonymousConfig>,
}

/// Whether requests without a credential are let in, and to which paths.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnonymousConfig {
    #[serde(default)]
    pub enabled: bool,
    #[serde(default)]
    pub conditions: Vec<PathCondition>,
}

impl AnonymousConfig {
    /// The default: they are let in everywhere, and the authorizers decide.
    pub fn everywhere() -> Self {
        Self { enabled: true, conditions: Vec::new() }
    }

    pub fn admits(&self, path: &str) -> bool {
        self.enabled && (self.conditions.is_empty() || self.conditions.iter().any(|c| c.path == path))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathCondition {
    pub path: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtConfig {
    pub issuer: IssuerConfig,
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimRule>,
    pub claim_mappings: ClaimMappings,
    #[serde(default)]
    pub user_validation_rules: Vec<UserRule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerConfig {
    pub url: String,
    #[serde(default, rename = "discoveryURL")]
    pub discovery_url: String,
    /// PEM; the host's own authorities when empty.
    #[serde(default)]
    pub certificate_authority: String,
    pub audiences: Vec<String>,
    #[serde(default)]
    pub audience_match_policy: String,
    /// `controlplane` or `cluster`; both are reached directly.
    #[serde(default)]
    pub egress_selector_type: String,
}

/// `claim` with `requiredValue`, or `expression` with `message`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClaimRule {
    pub claim: String,
    pub required_value: String,
    pub expression: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClaimMappings {
    pub username: Mapping,
    pub groups: Mapping,
    pub uid: Mapping,
    pub extra: Vec<ExtraMapping>,
}

/// `claim`, with `prefix` for names and groups, or `expression`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mapping {
    pub claim: String,
    pub prefix: Option<String>,
    pub expression: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraMapping {
    pub key: String,
    pub value_expression: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRule {
    pub expression: String,
    #[serde(default)]
    pub message: String,
}

/// A file that cannot be used; every problem that was found is told.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationConfigError {
    #[error("cannot read the authentication configuration {path}")]
    Read { path: String, source: std::io::Error },
    #[error("the authentication configuration {path} does not parse: {reason}")]
    Parse { path: String, reason: String },
    #[error("the authentication configuration {path} is invalid: {}", problems.join("; "))]
    Invalid { path: String, problems: Vec<String> },
    #[error("cannot read the token file {path}")]
    ReadTokens { path: String, source: std::io::Error },
    #[error("the token file {path} is invalid: {reason}")]
    Tokens { path: String, reason: String },
    #[error("the token webhook cannot be used")]
    Webhook(#[from] crate::dial::RemoteError),
}

impl AuthenticationConfiguration {
    /// Reads and checks a file, YAML or JSON. `own_issuers` are those of this cluster's own tokens.
    pub fn read(path: &Path, own_issuers: &[String]) -> Result<Self, AuthenticationConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| AuthenticationConfigError::Read { path: shown.clone(), source })?;
        let config: Self = serde_saphyr::from_str(&text)
            .map_err(|e| AuthenticationConfigError::Parse { path: shown.clone(), reason: e.to_string() })?;
        let problems = super::check::problems(&config, own_issuers);
        if problems.is_empty() { Ok(config) } else { Err(AuthenticationConfigError::Invalid { path: shown, problems }) }
    }
}
