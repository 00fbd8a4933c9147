//! The audit policy (`audit.k8s.io/v1` Policy): how much is noted of which requests.

use std::path::Path;

use serde::Deserialize;

use crate::request_info::RequestInfo;
use crate::user::UserInfo;

/// How much of a request is noted; each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    RequestReceived,
    /// Long-running requests only: the answer has begun.
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// The file as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(rename = "metadata")]
    _metadata: serde_json::Value,
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What the policy says of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

/// A policy file that cannot be used; every problem that was found is told.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("cannot read the audit policy {path}")]
    Read { path: String, source: std::io::Error },
    #[error("the audit policy {path} does not parse: {reason}")]
    Parse { path: String, reason: String },
    #[error("the audit policy {path} is invalid: {}", problems.join("; "))]
    Invalid { path: String, problems: Vec<String> },
}

impl Policy {
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| PolicyError::Read { path: name.clone(), source })?;
        let policy: Self = serde_saphyr::from_str(&text)
            .map_err(|error| PolicyError::Parse { path: name.clone(), reason: error.to_string() })?;
        let problems = policy.problems();
        if problems.is_empty() { Ok(policy) } else { Err(PolicyError::Invalid { path: name, problems }) }
    }

    /// The first rule that matches decides; without one nothing is noted. `user` is unknown when authentication failed.
    pub fn verdict(&self, user: Option<&UserInfo>, info: &RequestInfo) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(user, info)) else { return Verdict::default() };
        Verdict {
            level: rule.level,
            omit_stages: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if (self.api_version.as_str(), self.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            found.push("apiVersion and kind must be audit.k8s.io/v1 and Policy".to_owned());
        }
        if self.rules.is_empty() {
            found.push("rules: at least one is required".to_owned());
        }
        for (index, rule) in self.rules.iter().enumerate() {
            found.extend(rule.problems().into_iter().map(|problem| format!("rules[{index}].{problem}")));
        }
        found
    }
}

impl Rule {
    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if of_resources && !self.non_resource_urls.is_empty() {
            found.push("nonResourceURLs: a rule cannot apply to both resources and non-resource URLs".into());
        }
        for (index, url) in self.non_resource_urls.iter().enumerate().filter(|(_, url)| *url != "*") {
            let place = format!("nonResourceURLs[{index}]: {url:?}");
            if !url.starts_with('/') {
                found.push(format!("{place} must begin with '/'"));
            }
            if url.trim_end_matches('*').contains('*') || url.ends_with("**") {
                found.push(format!("{place} may have '*' only as its last character"));
            }
        }
        for (index, group) in self.resources.iter().enumerate() {
            if group.group.contains('/') {
                found.push(format!("resources[{index}].group: {:?} must be a group without version", group.group));
            }
            if group.resources.is_empty() && !group.resource_names.is_empty() {
                found.push(format!("resources[{index}].resourceNames: needs at least one resource"));
            }
        }
        found
    }

    fn matches(&self, user: Option<&UserInfo>, info: &RequestInfo) -> bool {
        let has = |list: &[String], text: &str| list.iter().any(|item| item == text);
        let of_user = self.users.is_empty() || user.is_some_and(|u| has(&self.users, &u.name));
        let of_group =
            self.user_groups.is_empty() || user.is_some_and(|u| u.groups.iter().any(|g| has(&self.user_groups, g)));
        if !of_user || !of_group || !(self.verbs.is_empty() || has(&self.verbs, &info.verb)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, &info.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.matches(info)));
        }
        self.non_resource_urls.is_empty()
            || (!info.is_resource && self.non_resource_urls.iter().any(|url| path_matches(url, &info.path)))
    }
}

impl GroupResources {
    fn matches(&self, info: &RequestInfo) -> bool {
        if self.group != info.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let named = self.resource_names.is_empty() || self.resource_names.contains(&info.name);
        let (resource, sub) = (info.resource.as_str(), info.subresource.as_str());
        let fits = |pattern: &str| match pattern.split_once('/') {
            _ if pattern == "*" => true,
            None => pattern == resource && sub.is_empty(),
            Some(("*", wanted)) if !sub.is_empty() && wanted == sub => true,
            Some((wanted, "*")) => wanted == resource,
            Some((wanted, wanted_sub)) => wanted == resource && wanted_sub == sub,
        };
        named && self.resources.iter().any(|pattern| fits(pattern))
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    pattern == "*" || pattern == path || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::Method;

    use super::*;
    use crate::query::Query;

    fn policy(text: &str) -> Policy {
        let policy: Policy = serde_saphyr::from_str(text).unwrap();
        assert_eq!(policy.problems(), Vec::<String>::new());
        policy
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let policy = policy(
            r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, nonResourceURLs: ["/healthz*", "/version"]}
- {level: None, users: ["system:kube-proxy"], verbs: [watch], resources: [{group: "", resources: [endpoints]}]}
- {level: Request, userGroups: [dev], namespaces: [a], omitStages: [ResponseStarted], omitManagedFields: false}
- {level: RequestResponse, resources: [{group: apps}, {group: "", resources: ["pods/*", "*/status"], resourceNames: [x]}]}
- {level: Metadata, resources: [{group: "", resources: [secrets]}]}
"#,
        );
        let dev = UserInfo::authenticated("d", &["dev"]);
        let proxy = UserInfo::authenticated("system:kube-proxy", &[]);
        let level = |user: Option<&UserInfo>, method: Method, target: &str| {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            policy.verdict(user, &RequestInfo::parse(&method, path, &Query::parse(query))).level
        };
        for (user, method, target, expected) in [
            (Some(&dev), Method::GET, "/healthz/ping", Level::None),
            (Some(&proxy), Method::GET, "/api/v1/endpoints?watch=1", Level::None),
            (Some(&dev), Method::GET, "/api/v1/namespaces/a/endpoints", Level::Request),
            (Some(&proxy), Method::GET, "/api/v1/namespaces/a/secrets", Level::Metadata),
            (None, Method::GET, "/api/v1/namespaces/a/secrets", Level::Metadata),
            (None, Method::GET, "/api/v1/namespaces/a/secrets/s/status", Level::None),
            (None, Method::GET, "/api/v1/namespaces/a/things/x/status", Level::RequestResponse),
            (None, Method::POST, "/api/v1/namespaces/a/pods/x/exec", Level::RequestResponse),
            (None, Method::POST, "/api/v1/namespaces/a/pods/y/exec", Level::None),
            (None, Method::GET, "/apis/apps/v1/deployments", Level::RequestResponse),
            (None, Method::GET, "/apis/batch/v1/jobs", Level::None),
            (None, Method::GET, "/metrics", Level::None),
        ] {
            assert_eq!(level(user, method, target), expected, "{target}");
        }
        let info = RequestInfo::parse(&Method::GET, "/api/v1/namespaces/a/pods", &Query::parse(""));
        let verdict = policy.verdict(Some(&dev), &info);
        assert_eq!(verdict.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
        assert!(!verdict.omit_managed_fields);
    }

    #[test]
    fn mistakes_are_named() {
        let text = r#"{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [
            {level: None, nonResourceURLs: [x, "/a*b"], namespaces: [n]},
            {level: None, resources: [{group: a/v1, resourceNames: [r]}]}]}"#;
        let policy: Policy = serde_saphyr::from_str(text).unwrap();
        let problems = policy.problems();
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert!(problems[3].starts_with("rules[1].resources[0].group"), "{problems:?}");
        assert!(serde_saphyr::from_str::<Policy>("rules: [{level: Everything}]").is_err());
        assert!(!Policy::default().problems().is_empty());
    }
}
