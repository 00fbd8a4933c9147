//! Every operation that the resource table serves: path, verb, parameters and what goes in and out.

mod paths;

use paths::Paths;

use crate::name::GroupVersionKind;
use crate::resource::{Resource, ResourceTable, Subresource};

/// One operation of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub path: String,
    /// The HTTP method in lower case.
    pub method: &'static str,
    /// What it does, such as `list` or `connect`; empty for discovery.
    pub action: &'static str,
    /// Unique name of the operation.
    pub id: String,
    pub description: String,
    pub tag: String,
    pub kind: Option<GroupVersionKind>,
    /// Names of query parameters.
    pub query: &'static [&'static str],
    /// What the body holds, if it takes one.
    pub body: Option<Body>,
    pub answer: Answer,
}

/// What a request's body holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Object(String),
    Patch,
    DeleteOptions,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An object of a type, by the name of its definition, with the status codes of success.
    Object(String, &'static [u16]),
    /// The same, or a stream of watch events.
    Watchable(String),
    Text,
    Nothing,
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The operations of one group version, with its own discovery.
pub fn of_group_version(table: &ResourceTable, group: &str, version: &str) -> Vec<Operation> {
    let mut operations = Vec::new();
    for row in table.iter().filter(|r| r.group == group && r.version == version) {
        Paths::new(row).resource(&mut operations);
    }
    if !operations.is_empty() {
        let id = format!("get{}APIResources", prefix(group, version));
        let path = format!("{}/", base(group, version));
        operations.push(discovery(path, id, "APIResourceList", &tag(group, version)));
    }
    operations
}

/// The operations of paths that belong to no group version: `api`, `apis`, `apis/GROUP`, `version` and a few more.
pub fn of_root(table: &ResourceTable, root: &str) -> Vec<Operation> {
    let text = |path: &str, id: &str, tag: &str| Operation {
        answer: if tag == "logs" { Answer::Nothing } else { Answer::Text },
        ..discovery(path.into(), id.into(), "", tag)
    };
    match root {
        "api" => vec![discovery("/api/".into(), "getCoreAPIVersions".into(), "APIVersions", "core")],
        "apis" => vec![discovery("/apis/".into(), "getAPIVersions".into(), "APIGroupList", "apis")],
        "version" => vec![Operation {
            answer: Answer::Object("io.k8s.apimachinery.pkg.version.Info".into(), &[200]),
            ..discovery("/version/".into(), "getCodeVersion".into(), "", "version")
        }],
        "logs" => vec![text("/logs/", "logFileListHandler", "logs"), text("/logs/{logpath}", "logFileHandler", "logs")],
        ".well-known/openid-configuration" => {
            vec![text("/.well-known/openid-configuration/", "getServiceAccountIssuerOpenIDConfiguration", "WellKnown")]
        }
        "openid/v1/jwks" => vec![text("/openid/v1/jwks/", "getServiceAccountIssuerOpenIDKeyset", "openid")],
        _ => match root.strip_prefix("apis/") {
            Some(group) if table.iter().any(|r| r.group == group) => {
                let id = format!("get{}APIGroup", group_name(group));
                vec![discovery(format!("/apis/{group}/"), id, "APIGroup", &tag_group(group))]
            }
            _ => Vec::new(),
        },
    }
}

fn discovery(path: String, id: String, kind: &str, tag: &str) -> Operation {
    Operation {
        path,
        method: "get",
        action: "",
        id,
        description: "read what is offered here".into(),
        tag: tag.to_owned(),
        kind: None,
        query: &[],
        body: None,
        answer: Answer::Object(format!("{META}.{kind}"), &[200]),
    }
}

fn base(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn group_name(group: &str) -> String {
    if group.is_empty() {
        return "Core".into();
    }
    group.trim_end_matches(".k8s.io").split(['.', '-']).map(capital).collect()
}

fn prefix(group: &str, version: &str) -> String {
    group_name(group) + &capital(version)
}

fn tag_group(group: &str) -> String {
    let name = group_name(group);
    let mut chars = name.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

fn tag(group: &str, version: &str) -> String {
    format!("{}_{version}", tag_group(group))
}

/// The name of the definition of a row's objects.
pub(in crate::openapi) fn definition_name(row: &Resource) -> String {
    match row.ty {
        Some(ty) => ty.name.to_owned(),
        None => {
            let mut parts: Vec<&str> = row.group.split('.').collect();
            parts.reverse();
            format!("{}.{}.{}", parts.join("."), row.version, row.kind)
        }
    }
}

pub(in crate::openapi) fn list_name(row: &Resource) -> String {
    let name = definition_name(row);
    format!("{}{}", &name[..name.len() - row.kind.len()], row.list_kind)
}

/// The definition of a subresource's body.
fn body_name(row: &Resource, subresource: &Subresource) -> String {
    if subresource.kind == row.kind && subresource.version.is_empty() {
        return definition_name(row);
    }
    let (group, version) = if subresource.version.is_empty() {
        (row.group.as_str(), row.version.as_str())
    } else {
        (subresource.group.as_str(), subresource.version.as_str())
    };
    let api_version = crate::name::api_version(group, version);
    crate::schema::by_kind(&api_version, &subresource.kind).map_or_else(String::new, |ty| ty.name.to_owned())
}
