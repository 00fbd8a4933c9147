//! What is told of a traced request, under the names that upstream and OpenTelemetry have.

use std::time::Instant;

use http::header::{HOST, USER_AGENT};
use kube1_trace::{Attribute, Span, Tracer};

use crate::call::Call;
use crate::request_info::RequestInfo;

/// Members of these decide with their own spans what is traced; others only by the configured share.
const TRUSTED: [&str; 2] = ["system:masters", "system:monitoring"];

/// The span of a request whose user is known.
pub fn request(tracer: &Tracer, call: &Call, started: Instant) -> Span {
    let trusted = call.user.groups.iter().any(|group| TRUSTED.contains(&group.as_str()));
    let span = tracer.request(name(call), call.headers(), trusted, started, Vec::new());
    if span.is_recorded() {
        attributes(call).into_iter().for_each(|(name, value)| span.add(name, value));
    }
    span
}

fn attributes(call: &Call) -> Vec<Attribute> {
    let (parts, text) = (&call.parts, |name| call.headers().get(name).and_then(|v| v.to_str().ok()));
    let host = text(HOST).or_else(|| parts.uri.authority().map(|a| a.as_str())).unwrap_or_default();
    let target = parts.uri.path_and_query().map_or_else(|| parts.uri.path(), |target| target.as_str());
    let version = match parts.version {
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    let mut all: Vec<Attribute> = vec![
        ("http.request.method", parts.method.as_str().into()),
        ("url.scheme", "https".into()),
        ("server.address", host.into()),
        ("url.path", parts.uri.path().into()),
        ("http.target", target.into()),
        ("network.protocol.version", version.into()),
        ("audit-id", call.audit_id.as_str().into()),
    ];
    all.extend(text(USER_AGENT).map(|agent| ("user_agent.original", agent.into())));
    all.extend(call.client_ip.map(|address| ("network.peer.address", address.to_string().into())));
    all
}

/// A request's method and path, with what names one object or namespace left out.
fn name(call: &Call) -> String {
    let (method, info) = (&call.parts.method, &call.info);
    if info.is_resource { format!("{method} {}", template(info)) } else { method.to_string() }
}

fn template(info: &RequestInfo) -> String {
    let RequestInfo { group, version, resource, subresource, .. } = info;
    let mut path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    if !info.namespace.is_empty() {
        path.push_str("/namespaces/{:namespace}");
    }
    path.push('/');
    path.push_str(resource);
    if !info.name.is_empty() {
        path.push_str("/{:name}");
    }
    if !subresource.is_empty() {
        path.push('/');
        path.push_str(subresource);
    }
    path
}

/// The name of the span of a request's handler; none where upstream has none.
pub fn handler(info: &RequestInfo) -> Option<&'static str> {
    Some(match info.verb.as_str() {
        _ if !info.is_resource => return None,
        "get" => "Get",
        "list" => "List",
        "create" => "Create",
        "update" => "Update",
        "patch" => "Patch",
        "delete" | "deletecollection" => "Delete",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::query::Query;

    #[test]
    fn names_are_the_same_for_all_objects() {
        for (method, path, expected) in [
            (Method::GET, "/api/v1/namespaces/a/pods/b", "/api/v1/namespaces/{:namespace}/pods/{:name}"),
            (Method::POST, "/api/v1/namespaces/a/pods/b/exec", "/api/v1/namespaces/{:namespace}/pods/{:name}/exec"),
            (Method::GET, "/apis/apps/v1/deployments", "/apis/apps/v1/deployments"),
            (Method::GET, "/api/v1/nodes/n", "/api/v1/nodes/{:name}"),
        ] {
            assert_eq!(template(&RequestInfo::parse(&method, path, &Query::parse(""))), expected);
        }
    }
}
