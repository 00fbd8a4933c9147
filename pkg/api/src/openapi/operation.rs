//! Every operation that the resource table serves: path, verb, parameters and what goes in and out.

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
pub(super) const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "pretty",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const DELETE_COLLECTION: &[&str] = &[
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "labelSelector",
    "limit",
    "orphanDependents",
    "pretty",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
];
const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "pretty",
    "propagationPolicy",
];
const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "pretty"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force", "pretty"];
const READ: &[&str] = &["pretty"];
const LOG: &[&str] = &[
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "pretty",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
];

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
pub(super) fn definition_name(row: &Resource) -> String {
    match row.ty {
        Some(ty) => ty.name.to_owned(),
        None => {
            let mut parts: Vec<&str> = row.group.split('.').collect();
            parts.reverse();
            format!("{}.{}.{}", parts.join("."), row.version, row.kind)
        }
    }
}

pub(super) fn list_name(row: &Resource) -> String {
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

/// Where a row's operations are, and how they are called.
struct Paths<'a> {
    row: &'a Resource,
    collection: String,
    prefix: String,
    scoped_kind: String,
    definition: String,
}

impl<'a> Paths<'a> {
    fn new(row: &'a Resource) -> Self {
        let namespace = if row.namespaced { "/namespaces/{namespace}" } else { "" };
        let scope = if row.namespaced { "Namespaced" } else { "" };
        Self {
            row,
            collection: format!("{}{namespace}/{}", base(&row.group, &row.version), row.plural),
            prefix: prefix(&row.group, &row.version),
            scoped_kind: format!("{scope}{}", row.kind),
            definition: definition_name(row),
        }
    }

    fn kind(&self) -> GroupVersionKind {
        let row = self.row;
        GroupVersionKind { group: row.group.clone(), version: row.version.clone(), kind: row.kind.clone() }
    }

    fn operation(&self, path: String, method: &'static str, action: &'static str, id: String) -> Operation {
        Operation {
            path,
            method,
            action,
            description: format!("{action} {}", self.row.kind),
            id,
            tag: tag(&self.row.group, &self.row.version),
            kind: Some(self.kind()),
            query: READ,
            body: None,
            answer: Answer::Object(self.definition.clone(), &[200]),
        }
    }

    fn object(&self, codes: &'static [u16]) -> Answer {
        Answer::Object(self.definition.clone(), codes)
    }

    /// What deleting an object answers.
    fn deleted(&self) -> Answer {
        if self.row.delete_returns_object {
            self.object(&[200, 202])
        } else {
            Answer::Object(format!("{META}.Status"), &[200, 202])
        }
    }

    fn resource(&self, operations: &mut Vec<Operation>) {
        let Self { prefix, scoped_kind, .. } = self;
        let item = format!("{}/{{name}}", self.collection);
        let collection = || self.collection.clone();
        let kind = &self.row.kind;
        for verb in &self.row.verbs {
            match verb.as_str() {
                "list" => self.lists(operations),
                "create" => operations.push(Operation {
                    query: WRITE,
                    body: Some(Body::Object(self.definition.clone())),
                    answer: self.object(&[200, 201, 202]),
                    ..self.operation(collection(), "post", "post", format!("create{prefix}{scoped_kind}"))
                }),
                "deletecollection" => operations.push(Operation {
                    query: DELETE_COLLECTION,
                    body: Some(Body::DeleteOptions),
                    answer: Answer::Object(format!("{META}.Status"), &[200]),
                    description: format!("delete collection of {kind}"),
                    ..self.operation(
                        collection(),
                        "delete",
                        "deletecollection",
                        format!("delete{prefix}Collection{scoped_kind}"),
                    )
                }),
                "delete" => operations.push(Operation {
                    query: DELETE,
                    body: Some(Body::DeleteOptions),
                    answer: self.deleted(),
                    ..self.operation(item.clone(), "delete", "delete", format!("delete{prefix}{scoped_kind}"))
                }),
                "watch" => self.watches(operations),
                verb => operations.extend(self.on_object(verb, &item, "", &self.definition)),
            }
        }
        for subresource in &self.row.subresources {
            self.subresource(subresource, &item, operations);
        }
    }

    fn lists(&self, operations: &mut Vec<Operation>) {
        let list = |path: String, id: String| Operation {
            query: LIST,
            answer: Answer::Watchable(list_name(self.row)),
            description: format!("list or watch objects of kind {}", self.row.kind),
            ..self.operation(path, "get", "list", id)
        };
        let Self { prefix, scoped_kind, row, .. } = self;
        operations.push(list(self.collection.clone(), format!("list{prefix}{scoped_kind}")));
        if row.namespaced {
            let path = format!("{}/{}", base(&row.group, &row.version), row.plural);
            operations.push(list(path, format!("list{prefix}{}ForAllNamespaces", row.kind)));
        }
    }

    /// The old paths of watches. Custom resources do not have them.
    fn watches(&self, operations: &mut Vec<Operation>) {
        let Self { prefix, scoped_kind, row, .. } = self;
        if row.is_custom() {
            return;
        }
        let base = base(&row.group, &row.version);
        let rest = &self.collection[base.len()..];
        let watch = |path: String, action: &'static str, id: String| Operation {
            query: LIST,
            answer: Answer::Watchable(format!("{META}.WatchEvent")),
            description: format!("watch changes to {}; the watch parameter of list does the same", row.kind),
            ..self.operation(path, "get", action, id)
        };
        operations.push(watch(format!("{base}/watch{rest}"), "watchlist", format!("watch{prefix}{scoped_kind}List")));
        operations.push(watch(format!("{base}/watch{rest}/{{name}}"), "watch", format!("watch{prefix}{scoped_kind}")));
        if row.namespaced {
            let path = format!("{base}/watch/{}", row.plural);
            operations.push(watch(path, "watchlist", format!("watch{prefix}{}ListForAllNamespaces", row.kind)));
        }
    }

    /// Operations on an object or a subresource of it.
    fn on_object(&self, verb: &str, path: &str, sub: &str, definition: &str) -> Option<Operation> {
        let Self { prefix, scoped_kind, .. } = self;
        let object = |codes| Answer::Object(definition.to_owned(), codes);
        let body = || Some(Body::Object(definition.to_owned()));
        let (method, action, name, query, body, answer) = match verb {
            "get" => ("get", "get", "read", READ, None, object(&[200])),
            "update" => ("put", "put", "replace", WRITE, body(), object(&[200, 201])),
            "patch" => ("patch", "patch", "patch", PATCH, Some(Body::Patch), object(&[200, 201])),
            "create" => ("post", "post", "create", WRITE, body(), object(&[200, 201, 202])),
            _ => return None,
        };
        let id = format!("{name}{prefix}{scoped_kind}{sub}");
        Some(Operation { query, body, answer, ..self.operation(path.to_owned(), method, action, id) })
    }

    fn subresource(&self, subresource: &Subresource, item: &str, operations: &mut Vec<Operation>) {
        let path = format!("{item}/{}", subresource.name);
        let name = capital(&subresource.name);
        match subresource.name.as_str() {
            "exec" | "attach" | "portforward" => self.connect(subresource, &path, &name, &["get", "post"], operations),
            "proxy" => {
                const ALL: &[&str] = &["delete", "get", "head", "options", "patch", "post", "put"];
                self.connect(subresource, &path, &name, ALL, operations);
                self.connect(subresource, &format!("{path}/{{path}}"), "ProxyWithPath", ALL, operations);
            }
            "log" => operations.push(Operation {
                query: LOG,
                answer: Answer::Text,
                ..self.operation(path, "get", "get", format!("read{}{}Log", self.prefix, self.scoped_kind))
            }),
            _ => {
                let definition = body_name(self.row, subresource);
                let kind = self.kind_of(subresource);
                for verb in &subresource.verbs {
                    let operation = self.on_object(verb, &path, &name, &definition);
                    operations.extend(operation.map(|o| Operation { kind: Some(kind.clone()), ..o }));
                }
            }
        }
    }

    fn kind_of(&self, subresource: &Subresource) -> GroupVersionKind {
        let own = self.kind();
        let (group, version) = if subresource.version.is_empty() {
            (own.group, own.version)
        } else {
            (subresource.group.clone(), subresource.version.clone())
        };
        GroupVersionKind { group, version, kind: subresource.kind.clone() }
    }

    fn connect(
        &self,
        subresource: &Subresource,
        path: &str,
        name: &str,
        methods: &[&'static str],
        operations: &mut Vec<Operation>,
    ) {
        let query: &[&str] = match subresource.name.as_str() {
            "exec" => &["command", "container", "stderr", "stdin", "stdout", "tty"],
            "attach" => &["container", "stderr", "stdin", "stdout", "tty"],
            "portforward" => &["ports"],
            _ => &["path"],
        };
        for method in methods {
            let id = format!("connect{}{}{}{name}", self.prefix, capital(method), self.scoped_kind);
            operations.push(Operation {
                query,
                kind: Some(self.kind_of(subresource)),
                answer: Answer::Text,
                ..self.operation(path.to_owned(), method, "connect", id)
            });
        }
    }
}
