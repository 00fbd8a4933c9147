//! The proxy subresource of pods, services and nodes.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use kube1_api::status::Status;
use serde_json::Value;

use super::kubelet::{at_node, connect_admission};
use super::rewrite::rewrite_links;
use crate::call::Call;
use crate::dial::{Address, Resolver, Target, Trust};
use crate::http::body::{ResponseBody, read_limited};
use crate::http::forward::{Backend, Forwarded, forward, wants_upgrade};
use crate::http::respond::{self, Reply};
use crate::registry::Endpoint;

/// Pages longer than this are passed on without a change.
const PAGE_MAX: usize = 8 << 20;

/// A request of any method for what listens in a pod, behind a service, or on a node.
pub async fn route(endpoint: &Endpoint, call: &mut Call) -> Result<Reply, Status> {
    let path = call.parts.uri.path().to_owned();
    // The subresource's own segment is the second one after the resource's.
    let start = path.find(&format!("/{}/", endpoint.row.plural)).map_or(0, |i| i + endpoint.row.plural.len() + 2);
    let marker = path[start..].find("/proxy").map_or(path.len(), |i| start + i + "/proxy".len());
    let (prefix, rest) = (path[..marker].to_owned(), path[marker..].to_owned());
    if rest.is_empty() && matches!(call.parts.method, Method::GET | Method::HEAD) {
        return redirect(call, &prefix);
    }
    connect_admission(endpoint, call).await?;
    let query = call.parts.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let rest = if rest.is_empty() { "/".to_owned() } else { rest };
    let wanted = Wanted::parse(&endpoint.name)?;
    let to = destination(endpoint, &wanted, format!("{rest}{query}"))?;
    let host = to.host.clone();
    // Pages are changed on their way, which compressed ones cannot be.
    if !wants_upgrade(call.headers()) {
        call.parts.headers.remove(http::header::ACCEPT_ENCODING);
    }
    let mut reply = forward(&endpoint.server, call, to).await?;
    rewrite_location(&mut reply, &host, &prefix);
    rewrite_page(reply, &host, &prefix).await
}

/// `[scheme:]name[:port]`.
struct Wanted {
    https: bool,
    name: String,
    port: String,
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, Status> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => ("?", "", ""),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            return Err(Status::bad_request(format!("invalid proxy target {text:?}: want [scheme:]name[:port]")));
        }
        Ok(Self { https: scheme == "https", name: name.into(), port: port.into() })
    }
}

fn destination(endpoint: &Endpoint, wanted: &Wanted, path: String) -> Result<Forwarded, Status> {
    let server = &endpoint.server;
    let address = match endpoint.row.plural.as_str() {
        "nodes" if wanted.port.is_empty() && !wanted.https => return at_node(server, &wanted.name, path),
        "nodes" => {
            let mut to = at_node(server, &wanted.name, path)?;
            let port = wanted.port.parse::<u16>();
            if let (Backend::Tls(target), Ok(port)) = (&mut to.backend, port) {
                let own = matches!(target.address, Address::Socket(a) if a.port() == port);
                if let (Address::Socket(address), false) = (&target.address, own) {
                    to.backend = Backend::Plain(SocketAddr::new(address.ip(), port));
                }
            }
            return Ok(to);
        }
        "services" => Resolver::new(&server.storage, &server.table.load())
            .ok_or_else(|| Status::internal("services are not in the resource table"))?
            .endpoint(&endpoint.namespace, &wanted.name, &wanted.port)
            .map_err(|error| match error {
                crate::dial::ResolveError::NoService(name) => Status::not_found(&endpoint.group_resource(), &name),
                error => Status::service_unavailable(error.to_string()),
            })?,
        _ => pod_address(endpoint, wanted)?,
    };
    check_address(address.ip())?;
    let host = address.to_string();
    let backend = if wanted.https {
        let (server_name, trust) = (address.ip().to_string(), Trust::Anything);
        Backend::Tls(Box::new(Target { address: address.into(), server_name, trust, identity: None }))
    } else {
        Backend::Plain(address)
    };
    Ok(Forwarded { backend, path, host, headers: HeaderMap::new() })
}

/// Nobody may reach what listens on the server's own machine by way of a pod or service that claims its addresses.
fn check_address(ip: IpAddr) -> Result<(), Status> {
    let local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || local {
        return Err(Status::bad_request("address not allowed"));
    }
    Ok(())
}

fn pod_address(endpoint: &Endpoint, wanted: &Wanted) -> Result<SocketAddr, Status> {
    let pod = endpoint.collection.get(&endpoint.namespace, &wanted.name);
    let pod = pod.ok_or_else(|| Status::not_found(&endpoint.group_resource(), &wanted.name))?.value();
    let ip = pod["status"]["podIP"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
    let ip = ip.ok_or_else(|| Status::service_unavailable("address not allowed: the pod has no address yet"))?;
    let containers = pod["spec"]["containers"].as_array();
    let ports: Vec<&Value> =
        containers.into_iter().flatten().flat_map(|c| c["ports"].as_array().into_iter().flatten()).collect();
    let number = |port: &Value| port["containerPort"].as_u64().and_then(|p| u16::try_from(p).ok());
    let port = match wanted.port.as_str() {
        "" => ports.first().and_then(|p| number(p)).or(Some(80)),
        text => text.parse().ok().or_else(|| ports.iter().find(|p| p["name"] == text).and_then(|p| number(p))),
    };
    let port = port.ok_or_else(|| Status::bad_request(format!("the pod has no port {:?}", wanted.port)))?;
    Ok(SocketAddr::new(ip, port))
}

/// Relative links need the slash.
fn redirect(call: &Call, prefix: &str) -> Result<Reply, Status> {
    let query = call.parts.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let mut reply = respond::text(StatusCode::MOVED_PERMANENTLY, "");
    let location = HeaderValue::from_str(&format!("{prefix}/{query}")).map_err(Status::internal)?;
    reply.headers_mut().insert(LOCATION, location);
    Ok(reply)
}

/// Keeps redirects of the other server within the proxy.
fn rewrite_location(reply: &mut Reply, host: &str, prefix: &str) {
    let Some(location) = reply.headers().get(LOCATION).and_then(|v| v.to_str().ok()) else { return };
    let absolute = ["http://", "https://"].iter().find_map(|s| location.strip_prefix(s)?.strip_prefix(host));
    let path = match absolute {
        Some("") => "/",
        Some(path) => path,
        None => location,
    };
    if path.starts_with('/')
        && !path.starts_with("//")
        && let Ok(value) = HeaderValue::from_str(&format!("{prefix}{path}"))
    {
        reply.headers_mut().insert(LOCATION, value);
    }
}

/// Makes absolute links of HTML pages lead through the proxy.
async fn rewrite_page(mut reply: Reply, host: &str, prefix: &str) -> Result<Reply, Status> {
    let html =
        reply.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|v| v.starts_with("text/html"));
    if !html || reply.headers().contains_key(CONTENT_ENCODING) {
        return Ok(reply);
    }
    let body = std::mem::replace(reply.body_mut(), ResponseBody::empty());
    let page = read_limited(body, PAGE_MAX).await?;
    let page: Bytes = rewrite_links(&page, host, prefix).into();
    reply.headers_mut().remove(CONTENT_LENGTH);
    *reply.body_mut() = ResponseBody::Full(page);
    Ok(reply)
}
