//! What a request asks for, read off its method, path and query alone.

use http::Method;
use kube1_api::selector::FieldSelector;
use smallvec::SmallVec;

use crate::query::{Query, decode};

/// The parsed form of a request's target, as authorization, flow control and audit see it.
///
/// For a resource request `path` is still set; for others the resource fields are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub is_resource: bool,
    pub path: String,
    /// Kubernetes verb for resources (`get`, `list`, `deletecollection` ...), lower-case HTTP method otherwise.
    pub verb: String,
    pub group: String,
    pub version: String,
    /// Empty for cluster-scoped requests.
    pub namespace: String,
    /// Plural name of the resource.
    pub resource: String,
    pub subresource: String,
    /// What follows the subresource in the path (proxy), without the leading slash.
    pub subresource_path: String,
    /// Empty for collections. A list or watch with `fieldSelector=metadata.name=X` carries `X`.
    pub name: String,
    /// Raw selectors, passed on to authorizers.
    pub label_selector: String,
    pub field_selector: String,
}

impl RequestInfo {
    /// Parses a target. Never fails: what is no resource path is a non-resource request.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let mut info = Self { path: decode(path), ..Self::default() };
        let raw: SmallVec<[&str; 10]> = path.split('/').skip(1).collect();
        let mut rest = match raw[..] {
            ["api", version, ref rest @ ..] if !rest.is_empty() => {
                info.version = decode(version);
                rest
            }
            ["apis", group, version, ref rest @ ..] if !rest.is_empty() => {
                info.group = decode(group);
                info.version = decode(version);
                rest
            }
            _ => return Self { verb: method.as_str().to_lowercase(), ..info },
        };
        if rest[0].is_empty() {
            return Self { path: info.path, verb: method.as_str().to_lowercase(), ..Self::default() };
        }
        info.is_resource = true;
        info.verb = verb_of(method).into();
        if rest[0] == "watch" && rest.len() > 1 {
            info.verb = "watch".into();
            rest = &rest[1..];
        }
        info.parse_resource(rest);
        info.label_selector = query.get("labelSelector").unwrap_or_default().into();
        info.field_selector = query.get("fieldSelector").unwrap_or_default().into();
        info.refine_verb(query);
        info
    }

    /// The path below the group version.
    fn parse_resource(&mut self, mut rest: &[&str]) {
        if let ["namespaces", namespace, ref below @ ..] = *rest {
            self.namespace = decode(namespace);
            // `namespaces/NS/status` and `/finalize` are subresources of the namespace itself.
            if below.first().is_some_and(|r| !r.is_empty() && !matches!(*r, "status" | "finalize")) {
                rest = below;
            }
        }
        let part = |index: usize| rest.get(index).map(|p| decode(p)).unwrap_or_default();
        self.resource = part(0);
        self.name = part(1);
        self.subresource = part(2);
        self.subresource_path = rest.get(3..).map(|p| p.join("/")).unwrap_or_default();
    }

    /// Tells collections from single objects.
    fn refine_verb(&mut self, query: &Query) {
        if !self.name.is_empty() && self.verb != "watch" {
            return;
        }
        match self.verb.as_str() {
            "get" => self.verb = if query.flag("watch") { "watch" } else { "list" }.into(),
            "delete" => self.verb = "deletecollection".into(),
            _ => {}
        }
        if self.name.is_empty() && matches!(self.verb.as_str(), "list" | "watch") {
            let selector = FieldSelector::parse(&self.field_selector).unwrap_or_default();
            self.name = selector.exact("metadata.name").unwrap_or_default().into();
        }
    }

    /// Requests that stay open for as long as their client wants.
    pub fn is_long_running(&self) -> bool {
        self.is_resource
            && (self.verb == "watch"
                || matches!(self.subresource.as_str(), "proxy" | "exec" | "attach" | "portforward" | "log"))
    }

    /// Whether the path names a single object; `name` alone does not tell, since selectors fill it too.
    pub fn is_collection(&self) -> bool {
        matches!(self.verb.as_str(), "list" | "deletecollection")
            || (self.verb == "watch" && self.subresource.is_empty())
            || (self.verb == "create" && self.name.is_empty())
    }
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::GET | Method::HEAD => "get",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_parsed() {
        // method, target, expected: verb group/version namespace resource name subresource path
        for (method, target, expected) in [
            (Method::GET, "/api/v1/pods", "list |v1||pods|||"),
            (Method::GET, "/api/v1/pods?watch=1", "watch |v1||pods|||"),
            (Method::GET, "/api/v1/watch/namespaces/a/pods", "watch |v1|a|pods|||"),
            (Method::GET, "/api/v1/namespaces/a", "get |v1|a|namespaces|a||"),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "update |v1|a|namespaces|a|finalize|"),
            (Method::GET, "/api/v1/namespaces/a/pods/p/proxy/x//y/", "get |v1|a|pods|p|proxy|x//y/"),
            (Method::DELETE, "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps|v1|a|deployments|||"),
            (Method::DELETE, "/apis/apps/v1/namespaces/a/deployments/d", "delete apps|v1|a|deployments|d||"),
            (Method::POST, "/api/v1/namespaces/a/pods/p/exec", "create |v1|a|pods|p|exec|"),
            (
                Method::GET,
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "get rbac.authorization.k8s.io|v1||clusterroles|system:node||",
            ),
            (Method::GET, "/api/v1/secrets?fieldSelector=metadata.name%3Dx", "list |v1||secrets|x||"),
            (Method::GET, "/apis/apps/v1", "get |||||| /apis/apps/v1"),
            (Method::GET, "/healthz", "get |||||| /healthz"),
        ] {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let info = RequestInfo::parse(&method, path, &Query::parse(query));
            let mut text = format!(
                "{} {}|{}|{}|{}|{}|{}|{}",
                info.verb,
                info.group,
                info.version,
                info.namespace,
                info.resource,
                info.name,
                info.subresource,
                info.subresource_path
            );
            if !info.is_resource {
                text = format!("{text} {}", info.path);
            }
            assert_eq!(text, expected, "{method} {target}");
        }
    }
}
