//! Logs and watches for clients that want websockets.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use kube1_api::status::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::{Error, Message, protocol::Role};

use super::body::ResponseBody;
use super::forward::wants_upgrade;
use super::respond::Reply;
use super::streams::{self, Wanted};
use crate::call::Lasting;
use crate::server::Server;

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";
/// A SPDY connection for port forwarding inside a websocket.
pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const TUNNEL_BUFFER: usize = 32 * 1024;

/// A client's wish to get its answer in messages.
pub struct Wish {
    upgrade: OnUpgrade,
    accept: String,
    protocol: Option<&'static str>,
    /// Lines of text are messages of their own.
    lines: bool,
    lasting: Lasting,
}

impl Wish {
    /// Takes the upgrade out of a request for a websocket; `lines` for watches.
    pub fn take(parts: &mut Parts, lines: bool) -> Result<Option<Self>, Status> {
        let websocket = parts.headers.get(UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"));
        if !websocket || !wants_upgrade(&parts.headers) {
            return Ok(None);
        }
        let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else { return Ok(None) };
        let key = parts.headers.get(SEC_WEBSOCKET_KEY);
        let key = key.ok_or_else(|| Status::bad_request("the websocket request has no key"))?;
        let wish = Self {
            upgrade,
            accept: derive_accept_key(key.as_bytes()),
            protocol: if lines { None } else { protocol(&parts.headers, &[BINARY, BASE64]) },
            lines,
            lasting: parts.extensions.get().cloned().unwrap_or_default(),
        };
        for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL] {
            parts.headers.remove(name);
        }
        Ok(Some(wish))
    }

    /// As [`Wish::take`], for a client that offers this protocol.
    pub fn take_offer(parts: &mut Parts, known: &'static str) -> Result<Option<Self>, Status> {
        if protocol(&parts.headers, &[known]).is_none() {
            return Ok(None);
        }
        Ok(Self::take(parts, false)?.map(|wish| Self { protocol: Some(known), ..wish }))
    }

    /// Answers 101 and passes the streams of a command on to `backend`; if that was refused, the client is told on the
    /// channel for errors, where it looks for them.
    pub fn streams(
        self,
        server: &Arc<Server>,
        backend: Result<Upgraded, Status>,
        wanted: Wanted,
    ) -> Result<Reply, Status> {
        let switched = self.switched()?;
        let shutdown = server.shutdown.clone();
        server.streams.spawn(async move {
            let translating = async {
                let mut socket = self.socket().await?;
                match backend {
                    Ok(backend) => streams::translate(socket, TokioIo::new(backend), wanted).await,
                    Err(status) => {
                        socket.send(streams::verdict(&status)).await?;
                        socket.send(streams::finished()).await
                    }
                }
            };
            if let Some(Err(error)) = shutdown.run_until_cancelled(translating).await {
                tracing::debug!(%error, "a command's streams ended");
            }
        });
        Ok(switched)
    }

    /// The websocket, once the client has been answered.
    async fn socket(self) -> Result<WebSocketStream<TokioIo<Upgraded>>, Error> {
        let stream = self.upgrade.await.map_err(|e| Error::Io(std::io::Error::other(e)))?;
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await)
    }

    /// Answers 101 and passes the bytes of messages on to `backend`, and its bytes back as messages.
    pub fn tunnel(self, server: &Arc<Server>, backend: Upgraded) -> Result<Reply, Status> {
        let switched = self.switched()?;
        let shutdown = server.shutdown.clone();
        server.streams.spawn(async move {
            let joining = shutdown.run_until_cancelled(self.join(backend));
            if let Some(Err(error)) = joining.await {
                tracing::debug!(%error, "a tunnel ended");
            }
        });
        Ok(switched)
    }

    async fn join(self, backend: Upgraded) -> Result<(), Error> {
        let _lasting = self.lasting.clone();
        let (mut messages, mut said) = self.socket().await?.split();
        let (mut from, mut to) = tokio::io::split(TokioIo::new(backend));
        let mut buffer = BytesMut::with_capacity(TUNNEL_BUFFER);
        loop {
            tokio::select! {
                heard = said.next() => match heard.transpose()? {
                    Some(Message::Close(_)) | None => return to.shutdown().await.map_err(Error::Io),
                    Some(message @ (Message::Binary(_) | Message::Text(_))) => {
                        to.write_all(&message.into_data()).await.map_err(Error::Io)?;
                    }
                    Some(_) => {}
                },
                read = from.read_buf(&mut buffer) => {
                    if read.map_err(Error::Io)? == 0 {
                        return messages.send(streams::finished()).await;
                    }
                    messages.send(Message::binary(buffer.split().freeze())).await?;
                    buffer.reserve(TUNNEL_BUFFER);
                }
            }
        }
    }

    /// The answer that switches protocols.
    fn switched(&self) -> Result<Reply, Status> {
        let mut switched = Response::new(ResponseBody::empty());
        *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = switched.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&self.accept).map_err(Status::internal)?);
        if let Some(protocol) = self.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        Ok(switched)
    }

    /// Answers 101 and sends the body of `reply` as messages.
    pub fn grant(self, server: &Arc<Server>, reply: Reply) -> Result<Reply, Status> {
        if !reply.status().is_success() {
            return Ok(reply);
        }
        let switched = self.switched()?;
        let shutdown = server.shutdown.clone();
        let body = reply.into_body();
        server.streams.spawn(async move {
            let sending = shutdown.run_until_cancelled(self.send(body));
            if let Some(Err(error)) = sending.await {
                tracing::debug!(%error, "a websocket ended");
            }
        });
        Ok(switched)
    }

    async fn send(self, mut body: ResponseBody) -> Result<(), Error> {
        let _lasting = self.lasting.clone();
        let (protocol, lines) = (self.protocol, self.lines);
        let (mut messages, mut said) = self.socket().await?.split();
        if !lines {
            // Clients take the first, empty message as the sign that the stream is there.
            messages.send(message(protocol, Bytes::new())).await?;
        }
        let mut rest = Vec::new();
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                // Nothing is expected of the client; reading answers its pings and notices its end.
                heard = said.next() => match heard {
                    Some(Ok(_)) => continue,
                    _ => return Ok(()),
                },
            };
            let Some(Ok(frame)) = frame else { break };
            let Ok(data) = frame.into_data() else { continue };
            if !lines {
                messages.send(message(protocol, data)).await?;
                continue;
            }
            rest.extend_from_slice(&data);
            while let Some(end) = memchr::memchr(b'\n', &rest) {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let text = String::from_utf8_lossy(&line[..end]).into_owned();
                messages.send(Message::text(text)).await?;
            }
        }
        messages.send(streams::finished()).await
    }
}

/// The first protocol that the client offers and this server knows.
fn protocol(headers: &HeaderMap, known: &[&'static str]) -> Option<&'static str> {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    offered.flat_map(|v| v.split(',')).find_map(|p| known.iter().copied().find(|known| *known == p.trim()))
}

fn message(protocol: Option<&str>, data: Bytes) -> Message {
    if protocol == Some(BASE64) { Message::text(STANDARD.encode(&data)) } else { Message::binary(data) }
}
