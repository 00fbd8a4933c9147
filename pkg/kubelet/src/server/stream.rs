//! Exec, attach and port-forward: the runtime serves the streams itself; their bytes pass through unchanged.
//!
//! What a client may speak (SPDY or WebSocket subprotocols) is therefore what the runtime speaks. An offer that it does
//! not know is refused by the runtime's own answer, after which clients try the next one.

use std::collections::HashMap;
use std::sync::Arc;

use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kube1_cri::v1::{AttachRequest, ContainerState, ExecRequest};
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;

use super::{Body, Reply, Server, full, text};
use crate::labels;
use crate::pod::PodExt;

/// The query of a request.
pub(super) fn query(request: &Request<Incoming>) -> Vec<(String, String)> {
    pairs(request.uri().query().unwrap_or_default())
}

/// A query's pairs in order.
pub fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter(|p| !p.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect()
}

/// Runs a command in a container, or attaches to what runs in it.
pub(super) async fn exec_or_attach(
    server: &Arc<Server>,
    request: Request<Incoming>,
    what: &str,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Reply {
    let Some(entry) = server.node.pods.by_name(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    let wanted = HashMap::from([
        (labels::POD_UID.to_owned(), entry.pod().uid().to_owned()),
        (labels::CONTAINER_NAME.to_owned(), container.to_owned()),
    ]);
    let found = match server.node.runtime.list_containers(wanted).await {
        Ok(containers) => containers.into_iter().find(|c| c.state() == ContainerState::ContainerRunning),
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let Some(found) = found else {
        return text(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")"));
    };
    let query = query(&request);
    let on = |names: [&str; 2]| query.iter().any(|(k, v)| names.contains(&k.as_str()) && (v == "1" || v == "true"));
    let (stdin, stdout, stderr, tty) =
        (on(["input", "stdin"]), on(["output", "stdout"]), on(["error", "stderr"]), on(["tty", "tty"]));
    // A terminal has one output.
    let stderr = stderr && !tty;
    if !stdin && !stdout && !stderr {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let url = if what == "exec" {
        let cmd = query.iter().filter(|(k, _)| k == "command").map(|(_, v)| v.clone()).collect();
        server.node.runtime.exec(ExecRequest { container_id: found.id, cmd, tty, stdin, stdout, stderr }).await
    } else {
        server.node.runtime.attach(AttachRequest { container_id: found.id, stdin, tty, stdout, stderr }).await
    };
    match url {
        Ok(url) => pass(server, request, &url).await,
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Connects ports of a pod.
pub(super) async fn port_forward(
    server: &Arc<Server>,
    request: Request<Incoming>,
    namespace: &str,
    pod: &str,
) -> Reply {
    let Some(entry) = server.node.pods.by_name(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    let Some(sandbox) = entry.sandbox.lock().clone() else {
        return text(StatusCode::BAD_REQUEST, "the pod has no running sandbox");
    };
    let ports = query(&request).iter().filter(|(k, _)| k == "port").filter_map(|(_, v)| v.parse().ok()).collect();
    match server.node.runtime.port_forward(&sandbox, ports).await {
        Ok(url) => pass(server, request, &url).await,
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Sends the request on to the runtime's streaming server and, once both sides agree, joins the connections.
async fn pass(server: &Arc<Server>, mut request: Request<Incoming>, url: &str) -> Reply {
    let bad = |what: String| text(StatusCode::BAD_GATEWAY, format!("the runtime's streaming server: {what}"));
    let Ok(uri) = url.parse::<Uri>() else { return bad(format!("{url} is no URL")) };
    let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else { return bad(format!("{url} has no port")) };
    let stream = match TcpStream::connect((host.trim_matches(['[', ']']), port)).await {
        Ok(stream) => stream,
        Err(error) => return bad(error.to_string()),
    };
    // Keystrokes must not wait for more of them.
    let _ = stream.set_nodelay(true);
    let mut onward = Request::builder().method(request.method()).uri(uri.path_and_query().map_or("/", |p| p.as_str()));
    if let Some(headers) = onward.headers_mut() {
        headers.extend(request.headers().iter().filter(|(name, _)| *name != HOST).map(|(n, v)| (n.clone(), v.clone())));
        headers.remove(http::header::AUTHORIZATION);
    }
    let onward = onward.header(HOST, format!("{host}:{port}")).body(Empty::<bytes::Bytes>::new());
    let onward = match onward {
        Ok(onward) => onward,
        Err(error) => return bad(error.to_string()),
    };
    let (mut sender, connection) = match hyper::client::conn::http1::handshake(TokioIo::new(stream)).await {
        Ok(pair) => pair,
        Err(error) => return bad(error.to_string()),
    };
    let stop = server.stop.clone();
    server.tracker.spawn(async move { stop.run_until_cancelled(connection.with_upgrades()).await });
    let mut answer = match sender.send_request(onward).await {
        Ok(answer) => answer,
        Err(error) => return bad(error.to_string()),
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (parts, body) = answer.into_parts();
        let mut reply = Response::new(body.map_err(std::io::Error::other).boxed());
        *reply.status_mut() = parts.status;
        for (name, value) in parts.headers.iter().filter(|(n, _)| **n != CONNECTION && **n != UPGRADE) {
            reply.headers_mut().append(name, value.clone());
        }
        return reply;
    }
    let mut reply: Response<Body> = Response::new(full(""));
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *reply.headers_mut() = answer.headers().clone();
    let (ours, theirs) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
    let stop = server.stop.clone();
    server.tracker.spawn(async move {
        let joined = async {
            let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) else { return };
            let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
            // Either side may end at any time; that is how these streams end.
            let _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await;
        };
        stop.run_until_cancelled(joined).await;
    });
    reply
}
