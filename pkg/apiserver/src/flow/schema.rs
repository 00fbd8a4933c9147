//! FlowSchemas: which requests belong to which level.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;

use super::SchemaRef;
use super::meters::Meters;
use crate::request_info::RequestInfo;
use crate::user::UserInfo;

/// A FlowSchema, ready to be matched.
pub struct Schema {
    pub about: Arc<SchemaRef>,
    pub precedence: i64,
    pub level: String,
    /// What distinguishes flows: `ByUser`, `ByNamespace` or nothing.
    distinguisher: String,
    rules: Vec<Value>,
}

impl Schema {
    pub fn parse(object: &Value, level_uid: String, meters: Arc<Meters>) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let spec = &object["spec"];
        Self {
            about: Arc::new(SchemaRef {
                name: text(&object["metadata"]["name"]),
                uid: text(&object["metadata"]["uid"]),
                level_uid,
                meters,
            }),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
            level: text(&spec["priorityLevelConfiguration"]["name"]),
            distinguisher: text(&spec["distinguisherMethod"]["type"]),
            rules: spec["rules"].as_array().cloned().unwrap_or_default(),
        }
    }

    pub fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| {
            list(&rule["subjects"]).any(|s| subject_matches(s, user))
                && if info.is_resource {
                    list(&rule["resourceRules"]).any(|r| resource_matches(r, info))
                } else {
                    list(&rule["nonResourceRules"]).any(|r| path_matches(r, info))
                }
        })
    }

    /// Hash of the request's flow, and what tells it from others of this schema.
    pub fn flow(&self, user: &UserInfo, info: &RequestInfo) -> (u64, String) {
        let distinguisher = match self.distinguisher.as_str() {
            "ByUser" => user.name.clone(),
            "ByNamespace" => info.namespace.clone(),
            _ => String::new(),
        };
        let mut hasher = DefaultHasher::new();
        self.about.name.hash(&mut hasher);
        distinguisher.hash(&mut hasher);
        (hasher.finish(), distinguisher)
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Whether a list of texts holds `*` or `wanted`.
fn has(value: &Value, wanted: &str) -> bool {
    list(value).any(|v| v == "*" || v == wanted)
}

fn subject_matches(subject: &Value, user: &UserInfo) -> bool {
    match subject["kind"].as_str() {
        Some("User") => subject["user"]["name"] == "*" || subject["user"]["name"] == user.name,
        Some("Group") => subject["group"]["name"].as_str().is_some_and(|g| g == "*" || user.in_group(g)),
        Some("ServiceAccount") => {
            let account = &subject["serviceAccount"];
            let rest = user.name.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':'));
            rest.is_some_and(|(namespace, name)| {
                account["namespace"] == namespace && (account["name"] == "*" || account["name"] == name)
            })
        }
        _ => false,
    }
}

fn resource_matches(rule: &Value, info: &RequestInfo) -> bool {
    let full = match info.subresource.as_str() {
        "" => info.resource.clone(),
        sub => format!("{}/{sub}", info.resource),
    };
    let scope = match info.namespace.as_str() {
        "" => rule["clusterScope"] == true,
        namespace => has(&rule["namespaces"], namespace),
    };
    scope && has(&rule["verbs"], &info.verb) && has(&rule["apiGroups"], &info.group) && has(&rule["resources"], &full)
}

fn path_matches(rule: &Value, info: &RequestInfo) -> bool {
    has(&rule["verbs"], &info.verb)
        && list(&rule["nonResourceURLs"]).filter_map(Value::as_str).any(|url| {
            url == "*"
                || url == info.path
                || url.strip_suffix('*').is_some_and(|prefix| prefix.ends_with('/') && info.path.starts_with(prefix))
        })
}
