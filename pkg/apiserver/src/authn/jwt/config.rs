//! AuthenticationConfiguration (`apiserver.config.k8s.io`): which outside issuers' tokens are accepted, and as whom.

use std::path::Path;

use kube1_api::expression::Expression;
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
}

impl AuthenticationConfiguration {
    /// Reads and checks a file, YAML or JSON.
    pub fn read(path: &Path) -> Result<Self, AuthenticationConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| AuthenticationConfigError::Read { path: shown.clone(), source })?;
        let config: Self = serde_saphyr::from_str(&text)
            .map_err(|e| AuthenticationConfigError::Parse { path: shown.clone(), reason: e.to_string() })?;
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(AuthenticationConfigError::Invalid { path: shown, problems }) }
    }

    /// What is wrong, with the place.
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.anonymous.as_ref().is_some_and(|a| !a.enabled && !a.conditions.is_empty()) {
            found.push("anonymous.conditions: may only be given when enabled".to_owned());
        }
        if self.kind != "AuthenticationConfiguration" || !self.api_version.starts_with("apiserver.config.k8s.io/") {
            found.push("it must be an AuthenticationConfiguration of apiserver.config.k8s.io/v1".to_owned());
        }
        for (index, jwt) in self.jwt.iter().enumerate() {
            found.extend(jwt.problems().into_iter().map(|problem| format!("jwt[{index}].{problem}")));
            if self.jwt[..index].iter().any(|other| other.issuer.url == jwt.issuer.url) {
                found.push(format!("jwt[{index}].issuer.url: Duplicate value: {:?}", jwt.issuer.url));
            }
        }
        found
    }
}

impl JwtConfig {
    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut check = |bad: bool, problem: &str| {
            if bad {
                found.push(problem.to_owned());
            }
        };
        let (issuer, mappings) = (&self.issuer, &self.claim_mappings);
        check(!issuer.url.starts_with("https://"), "issuer.url: must be an https URL");
        let discovery = &issuer.discovery_url;
        check(!discovery.is_empty() && !discovery.starts_with("https://"), "issuer.discoveryURL: must be an https URL");
        check(issuer.audiences.is_empty(), "issuer.audiences: at least one is required");
        let policy = issuer.audience_match_policy.as_str();
        check(!matches!(policy, "" | "MatchAny"), "issuer.audienceMatchPolicy: must be MatchAny");
        check(
            issuer.audiences.len() > 1 && policy != "MatchAny",
            "issuer.audienceMatchPolicy: must be MatchAny for several audiences",
        );
        let name = &mappings.username;
        check(name.claim.is_empty() == name.expression.is_empty(), "claimMappings.username: needs claim or expression");
        check(
            !name.claim.is_empty() && name.prefix.is_none(),
            "claimMappings.username.prefix: is required with claim; it may be \"\"",
        );
        let groups = &mappings.groups;
        check(
            !groups.claim.is_empty() && !groups.expression.is_empty(),
            "claimMappings.groups: may not have both claim and expression",
        );
        check(
            !groups.claim.is_empty() && groups.prefix.is_none(),
            "claimMappings.groups.prefix: is required with claim; it may be \"\"",
        );
        for (index, rule) in self.claim_validation_rules.iter().enumerate() {
            let place = format!("claimValidationRules[{index}]");
            check(rule.claim.is_empty() == rule.expression.is_empty(), &format!("{place}: needs claim or expression"));
        }
        for extra in &mappings.extra {
            let lower = extra.key.to_lowercase() == extra.key;
            let problem = format!("claimMappings.extra[{}].key: must be a lower-case key with a domain", extra.key);
            check(!lower || !extra.key.contains('/'), &problem);
        }
        for (place, text) in self.expressions() {
            if let Err(error) = Expression::compile(text) {
                check(true, &format!("{place}: {error}"));
            }
        }
        found
    }

    fn expressions(&self) -> Vec<(String, &str)> {
        let mappings = &self.claim_mappings;
        let mut all = vec![
            ("claimMappings.username.expression".to_owned(), mappings.username.expression.as_str()),
            ("claimMappings.groups.expression".to_owned(), mappings.groups.expression.as_str()),
            ("claimMappings.uid.expression".to_owned(), mappings.uid.expression.as_str()),
        ];
        all.extend(
            mappings.extra.iter().map(|e| (format!("claimMappings.extra[{}]", e.key), e.value_expression.as_str())),
        );
        let rules = self.claim_validation_rules.iter().enumerate();
        all.extend(rules.map(|(i, r)| (format!("claimValidationRules[{i}].expression"), r.expression.as_str())));
        let rules = self.user_validation_rules.iter().enumerate();
        all.extend(rules.map(|(i, r)| (format!("userValidationRules[{i}].expression"), r.expression.as_str())));
        all.retain(|(_, text)| !text.is_empty());
        all
    }
}
