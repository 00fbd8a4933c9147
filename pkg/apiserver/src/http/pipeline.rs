//! What every request passes: identity, limits, authorization, audit; then the router.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderName, HeaderValue, WARNING};
use http::request::Parts;
use http::{HeaderMap, Request};
use kube1_api::status::Status;
use parking_lot::Mutex;

use super::body::RequestBody;
use super::compress;
use super::respond::Reply;
use crate::authn::{self, Peer};
use crate::authz::{Authorizer, Decision, forbidden};
use crate::call::{Call, Warnings};
use crate::encode;
use crate::negotiate;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::router;
use crate::server::Server;
use crate::user::UserInfo;

/// How long a request that is not long-running may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long the rest of a refused request is listened to.
const DRAIN: Duration = Duration::from_millis(500);
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Who is at the other end of a connection.
pub struct Client {
    pub peer: Peer,
    pub address: SocketAddr,
}

/// Where a request's identity comes from.
pub enum Origin {
    /// A connection; the request must show a credential.
    Peer(Arc<Client>),
    /// A component of this process.
    User(UserInfo),
}

impl Server {
    /// Answers a request. Never fails: every failure is a response.
    pub async fn answer(self: Arc<Self>, request: Request<RequestBody>, origin: Origin) -> Reply {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let audit_id = audit_id(&parts.headers);
        let gzip = negotiate::accepts_gzip(&parts.headers);
        let accepted = negotiate::accept_failure(&parts.headers, &query);
        let warnings = Warnings::default();
        let long = info.is_long_running(&query);
        let seen = info.clone();
        let call = Call {
            parts,
            body: Mutex::new(Some(body)),
            info,
            query,
            user: UserInfo::default(),
            warnings: warnings.clone(),
            client_ip: match &origin {
                Origin::Peer(peer) => peer.address.ip().to_string(),
                Origin::User(_) => String::new(),
            },
            audit_id: audit_id.clone(),
        };
        let server = self.clone();
        let _inflight = self.metrics.enter(&seen, long);
        let processed = AssertUnwindSafe(server.process(call, origin)).catch_unwind().await;
        let mut reply = match processed {
            Ok(Ok(reply)) => reply,
            Ok(Err(status)) => encode::failure(accepted, &status),
            Err(panic) => {
                tracing::error!(path = seen.path, verb = seen.verb, panic = panic_text(&*panic), "a request panicked");
                let status = Status::internal("the server panicked while it handled this request");
                encode::failure(accepted, &status)
            }
        };
        if gzip {
            reply = compress::compress(reply);
        }
        finish_headers(&mut reply, &audit_id, &warnings);
        let (code, took) = (reply.status().as_u16(), started.elapsed());
        tracing::debug!(verb = seen.verb, path = seen.path, code, ?took, "request");
        self.metrics.request(&seen, code, took, long);
        reply
    }

    async fn process(self: Arc<Self>, mut call: Call, origin: Origin) -> Result<Reply, Status> {
        let result = self.judged(&mut call, origin).await;
        if let Some(unread) = call.take_body() {
            // A stream that is answered before its body was read is reset, which some clients take for a failure.
            let _ = tokio::time::timeout(DRAIN, super::body::read(unread)).await;
        }
        result
    }

    async fn judged(self: Arc<Self>, call: &mut Call, origin: Origin) -> Result<Reply, Status> {
        if let Some(reply) = router::public(&self, call) {
            return Ok(reply);
        }
        call.user = match origin {
            Origin::User(user) => user,
            Origin::Peer(peer) => {
                self.authenticator.authenticate(&call.parts, &peer.peer).await?.ok_or_else(Status::unauthorized)?
            }
        };
        let target = authn::impersonate(call.headers(), &call.user, &call.info, &*self.authorizer).await?;
        let real = target.map(|target| std::mem::replace(&mut call.user, target));
        strip_credentials(&mut call.parts);
        let long = call.info.is_long_running(&call.query);
        let limit = if long { Duration::MAX } else { deadline(&call.query)? };
        let audit = self.audit.begin(call, real.as_ref());
        let result = within(limit, self.clone().admitted(call)).await;
        self.audit.end(audit, &result);
        result
    }

    /// The part that holds a seat of flow control.
    async fn admitted(self: Arc<Self>, call: &mut Call) -> Result<Reply, Status> {
        let seat = self.flow.admit(&call.user, &call.info).await?;
        authorize(&*self.authorizer, &call.user, &call.info).await?;
        let mut reply = router::route(&self, call).await?;
        seat.label(reply.headers_mut());
        Ok(reply)
    }
}

/// 403 unless the user may make the request.
pub async fn authorize(authorizer: &dyn Authorizer, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
    match authorizer.authorize(user, info).await {
        Decision::Allow => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(user, info, &reason)),
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    if limit == Duration::MAX {
        return work.await;
    }
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Status::timeout("request did not complete within the allotted timeout")),
    }
}

/// `?timeout=` may shorten the deadline.
fn deadline(query: &Query) -> Result<Duration, Status> {
    let Some(text) = query.text("timeout") else { return Ok(DEADLINE) };
    let bad = || Status::bad_request(format!("invalid timeout specified in the request URL: \"{text}\""));
    let asked = parse_duration(text).ok_or_else(bad)?;
    Ok(if asked.is_zero() { DEADLINE } else { asked.min(DEADLINE) })
}

/// A duration such as `32s`, `1m30s` or `500ms`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
        total += number
            * match &rest[digits..unit_end] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(total).ok()
}

fn audit_id(headers: &HeaderMap) -> String {
    let given = headers.get(AUDIT_ID).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty() && v.len() <= 64);
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// Handlers and proxied servers never see a client's secret.
fn strip_credentials(parts: &mut Parts) {
    let secret = |name: &HeaderName| {
        *name == AUTHORIZATION || ["impersonate-", "x-remote-"].iter().any(|p| name.as_str().starts_with(p))
    };
    let names: Vec<HeaderName> = parts.headers.keys().filter(|n| secret(n)).cloned().collect();
    for name in names {
        parts.headers.remove(name);
    }
}

fn finish_headers(reply: &mut Reply, audit_id: &str, warnings: &Warnings) {
    let headers = reply.headers_mut();
    if let Ok(value) = HeaderValue::from_str(audit_id) {
        headers.insert(AUDIT_ID, value);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    for text in warnings.header_values() {
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            headers.append(WARNING, value);
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_as_go_writes_them() {
        for (text, expected) in [
            ("32s", Some(Duration::from_secs(32))),
            ("1m30s", Some(Duration::from_secs(90))),
            ("500ms", Some(Duration::from_millis(500))),
            ("1.5h", Some(Duration::from_secs(5400))),
            ("5", None),
            ("x", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }
}
