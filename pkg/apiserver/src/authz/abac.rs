//! ABAC: what users and groups may do, by a file with one policy a line (`--authorization-policy-file`).

use std::path::Path;

use async_trait::async_trait;
use serde::Deserialize;

use super::{AuthorizationError, Authorizer, Decision, Rule, Rules};
use crate::request_info::RequestInfo;
use crate::user::{AUTHENTICATED, UserInfo};

const GROUP: &str = "abac.authorization.kubernetes.io/";
/// What a read-only policy allows.
const READS: [&str; 3] = ["get", "list", "watch"];

/// The policies of a file, in any order: what one of them allows is allowed.
pub struct Abac {
    policies: Vec<Policy>,
}

/// A policy's `spec` in version `v1beta1`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    #[serde(rename = "apiGroup")]
    api_group: String,
    resource: String,
    namespace: String,
    non_resource_path: String,
}

impl Abac {
    /// Reads a file of policies; the error names the line that is no policy.
    pub fn read(path: &Path) -> Result<Self, AuthorizationError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| AuthorizationError::Policy { path: shown.clone(), source })?;
        let mut policies = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let policy = Policy::parse(line).map_err(|reason| AuthorizationError::PolicyLine {
                path: shown.clone(),
                line: index + 1,
                reason,
            })?;
            policies.push(policy);
        }
        Ok(Self { policies })
    }

    fn decide(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        match self.policies.iter().any(|policy| policy.is_for(user) && policy.allows(request)) {
            true => Decision::Allow,
            false => Decision::NoOpinion("No policy matched.".into()),
        }
    }
}

impl Policy {
    fn parse(line: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Line {
            #[serde(default)]
            api_version: String,
            #[serde(default)]
            kind: String,
            #[serde(default)]
            spec: Policy,
        }
        let parsed: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
        match (parsed.api_version.strip_prefix(GROUP), parsed.kind.as_str()) {
            (Some("v1beta1"), "Policy") => Ok(parsed.spec.whole()),
            (Some("v0"), "Policy") => Self::parse_unversioned(line),
            _ if parsed.api_version.is_empty() || parsed.kind.is_empty() => Self::parse_unversioned(line),
            _ => Err(format!("apiVersion and kind must be {GROUP}v1beta1 and Policy")),
        }
    }

    /// The oldest form, whose members stand for themselves and in which what is missing means anything.
    fn parse_unversioned(line: &str) -> Result<Self, String> {
        let given: Self = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let any = |text: String| if text.is_empty() { "*".to_owned() } else { text };
        let mut policy = Self { non_resource_path: String::new(), ..given };
        if policy.user.is_empty() && policy.group.is_empty() {
            policy.group = AUTHENTICATED.into();
        }
        // Rights over resources were rights over everything that is not one, too.
        if policy.namespace.is_empty() && policy.resource.is_empty() {
            policy.non_resource_path = "*".into();
        }
        (policy.namespace, policy.resource) = (any(policy.namespace), any(policy.resource));
        policy.api_group = "*".into();
        Ok(policy.whole())
    }

    /// `*` as a user or group means those that are known.
    fn whole(self) -> Self {
        match self.user == "*" || self.group == "*" {
            true => Self { user: String::new(), group: AUTHENTICATED.into(), ..self },
            false => self,
        }
    }

    fn is_for(&self, user: &UserInfo) -> bool {
        let user_fits = self.user.is_empty() || self.user == user.name;
        let group_fits = self.group.is_empty() || user.in_group(&self.group);
        user_fits && group_fits && !(self.user.is_empty() && self.group.is_empty())
    }

    fn allows(&self, request: &RequestInfo) -> bool {
        let fits = |pattern: &str, text: &str| pattern == "*" || pattern == text;
        if self.readonly && !READS.contains(&request.verb.as_str()) {
            return false;
        }
        if request.is_resource {
            return fits(&self.namespace, &request.namespace)
                && fits(&self.resource, &request.resource)
                && fits(&self.api_group, &request.group);
        }
        let below = self.non_resource_path.ends_with('*').then(|| self.non_resource_path.trim_end_matches('*'));
        self.non_resource_path == request.path || below.is_some_and(|below| request.path.starts_with(below))
    }

    fn rules(&self) -> impl Iterator<Item = Rule> {
        let verbs: &[&str] = if self.readonly { &READS } else { &["*"] };
        let resource = (!self.resource.is_empty())
            .then(|| Rule::resources(verbs, &[self.api_group.as_str()], &[self.resource.as_str()], &[]));
        let path = (!self.non_resource_path.is_empty()).then(|| Rule {
            verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
            non_resource_urls: vec![self.non_resource_path.clone()],
            ..Rule::default()
        });
        resource.into_iter().chain(path)
    }
}

#[async_trait]
impl Authorizer for Abac {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        self.decide(user, request)
    }

    fn authorize_now(&self, user: &UserInfo, request: &RequestInfo) -> Option<Decision> {
        Some(self.decide(user, request))
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let mine = self.policies.iter().filter(|policy| policy.is_for(user));
        let here = mine.filter(|policy| matches!(policy.namespace.as_str(), "*") || policy.namespace == namespace);
        Rules { rules: here.flat_map(Policy::rules).collect(), ..Rules::default() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const POLICIES: &str = r#"
# A comment.
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"alice","namespace":"*","resource":"*","apiGroup":"*"}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"bob","namespace":"ns","resource":"pods","readonly":true}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"group":"*","readonly":true,"nonResourcePath":"/version*"}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"namespace":"*","resource":"*","apiGroup":"*"}}
{"user":"old","resource":"events"}
{"group":"elders"}
"#;

    fn abac(text: &str) -> Result<Abac, AuthorizationError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policies");
        std::fs::write(&path, text).unwrap();
        Abac::read(&path)
    }

    #[test]
    fn policies_allow_what_they_name() {
        let abac = abac(POLICIES).unwrap();
        let resource = |verb: &str, group: &str, namespace: &str, resource: &str| RequestInfo {
            is_resource: true,
            verb: verb.into(),
            group: group.into(),
            namespace: namespace.into(),
            resource: resource.into(),
            ..RequestInfo::default()
        };
        let path = |verb: &str, path: &str| RequestInfo { verb: verb.into(), path: path.into(), ..Default::default() };
        for (name, groups, request, expected) in [
            ("alice", &[][..], resource("delete", "apps", "ns", "deployments"), true),
            ("alice", &[], path("get", "/metrics"), false),
            ("bob", &[], resource("list", "", "ns", "pods"), true),
            ("bob", &[], resource("list", "apps", "ns", "pods"), false),
            ("bob", &[], resource("list", "", "other", "pods"), false),
            ("bob", &[], resource("create", "", "ns", "pods"), false),
            ("bob", &[], path("get", "/version/x"), true),
            ("bob", &[], path("post", "/version"), false),
            ("old", &[], resource("create", "events.k8s.io", "any", "events"), true),
            ("old", &[], path("get", "/metrics"), false),
            ("x", &["elders"], path("get", "/metrics"), true),
            ("x", &["elders"], resource("create", "any", "any", "any"), true),
        ] {
            let user = UserInfo::authenticated(name, groups);
            let allowed = abac.authorize_now(&user, &request) == Some(Decision::Allow);
            assert_eq!(allowed, expected, "{name} {request:?}");
        }
        assert_ne!(abac.decide(&UserInfo::anonymous(), &path("get", "/version")), Decision::Allow);
    }

    #[tokio::test]
    async fn policies_are_listed_as_rules() {
        let abac = abac(POLICIES).unwrap();
        let rules = abac.rules(&UserInfo::authenticated("bob", &[]), "ns").await;
        assert_eq!(rules.rules, [Rule::resources(&READS, &[""], &["pods"], &[])]);
        assert!(!rules.incomplete);
    }

    #[test]
    fn a_line_that_is_no_policy_is_named() {
        for (text, said) in [
            ("\n{", "line 2"),
            (r#"{"apiVersion":"abac.authorization.kubernetes.io/v9","kind":"Policy"}"#, "v1beta1"),
            (r#"{"apiVersion":"v1","kind":"Pod"}"#, "line 1"),
        ] {
            let error = abac(text).err().unwrap().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(Abac::read(Path::new("/nonexistent/policies")).is_err());
    }
}
