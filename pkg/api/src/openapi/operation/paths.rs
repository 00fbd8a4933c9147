//! The operations of one resource.

use super::{Answer, Body, META, Operation, base, body_name, capital, definition_name, list_name, prefix, tag};
use crate::name::GroupVersionKind;
use crate::resource::{Resource, Subresource};

const LIST: &[&str] = &[
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

/// Where a row's operations are, and how they are called.
pub(super) struct Paths<'a> {
    row: &'a Resource,
    collection: String,
    prefix: String,
    scoped_kind: String,
    definition: String,
}

impl<'a> Paths<'a> {
    pub(super) fn new(row: &'a Resource) -> Self {
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

    pub(super) fn resource(&self, operations: &mut Vec<Operation>) {
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
