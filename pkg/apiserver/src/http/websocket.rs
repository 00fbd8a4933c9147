//! Answers in the messages of websockets: logs, watches, and the streams of containers for kubelets that cannot.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;
use http::{Extensions, HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube1_api::status::Status;
use kube1_streaming::channels::{self, Wanted};
use kube1_streaming::{Upgrade, tunnel};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::body::ResponseBody;
use super::respond::Reply;
use crate::call::Lasting;
use crate::server::Server;

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

/// A client's wish to get its answer in messages.
pub struct Wish {
    upgrade: Upgrade,
    /// Lines of text are messages of their own.
    lines: bool,
    lasting: Lasting,
}

impl Wish {
    /// Takes the upgrade out of a request for a websocket; `lines` for watches.
    pub fn take(parts: &mut Parts, lines: bool) -> Result<Option<Self>, Status> {
        Self::take_known(parts, if lines { &[] } else { &[BINARY, BASE64] }, lines, Upgrade::take)
    }

    /// As [`Wish::take`], for a client that offers this protocol.
    pub fn take_offer(parts: &mut Parts, known: &'static str) -> Result<Option<Self>, Status> {
        Self::take_known(parts, &[known], false, Upgrade::take_offer)
    }

    fn take_known(
        parts: &mut Parts,
        known: &[&'static str],
        lines: bool,
        take: impl FnOnce(&HeaderMap, &mut Extensions, &[&'static str]) -> Result<Option<Upgrade>, &'static str>,
    ) -> Result<Option<Self>, Status> {
        let Some(upgrade) = take(&parts.headers, &mut parts.extensions, known).map_err(Status::bad_request)? else {
            return Ok(None);
        };
        for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL] {
            parts.headers.remove(name);
        }
        Ok(Some(Self { upgrade, lines, lasting: parts.extensions.get().cloned().unwrap_or_default() }))
    }

    /// Answers 101 and passes the streams of a command on to `backend`; if that was refused, the client is told on the
    /// channel for errors, where it looks for them.
    pub fn streams(self, server: &Arc<Server>, backend: Result<Upgraded, Status>, wanted: Wanted) -> Reply {
        let switched = self.switched();
        let shutdown = server.shutdown.clone();
        server.streams.spawn(async move {
            let translating = async {
                let mut socket = self.upgrade.socket().await?;
                match backend {
                    Ok(backend) => channels::translate(socket, TokioIo::new(backend), wanted).await,
                    Err(status) => {
                        socket.send(channels::verdict(&status)).await?;
                        socket.send(channels::finished()).await
                    }
                }
            };
            if let Some(Err(error)) = shutdown.run_until_cancelled(translating).await {
                tracing::debug!(%error, "a command's streams ended");
            }
        });
        switched
    }

    /// Answers 101 and passes the bytes of messages on to `backend`, and its bytes back as messages.
    pub fn tunnel(self, server: &Arc<Server>, backend: Upgraded) -> Reply {
        let switched = self.switched();
        let shutdown = server.shutdown.clone();
        server.streams.spawn(async move {
            let joining = async {
                let _lasting = self.lasting.clone();
                tunnel::join(self.upgrade.socket().await?, TokioIo::new(backend)).await
            };
            if let Some(Err(error)) = shutdown.run_until_cancelled(joining).await {
                tracing::debug!(%error, "a tunnel ended");
            }
        });
        switched
    }

    /// The answer that switches protocols.
    fn switched(&self) -> Reply {
        let mut switched = Response::new(ResponseBody::empty());
        *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *switched.headers_mut() = self.upgrade.headers();
        switched
    }

    /// Answers 101 and sends the body of `reply` as messages.
    pub fn grant(self, server: &Arc<Server>, reply: Reply) -> Reply {
        if !reply.status().is_success() {
            return reply;
        }
        let switched = self.switched();
        let shutdown = server.shutdown.clone();
        let body = reply.into_body();
        server.streams.spawn(async move {
            let sending = shutdown.run_until_cancelled(self.send(body));
            if let Some(Err(error)) = sending.await {
                tracing::debug!(%error, "a websocket ended");
            }
        });
        switched
    }

    async fn send(self, mut body: ResponseBody) -> Result<(), Error> {
        let _lasting = self.lasting.clone();
        let (protocol, lines) = (self.upgrade.protocol(), self.lines);
        let (mut messages, mut said) = self.upgrade.socket().await?.split();
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
        messages.send(channels::finished()).await
    }
}

fn message(protocol: Option<&str>, data: Bytes) -> Message {
    if protocol == Some(BASE64) { Message::text(STANDARD.encode(&data)) } else { Message::binary(data) }
}
