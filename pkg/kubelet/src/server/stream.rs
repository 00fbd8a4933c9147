//! Exec, attach and port-forward: the runtime serves the streams itself; their bytes pass through unchanged.
//!
//! What a client may speak (SPDY or WebSocket subprotocols) is therefore what the runtime speaks, and besides it the
//! websockets that are translated here (`ExtendWebSocketsToKubelet`): the fifth version for commands, tunnels for ports. Any
//! other offer that the runtime does not know is refused by its own answer, after which clients try the next one.

use std::collections::HashMap;
use std::sync::Arc;

use http::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kube1_cri::v1::{AttachRequest, ContainerState, ExecRequest};
use kube1_streaming::channels::{self, Wanted};
use kube1_streaming::{Upgrade, tunnel};
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;

use super::{Body, Reply, Server, full, text};
use crate::labels;
use crate::pod::PodExt;

/// Where a server is offered versions of a streaming protocol.
const STREAM_VERSION: &str = "x-stream-protocol-version";
const SPDY: &str = "SPDY/3.1";

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
    let streams = Streams::Command(Wanted { stdin, stdout, stderr, tty });
    match url {
        Ok(url) => serve(server, request, &url, streams).await,
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
        Ok(url) => serve(server, request, &url, Streams::Ports).await,
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// What a connection carries.
#[derive(Clone, Copy)]
enum Streams {
    Command(Wanted),
    Ports,
}

impl Streams {
    /// The protocol of websockets that are translated, and what the runtime is offered for them.
    fn protocols(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Command(_) => (channels::V5, &channels::BACKEND_VERSIONS),
            Self::Ports => (tunnel::TUNNEL, &[tunnel::BACKEND_VERSION]),
        }
    }
}

/// Serves the streams that the runtime has at `url`.
async fn serve(server: &Arc<Server>, mut request: Request<Incoming>, url: &str, streams: Streams) -> Reply {
    let (known, versions) = streams.protocols();
    let headers = request.headers().clone();
    let upgrade = match Upgrade::take_offer(&headers, request.extensions_mut(), &[known]) {
        Ok(Some(upgrade)) => upgrade,
        Ok(None) => return pass(server, request, url).await,
        Err(wrong) => return text(StatusCode::BAD_REQUEST, wrong),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    for version in versions {
        headers.append(STREAM_VERSION, HeaderValue::from_static(version));
    }
    let answer = match ask(server, &Method::POST, url, headers).await {
        Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => answer,
        Ok(answer) => return refused(answer),
        Err(error) => return bad_gateway(&error),
    };
    let mut reply: Response<Body> = Response::new(full(""));
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *reply.headers_mut() = upgrade.headers();
    let stop = server.stop.clone();
    server.tracker.spawn(async move {
        let translating = async {
            let backend = hyper::upgrade::on(answer).await.map_err(std::io::Error::other)?;
            let (client, backend) = (upgrade.socket().await?, TokioIo::new(backend));
            match streams {
                Streams::Command(wanted) => channels::translate(client, backend, wanted).await,
                Streams::Ports => tunnel::join(client, backend).await,
            }
        };
        if let Some(Err(error)) = stop.run_until_cancelled(translating).await {
            tracing::debug!(%error, "streams ended");
        }
    });
    reply
}

fn bad_gateway(what: &str) -> Reply {
    text(StatusCode::BAD_GATEWAY, format!("the runtime's streaming server: {what}"))
}

/// Sends a request without a body to the runtime's streaming server.
async fn ask(
    server: &Arc<Server>,
    method: &Method,
    url: &str,
    headers: HeaderMap,
) -> Result<Response<Incoming>, String> {
    let uri = url.parse::<Uri>().map_err(|_| format!("{url} is no URL"))?;
    let place = uri.host().zip(uri.port_u16());
    let (host, port) = place.ok_or_else(|| format!("{url} has no port"))?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(|e| e.to_string())?;
    // Keystrokes must not wait for more of them.
    let _ = stream.set_nodelay(true);
    let mut onward = Request::builder().method(method).uri(uri.path_and_query().map_or("/", |p| p.as_str()));
    if let Some(own) = onward.headers_mut() {
        own.extend(headers);
    }
    let onward = onward.header(HOST, format!("{host}:{port}")).body(Empty::<bytes::Bytes>::new());
    let onward = onward.map_err(|e| e.to_string())?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    let stop = server.stop.clone();
    server.tracker.spawn(async move { stop.run_until_cancelled(connection.with_upgrades()).await });
    sender.send_request(onward).await.map_err(|e| e.to_string())
}

/// Why the runtime did not switch protocols.
fn refused(answer: Response<Incoming>) -> Reply {
    let (parts, body) = answer.into_parts();
    let mut reply = Response::new(body.map_err(std::io::Error::other).boxed());
    *reply.status_mut() = parts.status;
    for (name, value) in parts.headers.iter().filter(|(n, _)| **n != CONNECTION && **n != UPGRADE) {
        reply.headers_mut().append(name, value.clone());
    }
    reply
}

/// Sends the request on to the runtime's streaming server and, once both sides agree, joins the connections.
async fn pass(server: &Arc<Server>, mut request: Request<Incoming>, url: &str) -> Reply {
    let mut headers = request.headers().clone();
    headers.remove(HOST);
    headers.remove(AUTHORIZATION);
    let mut answer = match ask(server, request.method(), url, headers).await {
        Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => answer,
        Ok(answer) => return refused(answer),
        Err(error) => return bad_gateway(&error),
    };
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
