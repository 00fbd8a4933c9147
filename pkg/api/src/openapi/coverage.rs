//! Which operations of an OpenAPI document a server serves, and how to ask a running one without changing anything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::all_operations;
use crate::resource::ResourceTable;

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];
/// Stands for every parameter of a path; no object has this name.
const NOBODY: &str = "api-coverage-probe";
/// No server takes bodies of this type, so a write that carries one is refused before anything is done.
const NO_TYPE: &str = "application/x-api-coverage-probe";

/// A path with a verb, such as `/api/v1/pods` and `get`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub path: String,
    /// The HTTP method in lower case.
    pub method: String,
    /// What it does, such as `list`; empty where the document does not say.
    pub action: String,
}

/// What became of the operations of a document. All lists are sorted by path.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    pub served: Vec<Route>,
    pub missing: Vec<Route>,
    /// Not served, as alpha and beta versions are off by default.
    pub off: Vec<Route>,
}

/// The operations of an OpenAPI document of version 2 or 3; `None` if it has no paths.
pub fn routes(document: &Value) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object()? {
        for (method, operation) in item.as_object()?.iter().filter(|(key, _)| METHODS.contains(&key.as_str())) {
            let action = operation["x-kubernetes-action"].as_str().unwrap_or_default().to_owned();
            routes.push(Route { path: path.clone(), method: method.clone(), action });
        }
    }
    routes.sort();
    Some(routes)
}

/// The operations of the resource table.
pub fn own_routes(table: &ResourceTable) -> Vec<Route> {
    let routes = all_operations(table).into_iter();
    let mut routes: Vec<Route> =
        routes.map(|o| Route { path: o.path, method: o.method.to_owned(), action: o.action.to_owned() }).collect();
    routes.sort();
    routes
}

/// Sorts the operations of a document by whether they are served.
pub fn coverage(routes: Vec<Route>, is_served: impl Fn(&Route) -> bool) -> Coverage {
    let on_by_default = default_groups(&routes);
    let mut coverage = Coverage::default();
    for route in routes {
        let list = match group_version(&route.path) {
            _ if is_served(&route) => &mut coverage.served,
            Some((_, Some(version))) if is_preview(version) => &mut coverage.off,
            Some((group, None)) if !on_by_default.contains(group) => &mut coverage.off,
            _ => &mut coverage.missing,
        };
        list.push(route);
    }
    coverage
}

/// As [`coverage`], of what the resource table serves.
pub fn coverage_by_table(routes: Vec<Route>, table: &ResourceTable) -> Coverage {
    let own: BTreeSet<(String, String)> = own_routes(table).into_iter().map(|r| (shape(&r.path), r.method)).collect();
    coverage(routes, |route| own.contains(&(shape(&route.path), route.method.clone())))
}

/// Paths are the same whatever their parameters are called, and with or without a last slash.
fn shape(path: &str) -> String {
    let segment = |s: &str| if s.starts_with('{') { "{}".to_owned() } else { s.to_owned() };
    path.trim_end_matches('/').split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// Groups with at least one version that is on by default.
fn default_groups(routes: &[Route]) -> BTreeSet<String> {
    let mut groups = BTreeMap::new();
    for (group, version) in routes.iter().filter_map(|r| group_version(&r.path)) {
        *groups.entry(group.to_owned()).or_insert(false) |= version.is_some_and(|v| !is_preview(v));
    }
    groups.into_iter().filter(|(_, on)| *on).map(|(group, _)| group).collect()
}

/// Group and version of a path below `/apis`.
fn group_version(path: &str) -> Option<(&str, Option<&str>)> {
    let mut parts = path.strip_prefix("/apis/")?.split('/').filter(|s| !s.is_empty());
    Some((parts.next()?, parts.next()))
}

fn is_preview(version: &str) -> bool {
    version.contains("alpha") || version.contains("beta")
}

/// A request that finds out whether an operation is served, and changes nothing wherever it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Media type of the body `{}`; without it there is no body.
    pub content_type: Option<&'static str>,
}

impl Route {
    pub fn probe(&self) -> Probe {
        let (mut path, mut rest) = (String::new(), self.path.as_str());
        while let Some((before, (name, after))) =
            rest.split_once('{').and_then(|(before, after)| Some((before, after.split_once('}')?)))
        {
            // A log file of no name is the directory of them.
            path.push_str(&[before, if name == "logpath" { "" } else { NOBODY }].concat());
            rest = after;
        }
        path.push_str(rest);
        let connects = self.action == "connect";
        let query = match self.method.as_str() {
            "get" if self.action.starts_with("watch") => "resourceVersion=none",
            "get" if self.action == "list" => "limit=1",
            "delete" if !connects => "dryRun=All&fieldSelector=metadata.name%3Dapi-coverage-probe",
            "post" | "put" | "patch" if !connects => "dryRun=All",
            _ => "",
        };
        let writes = matches!(self.method.as_str(), "post" | "put" | "patch") && !connects;
        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        Probe { method: self.method.to_uppercase(), target, content_type: writes.then_some(NO_TYPE) }
    }
}

impl Probe {
    /// What an answer says: a route that is not there is a 404 that names no object, one without the method a 405.
    /// The body is only looked at for a 404.
    pub fn is_served(&self, code: u16, body: &[u8]) -> bool {
        let names_something = || {
            let status: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            status["details"]["name"].is_string()
        };
        // An answer to HEAD says no more than its code.
        !matches!(code, 405 | 501) && (code != 404 || self.method.eq_ignore_ascii_case("head") || names_something())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::facts;

    #[test]
    fn upstreams_document_is_covered() {
        let Some(document) = facts::read_json("openapi/swagger.json") else { return };
        let coverage = coverage_by_table(routes(&document).unwrap(), &ResourceTable::builtin());
        assert!(coverage.missing.is_empty(), "{:?}", coverage.missing);
        assert!(coverage.served.len() > 700 && coverage.off.len() > 200, "{}", coverage.served.len());
    }

    #[test]
    fn what_is_not_served_is_named() {
        let get = json!({"get": {"x-kubernetes-action": "list"}});
        let document = json!({"paths": {"/api/v1/pods": get, "/api/v1/ghosts": get, "/apis/a.k8s.io/": get,
            "/apis/a.k8s.io/v1beta1/x": get, "/apis/b.k8s.io/v1/x": get, "/apis/b.k8s.io/": get,
            "/api/v1/nodes/{node}": {"delete": {}, "parameters": [], "trace": {}}}});
        let found = coverage_by_table(routes(&document).unwrap(), &ResourceTable::builtin());
        let paths = |list: &[Route]| list.iter().map(|r| r.path.clone()).collect::<Vec<_>>();
        assert_eq!(paths(&found.served), ["/api/v1/nodes/{node}", "/api/v1/pods"]);
        assert_eq!(paths(&found.missing), ["/api/v1/ghosts", "/apis/b.k8s.io/", "/apis/b.k8s.io/v1/x"]);
        assert_eq!(paths(&found.off), ["/apis/a.k8s.io/", "/apis/a.k8s.io/v1beta1/x"]);
        assert!(routes(&json!({})).is_none());
    }

    #[test]
    fn probes_change_nothing() {
        for (path, method, action, target, content_type) in [
            (
                "/api/v1/namespaces/{namespace}/pods/{name}",
                "put",
                "put",
                "/api/v1/namespaces/api-coverage-probe/pods/api-coverage-probe?dryRun=All",
                Some(NO_TYPE),
            ),
            (
                "/api/v1/nodes/{name}/proxy/{path}",
                "post",
                "connect",
                "/api/v1/nodes/api-coverage-probe/proxy/api-coverage-probe",
                None,
            ),
            ("/api/v1/watch/pods", "get", "watchlist", "/api/v1/watch/pods?resourceVersion=none", None),
            ("/logs/{logpath}", "get", "", "/logs/", None),
        ] {
            let route = Route { path: path.into(), method: method.into(), action: action.into() };
            let expected = Probe { method: method.to_uppercase(), target: target.into(), content_type };
            assert_eq!(route.probe(), expected);
        }
        let probe = Probe { method: "GET".into(), target: "/".into(), content_type: None };
        let named = r#"{"kind": "Status", "details": {"name": "x", "kind": "pods"}}"#;
        for (code, body, served) in [
            (404, named, true),
            (404, r#"{"kind": "Status", "details": {}}"#, false),
            (404, "404 page not found", false),
            (405, named, false),
            (415, "", true),
        ] {
            assert_eq!(probe.is_served(code, body.as_bytes()), served, "{code} {body}");
        }
    }
}
