//! What kubelets answer: logs, and commands in containers.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};
use kube1_api::field::{FieldError, FieldPath};
use kube1_api::name::GroupKind;
use kube1_api::status::Status;
use kube1_streaming::channels::{self, Wanted};
use kube1_streaming::tunnel::{self, TUNNEL};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::admission::Operation;
use crate::call::Call;
use crate::dial::{Address, Target, Trust};
use crate::http::forward::{Backend, Forwarded, Switched, forward, switch, wants_upgrade};
use crate::http::respond::{self, Reply};
use crate::http::websocket::Wish;
use crate::query::Query;
use crate::registry::Endpoint;
use crate::server::Server;

/// Bytes of a refusal that are read.
const REFUSAL: usize = 64 << 10;
/// Where kubelets are offered versions of a streaming protocol.
const STREAM_VERSION: &str = "x-stream-protocol-version";
/// Bytes that a query's values may not hold as they are.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// GET of a container's log.
pub async fn log(endpoint: &Endpoint, call: &mut Call) -> Result<Reply, Status> {
    let wish = Wish::take(&mut call.parts, false)?;
    if call.query.get("stream").is_some() {
        // The feature PodLogsQuerySplitStreams is off.
        let errors = vec![FieldError::forbidden(&FieldPath::new("stream"), "may not be specified")];
        return Err(Status::invalid(&GroupKind::new("", "PodLogOptions"), &endpoint.name, errors));
    }
    let pod = endpoint.stored()?.value();
    let container = container(call, &pod)?;
    let Some(node) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) else {
        // Nothing has run yet.
        return Ok(respond::text(StatusCode::OK, ""));
    };
    let known = ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes"];
    let query = pairs(call.query.pairs().filter(|(key, _)| known.contains(key)));
    let path = format!("/containerLogs/{}/{}/{container}?{query}", endpoint.namespace, endpoint.name);
    let mut to = at_node(&endpoint.server, node, path)?;
    if call.query.flag("insecureSkipTLSVerifyBackend")
        && let Backend::Tls(target) = &mut to.backend
    {
        target.trust = Trust::Anything;
    }
    let reply = granted(forward(&endpoint.server, call, to).await?).await?;
    match wish {
        Some(wish) => Ok(wish.grant(&endpoint.server, reply)),
        None => Ok(reply),
    }
}

/// A kubelet says in plain text why there is no log; clients are told in a Status.
async fn granted(reply: Reply) -> Result<Reply, Status> {
    let code = reply.status();
    if !(code.is_client_error() || code.is_server_error()) {
        return Ok(reply);
    }
    let unreadable = |error| Status::service_unavailable(format!("error trying to reach service: {error}"));
    let text = Limited::new(reply.into_body(), REFUSAL).collect().await.map_err(unreadable)?.to_bytes();
    let text = String::from_utf8_lossy(&text);
    Err(match code {
        StatusCode::NOT_FOUND => Status::no_such_path(),
        code if code.is_client_error() => Status::bad_request(text),
        _ => Status::internal(text),
    })
}

/// GET or POST of exec, attach or portforward.
pub async fn stream(endpoint: &Endpoint, call: &mut Call, what: &str) -> Result<Reply, Status> {
    if call.info.verb == "get" {
        // Websocket clients can only GET; what they do is still worth the permission to create.
        endpoint.authorize_create(call).await?;
    }
    let pod = endpoint.stored()?.value();
    connect_admission(endpoint, call).await?;
    let path = match what {
        "portforward" => {
            let ports = ports(&call.query)?;
            format!("/portForward/{}/{}?{ports}", endpoint.namespace, endpoint.name)
        }
        _ => {
            let container = container(call, &pod)?;
            format!("/{what}/{}/{}/{container}?{}", endpoint.namespace, endpoint.name, flags(call)?)
        }
    };
    if !wants_upgrade(call.headers()) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let Some(node) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) else {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", endpoint.name)));
    };
    let mut to = at_node(&endpoint.server, node, path)?;
    let server = &endpoint.server;
    if !takes_websockets(server, node) {
        if what == "portforward" {
            if let Some(wish) = Wish::take_offer(&mut call.parts, TUNNEL)? {
                to.headers.insert(STREAM_VERSION, HeaderValue::from_static(tunnel::BACKEND_VERSION));
                return match switch(server, &to, "SPDY/3.1").await? {
                    Switched::To(backend) => Ok(wish.tunnel(server, backend)),
                    Switched::Refused(code, text) => Ok(respond::text(code, text)),
                };
            }
        } else if let Some(wish) = Wish::take_offer(&mut call.parts, channels::V5)? {
            for version in channels::BACKEND_VERSIONS {
                to.headers.append(STREAM_VERSION, HeaderValue::from_static(version));
            }
            let backend = match switch(server, &to, "SPDY/3.1").await {
                Ok(Switched::To(backend)) => Ok(backend),
                Ok(Switched::Refused(_, text)) => {
                    Err(Status::internal(format!("unable to upgrade connection: {text}")))
                }
                Err(status) => Err(status),
            };
            return Ok(wish.streams(server, backend, wanted(call)));
        }
    }
    forward(server, call, to).await
}

/// Whether a node's kubelet translates the websockets of clients itself (`ExtendWebSocketsToKubelet`).
fn takes_websockets(server: &Server, node: &str) -> bool {
    let node = server.reviews.reader.get("", "nodes", "", node).unwrap_or_default();
    let declared = node["status"]["declaredFeatures"].as_array().into_iter().flatten();
    declared.into_iter().any(|feature| feature == "ExtendWebSocketsToKubelet")
}

/// The streams that a client asks for.
fn wanted(call: &Call) -> Wanted {
    let on = |key| call.query.flag(key);
    Wanted { stdin: on("stdin"), stdout: on("stdout"), stderr: on("stderr"), tty: on("tty") }
}

/// Lets admission judge a connection.
pub(super) async fn connect_admission(endpoint: &Endpoint, call: &Call) -> Result<(), Status> {
    let kind = endpoint.row.subresource(&call.info.subresource).map_or("", |s| s.kind.as_str());
    let mut options = json!({"apiVersion": "v1", "kind": kind});
    for (key, value) in call.query.pairs() {
        match key {
            "command" | "ports" => match &mut options[key] {
                Value::Array(list) => list.push(value.into()),
                slot => *slot = json!([value]),
            },
            "stdin" | "stdout" | "stderr" | "tty" => options[key] = (value != "false" && value != "0").into(),
            _ => options[key] = value.into(),
        }
    }
    let mut attributes = endpoint.attributes(call, Operation::Connect, Value::Null, false);
    attributes.options = None;
    attributes.object = Some(options);
    attributes.object = Some(endpoint.mutate(call, &mut attributes).await?);
    endpoint.validate(call, &mut attributes).await
}

/// The streams a client asks for, as the kubelet calls them.
fn flags(call: &Call) -> Result<String, Status> {
    let query = &call.query;
    let flags = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
    let wanted: Vec<&str> = flags.iter().filter(|(from, _)| query.flag(from)).map(|(_, to)| *to).collect();
    if !["input", "output", "error"].iter().any(|s| wanted.contains(s)) {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let commands = query.pairs().filter(|(key, _)| *key == "command");
    Ok(pairs(commands.chain(wanted.into_iter().map(|flag| (flag, "1")))))
}

/// The ports to connect, as the kubelet takes them. Clients give them one by one or separated by commas.
fn ports(query: &Query) -> Result<String, Status> {
    let asked: Vec<&str> = query.all("ports").flat_map(|v| v.split(',')).filter(|v| !v.is_empty()).collect();
    match asked.iter().find(|port| port.parse::<u16>().is_err()) {
        Some(bad) => Err(Status::bad_request(format!("{bad:?} is no port number"))),
        None => Ok(pairs(asked.into_iter().map(|port| ("port", port)))),
    }
}

fn pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let encoded: Vec<String> = pairs.map(|(k, v)| format!("{k}={}", utf8_percent_encode(v, RESERVED))).collect();
    encoded.join("&")
}

/// The container that is asked for, or the only one.
fn container(call: &Call, pod: &Value) -> Result<String, Status> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let names = |member: &str| -> Vec<String> {
        let list = pod["spec"][member].as_array().into_iter().flatten();
        list.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
    };
    let (main, init, extra) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    if let Some(asked) = call.query.text("container") {
        if main.iter().chain(&init).chain(&extra).any(|n| n == asked) {
            return Ok(asked.to_owned());
        }
        return Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    if let [only] = &main[..] {
        return Ok(only.clone());
    }
    let mut text = format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
    if !init.is_empty() {
        text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    Err(Status::bad_request(text))
}

/// A request for the kubelet of a node.
pub(super) fn at_node(server: &Arc<Server>, name: &str, path: String) -> Result<Forwarded, Status> {
    let (target, host) = target(server, name)?;
    Ok(Forwarded { backend: Backend::Tls(Box::new(target)), path, host, headers: HeaderMap::new() })
}

/// How to reach the kubelet of a node, and what it is called in requests.
pub fn target(server: &Server, name: &str) -> Result<(Target, String), Status> {
    let node = server.reviews.reader.get("", "nodes", "", name);
    let node = node.ok_or_else(|| Status::internal(format!("node {name} is not known")))?;
    let (address, port) = kubelet_address(&node)
        .ok_or_else(|| Status::internal(format!("no preferred addresses found; known addresses of node {name}: []")))?;
    let host = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
    let target = Target {
        address: match address.parse::<IpAddr>() {
            Ok(ip) => Address::Socket((ip, port).into()),
            Err(_) => Address::Host(address.clone(), port),
        },
        server_name: address,
        trust: Trust::Authorities(server.config.pki.ca.certificate_pem().as_bytes().to_vec()),
        identity: Some(server.config.pki.kubelet_client.clone()),
    };
    Ok((target, host))
}

/// Where a node's kubelet listens.
fn kubelet_address(node: &Value) -> Option<(String, u16)> {
    let addresses = node["status"]["addresses"].as_array()?;
    let of_type = |kind: &str| addresses.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str());
    let address = ["InternalIP", "Hostname", "InternalDNS", "ExternalIP"].into_iter().find_map(of_type)?;
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap_or(10250);
    Some((address.to_owned(), u16::try_from(port).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_one_by_one_or_separated_by_commas() {
        let cases = [
            ("ports=80", Ok("port=80")),
            ("ports=80&ports=443", Ok("port=80&port=443")),
            ("ports=80,443&x=1", Ok("port=80&port=443")),
            ("", Ok("")),
            ("ports=http", Err("\"http\" is no port number")),
            ("ports=80,70000", Err("\"70000\" is no port number")),
        ];
        for (text, expected) in cases {
            let found = ports(&Query::parse(text)).map_err(|status| status.message().to_owned());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{text}");
        }
    }
}
