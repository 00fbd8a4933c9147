//! FlowSchemas: which requests belong to which level.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::HeaderValue;
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
    rules: Vec<Rule>,
}

struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

enum Subject {
    User(String),
    Group(String),
    Account { namespace: String, name: String },
}

struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster: bool,
}

struct PathRule {
    verbs: Vec<String>,
    urls: Vec<String>,
}

impl Schema {
    pub fn parse(object: &Value, level_uid: String, meters: Meters) -> Self {
        let spec = &object["spec"];
        Self {
            about: Arc::new(SchemaRef {
                name: text(&object["metadata"]["name"]),
                uid: header(text(&object["metadata"]["uid"])),
                level_uid: header(level_uid),
                meters,
            }),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
            level: text(&spec["priorityLevelConfiguration"]["name"]),
            distinguisher: text(&spec["distinguisherMethod"]["type"]),
            rules: list(&spec["rules"]).map(Rule::parse).collect(),
        }
    }

    pub fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| subject.matches(user))
                && if info.is_resource {
                    rule.resources.iter().any(|resource| resource.matches(info))
                } else {
                    rule.paths.iter().any(|path| path.matches(info))
                }
        })
    }

    /// Hash of the request's flow, and what tells it from others of this schema.
    pub fn flow<'a>(&self, user: &'a UserInfo, info: &'a RequestInfo) -> (u64, &'a str) {
        let distinguisher = match self.distinguisher.as_str() {
            "ByUser" => user.name.as_str(),
            "ByNamespace" => info.namespace.as_str(),
            _ => "",
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

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An empty one for what no header can be.
fn header(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

fn texts(value: &Value) -> Vec<String> {
    list(value).filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Whether a list of texts holds `*` or `wanted`.
fn has(texts: &[String], wanted: &str) -> bool {
    texts.iter().any(|text| is(text, wanted))
}

fn is(text: &str, wanted: &str) -> bool {
    text == "*" || text == wanted
}

impl Rule {
    fn parse(rule: &Value) -> Self {
        Self {
            subjects: list(&rule["subjects"]).filter_map(Subject::parse).collect(),
            resources: list(&rule["resourceRules"]).map(ResourceRule::parse).collect(),
            paths: list(&rule["nonResourceRules"]).map(PathRule::parse).collect(),
        }
    }
}

impl Subject {
    fn parse(subject: &Value) -> Option<Self> {
        let account = &subject["serviceAccount"];
        match subject["kind"].as_str()? {
            "User" => Some(Self::User(text(&subject["user"]["name"]))),
            "Group" => Some(Self::Group(text(&subject["group"]["name"]))),
            "ServiceAccount" => {
                Some(Self::Account { namespace: text(&account["namespace"]), name: text(&account["name"]) })
            }
            _ => None,
        }
    }

    fn matches(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => is(name, &user.name),
            Self::Group(name) => name == "*" || user.in_group(name),
            Self::Account { namespace, name } => {
                let rest = user.name.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':'));
                rest.is_some_and(|(its_namespace, its_name)| namespace == its_namespace && is(name, its_name))
            }
        }
    }
}

impl ResourceRule {
    fn parse(rule: &Value) -> Self {
        Self {
            verbs: texts(&rule["verbs"]),
            groups: texts(&rule["apiGroups"]),
            resources: texts(&rule["resources"]),
            namespaces: texts(&rule["namespaces"]),
            cluster: rule["clusterScope"] == true,
        }
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        let names = |entry: &str| match info.subresource.as_str() {
            "" => entry == info.resource,
            sub => entry.split_once('/') == Some((&info.resource, sub)),
        };
        let scope = match info.namespace.as_str() {
            "" => self.cluster,
            namespace => has(&self.namespaces, namespace),
        };
        scope
            && has(&self.verbs, &info.verb)
            && has(&self.groups, &info.group)
            && self.resources.iter().any(|entry| entry == "*" || names(entry))
    }
}

impl PathRule {
    fn parse(rule: &Value) -> Self {
        Self { verbs: texts(&rule["verbs"]), urls: texts(&rule["nonResourceURLs"]) }
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        let begins = |prefix: &str| prefix.ends_with('/') && info.path.starts_with(prefix);
        has(&self.verbs, &info.verb)
            && self.urls.iter().any(|url| is(url, &info.path) || url.strip_suffix('*').is_some_and(begins))
    }
}
