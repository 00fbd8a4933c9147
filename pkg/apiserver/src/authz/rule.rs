//! A rule of a role and what it matches.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::request_info::RequestInfo;

/// A PolicyRule of `rbac.authorization.k8s.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(deserialize_with = "nullable")]
    pub verbs: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

/// Go writes empty lists as null.
fn nullable<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == wanted)
}

impl Rule {
    /// A rule on resources.
    pub fn resources(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Self {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Self {
            verbs: owned(verbs),
            api_groups: owned(groups),
            resources: owned(resources),
            resource_names: owned(names),
            non_resource_urls: Vec::new(),
        }
    }

    /// Whether the request is one of those that this rule grants.
    pub fn allows(&self, request: &RequestInfo) -> bool {
        if !has(&self.verbs, &request.verb) {
            return false;
        }
        if !request.is_resource {
            return self.non_resource_urls.iter().any(|url| url_matches(url, &request.path));
        }
        has(&self.api_groups, &request.group)
            && self.resources.iter().any(|r| resource_matches(r, &request.resource, &request.subresource))
            && (self.resource_names.is_empty() || self.resource_names.contains(&request.name))
    }
}

/// Whether a rule's entry names the resource: `*`, `res`, `res/sub` or `*/sub`.
pub(super) fn resource_matches(entry: &str, resource: &str, subresource: &str) -> bool {
    if entry == "*" {
        return true;
    }
    if subresource.is_empty() {
        // Reviews may ask for `res/sub` as the resource.
        return entry == resource;
    }
    entry.split_once('/').is_some_and(|(res, sub)| sub == subresource && (res == "*" || res == resource))
}

/// Whether a rule's entry names the path: equal, or a prefix that ends in `*`.
pub(super) fn url_matches(entry: &str, path: &str) -> bool {
    entry == path || entry.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (name, list) in [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.resource_names),
            ("NonResourceURLs", &self.non_resource_urls),
            ("Verbs", &self.verbs),
        ] {
            if !list.is_empty() {
                parts.push(format!("{name}:{}", quoted(list)));
            }
        }
        write!(f, "{{{}}}", parts.join(", "))
    }
}

/// A list as messages show it: `["a" "b"]`.
pub(super) fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|s| format!("{s:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn request(verb: &str, group: &str, resource: &str, name: &str) -> RequestInfo {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        RequestInfo {
            is_resource: true,
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn rules_match_verbs_groups_resources_and_names() {
        let rule = Rule::resources;
        for (rule, request, expected) in [
            (rule(&["get"], &[""], &["pods"], &[]), request("get", "", "pods", "x"), true),
            (rule(&["get"], &[""], &["pods"], &[]), request("list", "", "pods", ""), false),
            (rule(&["get"], &[""], &["pods"], &[]), request("get", "apps", "pods", "x"), false),
            (rule(&["get"], &[""], &["pods"], &[]), request("get", "", "pods/log", "x"), false),
            (rule(&["get"], &[""], &["pods/log"], &[]), request("get", "", "pods/log", "x"), true),
            (rule(&["get"], &[""], &["*/log"], &[]), request("get", "", "pods/log", "x"), true),
            (rule(&["get"], &[""], &["*/log"], &[]), request("get", "", "pods", "x"), false),
            (rule(&["*"], &["*"], &["*"], &[]), request("delete", "apps", "deployments/scale", "x"), true),
            (rule(&["get"], &[""], &["pods"], &["y"]), request("get", "", "pods", "x"), false),
            (rule(&["get"], &[""], &["pods"], &["x"]), request("get", "", "pods", "x"), true),
            (rule(&["create"], &[""], &["pods"], &["x"]), request("create", "", "pods", ""), false),
        ] {
            assert_eq!(rule.allows(&request), expected, "{rule} {request:?}");
        }
        let review = RequestInfo { resource: "pods/log".into(), ..request("get", "", "", "") };
        for (resource, expected) in [("pods/log", true), ("*", true), ("*/log", false), ("pods", false)] {
            assert_eq!(rule(&["get"], &[""], &[resource], &[]).allows(&review), expected, "{resource}");
        }
    }

    #[test]
    fn paths_match_exactly_or_by_prefix() {
        for (entry, path, expected) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/", false),
            ("/healthz/*", "/healthz/etcd", true),
            ("*", "/a", true),
        ] {
            assert_eq!(url_matches(entry, path), expected, "{entry} {path}");
        }
    }

    #[test]
    fn null_lists_are_empty() {
        let rule: Rule =
            serde_json::from_str(r#"{"verbs":["get"],"resourceNames":null,"nonResourceURLs":["/x"]}"#).unwrap();
        assert_eq!(rule.to_string(), r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#);
    }
}
