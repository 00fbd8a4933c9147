//! Passing requests on to other servers: bodies are streamed, upgraded connections are joined.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use kube1_api::status::Status;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpStream;

use crate::call::{Call, Lasting};
use crate::dial::{self, Target};
use crate::http::body::{RequestBody, ResponseBody};
use crate::http::respond::Reply;
use crate::server::Server;

const CONNECT: Duration = Duration::from_secs(10);
/// Bytes of a refusal that are read.
const REFUSAL: usize = 64 << 10;
/// Headers that belong to one connection and are not passed on.
const HOP_BY_HOP: [HeaderName; 5] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// How to reach the other server.
pub enum Backend {
    Tls(Box<Target>),
    Plain(std::net::SocketAddr),
}

/// A request for another server.
pub struct Forwarded {
    pub backend: Backend,
    /// Path and query.
    pub path: String,
    /// Value of the Host header.
    pub host: String,
    /// Headers beside those of the client's request.
    pub headers: HeaderMap,
}

type Sender = http1::SendRequest<RequestBody>;

/// Connects to the other server.
async fn open(server: &Arc<Server>, backend: &Backend) -> Result<Sender, Status> {
    match backend {
        Backend::Tls(target) => drive(server, timed(dial::connect(target)).await?).await,
        Backend::Plain(address) => drive(server, timed(TcpStream::connect(*address)).await?).await,
    }
}

async fn timed<T, E: std::error::Error>(connecting: impl Future<Output = Result<T, E>>) -> Result<T, Status> {
    match tokio::time::timeout(CONNECT, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            let source = error.source().map(|s| format!(": {s}")).unwrap_or_default();
            Err(Status::service_unavailable(format!("error trying to reach service: {error}{source}")))
        }
        Err(_) => Err(Status::service_unavailable("error trying to reach service: connecting took too long")),
    }
}

fn failed(error: hyper::Error) -> Status {
    unreachable(&error.to_string())
}

fn unreachable(why: &str) -> Status {
    Status::service_unavailable(format!("error trying to reach service: {why}"))
}

async fn drive<S>(server: &Arc<Server>, stream: S) -> Result<Sender, Status>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // The connection ends with the answer's body, with the joined connections, or with the server.
    let shutdown = server.shutdown.clone();
    server.streams.spawn(async move {
        tokio::select! {
            ended = connection.with_upgrades() => if let Err(error) = ended {
                tracing::debug!(%error, "a forwarded connection ended");
            },
            () = shutdown.cancelled() => {}
        }
    });
    Ok(sender)
}

/// What came of asking another server for another protocol.
pub enum Switched {
    To(Upgraded),
    /// What the other server answered instead.
    Refused(StatusCode, String),
}

/// Opens a connection of the server's own that speaks another protocol.
pub async fn switch(server: &Arc<Server>, to: &Forwarded, protocol: &'static str) -> Result<Switched, Status> {
    let mut sender = open(server, &to.backend).await?;
    let mut request = Request::post(to.path.as_str()).body(empty_body()).map_err(Status::internal)?;
    let headers = request.headers_mut();
    headers.extend(to.headers.clone());
    headers.insert(HOST, HeaderValue::from_str(&to.host).map_err(Status::internal)?);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    let answer = sender.send_request(request).await.map_err(failed)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let code = answer.status();
        let text =
            Limited::new(answer.into_body(), REFUSAL).collect().await.map_err(|e| unreachable(&e.to_string()))?;
        return Ok(Switched::Refused(code, String::from_utf8_lossy(&text.to_bytes()).trim().to_owned()));
    }
    hyper::upgrade::on(answer).await.map(Switched::To).map_err(failed)
}

fn empty_body() -> RequestBody {
    RequestBody::new(http_body_util::Empty::new().map_err(|e| match e {}))
}

/// Sends the call's request on and answers what the other server does. After a successful upgrade both connections are
/// joined until one ends or the server shuts down.
pub async fn forward(server: &Arc<Server>, call: &mut Call, to: Forwarded) -> Result<Reply, Status> {
    let mut sender = open(server, &to.backend).await?;
    let upgrade = wants_upgrade(&call.parts.headers);
    let client = call.parts.extensions.remove::<OnUpgrade>();
    let request = request(call, &to)?;
    let answer = sender.send_request(request).await.map_err(failed)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client.filter(|_| upgrade) else {
            return Err(Status::internal("the other server switched protocols unasked"));
        };
        return Ok(join(server, client, answer, call.lasting.clone()));
    }
    let (mut parts, body) = answer.into_parts();
    strip(&mut parts.headers);
    // The sender must live as long as the answer, or the connection ends.
    let body = body.map_frame(move |frame| {
        let _held = &sender;
        frame
    });
    Ok(Response::from_parts(parts, ResponseBody::Proxied(UnsyncBoxBody::new(body.map_err(Into::into)))))
}

/// Whether the client asks for another protocol.
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok());
    headers.contains_key(UPGRADE)
        && connection.flat_map(|v| v.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

fn request(call: &Call, to: &Forwarded) -> Result<Request<RequestBody>, Status> {
    let mut headers = call.parts.headers.clone();
    if wants_upgrade(&headers) {
        let protocol = headers.get(UPGRADE).cloned();
        strip(&mut headers);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Some(protocol) = protocol {
            headers.insert(UPGRADE, protocol);
        }
    } else {
        strip(&mut headers);
    }
    headers.insert(HOST, HeaderValue::from_str(&to.host).map_err(Status::internal)?);
    for (name, value) in &to.headers {
        headers.append(name, value.clone());
    }
    if let Some(client) = call.client_ip {
        let before = headers.get("x-forwarded-for").and_then(|v| v.to_str().ok()).map(|v| format!("{v}, "));
        let chain = format!("{}{client}", before.unwrap_or_default());
        headers.insert("x-forwarded-for", HeaderValue::from_str(&chain).map_err(Status::internal)?);
    }
    let body =
        call.take_body().unwrap_or_else(|| RequestBody::new(http_body_util::Empty::new().map_err(|e| match e {})));
    let mut request = Request::new(body);
    *request.method_mut() = call.parts.method.clone();
    *request.uri_mut() = to.path.parse().map_err(|e| Status::bad_request(format!("cannot proxy this path: {e}")))?;
    *request.headers_mut() = headers;
    Ok(request)
}

fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// Answers 101 and joins the two connections once both sides have switched.
fn join(server: &Arc<Server>, client: OnUpgrade, answer: Response<hyper::body::Incoming>, lasting: Lasting) -> Reply {
    let mut reply = Response::new(ResponseBody::empty());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *reply.headers_mut() = answer.headers().clone();
    let backend = hyper::upgrade::on(answer);
    let shutdown = server.shutdown.clone();
    server.streams.spawn(async move {
        let _lasting = lasting;
        let joined = async {
            let (client, backend) = tokio::try_join!(client, backend)?;
            let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
            // An end of either side is the usual end.
            let _ = copy_bidirectional(&mut client, &mut backend).await;
            Ok::<(), hyper::Error>(())
        };
        tokio::select! {
            ended = joined => if let Err(error) = ended {
                tracing::debug!(%error, "a connection could not be switched");
            },
            () = shutdown.cancelled() => {}
        }
    });
    reply
}
