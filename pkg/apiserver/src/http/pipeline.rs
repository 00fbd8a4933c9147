//! What every request passes: identity, limits, authorization, audit; then the router.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::FutureExt;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE, WARNING,
};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Version};
use http_body::Body;
use kube1_api::status::Status;
use kube1_trace::Tracer;
use parking_lot::Mutex;

use super::body::{RequestBody, ResponseBody};
use super::compress;
use super::respond::Reply;
use super::trace;
use crate::audit::Trail;
use crate::authn::{self, Peer};
use crate::authz::{Authorizer, Decision, forbidden};
use crate::call::{Call, Lasting, Warnings};
use crate::encode;
use crate::flow::{self, Stats};
use crate::metrics::Seen;
use crate::negotiate;
use crate::query::{Query, broken_escape};
use crate::request_info::RequestInfo;
use crate::router;
use crate::server::Server;
use crate::user::{ANONYMOUS, UserInfo};

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
    User(Arc<UserInfo>),
}

impl Server {
    /// Answers a request. Never fails: every failure is a response.
    pub async fn answer(self: Arc<Self>, request: Request<RequestBody>, origin: Origin) -> Reply {
        let started = Instant::now();
        let (mut parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let audit_id = audit_id(&parts.headers);
        let gzip = negotiate::accepts_gzip(&parts.headers);
        let (warnings, lasting) = (Warnings::default(), Lasting::default());
        let mut seen = Seen::new(&info, info.is_long_running(), is_apply(&parts), query.get("dryRun").is_some());
        let headers_only = parts.method == Method::HEAD;
        if parts.headers.contains_key(UPGRADE) {
            parts.extensions.insert(lasting.clone());
        }
        lasting.add(self.metrics.enter(&seen));
        let mut call = Call {
            stranger: matches!(origin, Origin::Peer(_)) && parts.version == Version::HTTP_2,
            parts,
            body: Mutex::new(Some(body)),
            info,
            query,
            user: Arc::default(),
            warnings: warnings.clone(),
            client_ip: match &origin {
                Origin::Peer(peer) => Some(peer.address.ip()),
                Origin::User(_) => None,
            },
            audit_id,
            trail: Trail::default(),
            deadline: None,
            sorted: None,
            lasting: lasting.clone(),
            waited: Duration::ZERO,
        };
        let server = self.clone();
        let processed = AssertUnwindSafe(server.process(&mut call, origin, started)).catch_unwind().await;
        let mut reply = match processed {
            Ok(Ok(reply)) => reply,
            Ok(Err(status)) => {
                if status.code() == 504 {
                    self.metrics.terminated(&seen, 504);
                }
                encode::failure(negotiate::accept_failure(&call.parts.headers, &call.query), &status)
            }
            Err(panic) => {
                let why = panic_text(&*panic);
                tracing::error!(path = call.info.path, verb = call.info.verb, panic = why, "a request panicked");
                Box::pin(call.trail.panicked(why)).await;
                let status = Status::internal("the server panicked while it handled this request");
                encode::failure(negotiate::accept_failure(&call.parts.headers, &call.query), &status)
            }
        };
        let (code, took) = (reply.status(), started.elapsed());
        tracing::debug!(verb = call.info.verb, path = call.info.path, code = code.as_u16(), ?took, "request");
        self.metrics.request(&mut seen, code, took, call.waited);
        if let Some(sorted) = &call.sorted {
            sorted.label(reply.headers_mut());
        }
        if call.stranger {
            // HTTP/2 lets a client ask for much over one connection, which is for those that are known.
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let audit_id = std::mem::take(&mut call.audit_id);
        drop(call);
        if gzip {
            reply = compress::compress(reply);
        }
        if headers_only {
            reply = without_body(reply);
        }
        reply = self.measured(reply, seen, lasting);
        finish_headers(&mut reply, audit_id, &warnings);
        reply
    }

    /// Keeps what lasts as long as the answer, and notes the size of answers.
    fn measured(self: &Arc<Self>, mut reply: Reply, seen: Seen, lasting: Lasting) -> Reply {
        match reply.body() {
            ResponseBody::Full(bytes) => self.metrics.size(&seen, bytes.len() as u64),
            _ => {
                let server = self.clone();
                let body = std::mem::replace(reply.body_mut(), ResponseBody::empty());
                *reply.body_mut() = body.measured(move |sent| {
                    if !seen.is_long_running() {
                        server.metrics.size(&seen, sent);
                    }
                    drop(lasting);
                });
            }
        }
        reply
    }

    async fn process(self: Arc<Self>, call: &mut Call, origin: Origin, started: Instant) -> Result<Reply, Status> {
        let result = self.judged(call, origin, started).await;
        if let Some(unread) = call.take_body().filter(|body| !body.is_end_stream()) {
            // A stream that is answered before its body was read is reset, which some clients take for a failure.
            let _ = Box::pin(tokio::time::timeout(DRAIN, super::body::read(unread))).await;
        }
        result
    }

    async fn judged(self: Arc<Self>, call: &mut Call, origin: Origin, started: Instant) -> Result<Reply, Status> {
        if let Some(broken) = broken_escape(call.parts.uri.path()) {
            return Err(Status::bad_request(format!("invalid URL escape {broken:?}")));
        }
        if let Some(reply) = router::public(&self, call) {
            return Ok(reply);
        }
        call.user = match origin {
            Origin::User(user) => user,
            Origin::Peer(peer) => self.authenticated(call, &peer).await?,
        };
        call.stranger &= call.user.name == ANONYMOUS;
        match self.tracer.clone() {
            None => self.known(call).await,
            Some(tracer) => Box::pin(self.traced(&tracer, call, started)).await,
        }
    }

    /// The same as a span.
    async fn traced(self: Arc<Self>, tracer: &Tracer, call: &mut Call, started: Instant) -> Result<Reply, Status> {
        let span = trace::request(tracer, call, started);
        if call.info.is_long_running() {
            call.lasting.add(span.clone());
        }
        let result = span.clone().scope(self.known(call)).await;
        let code = result.as_ref().map_or_else(|status| status.code(), |reply| reply.status().as_u16());
        span.add("http.response.status_code", i64::from(code));
        if code >= 500 {
            span.fail();
        }
        result
    }

    /// Answers a request whose user is known.
    async fn known(self: Arc<Self>, call: &mut Call) -> Result<Reply, Status> {
        call.trail = self.audit.trail(call, Some(&call.user));
        if call.trail.is_enabled() && !Box::pin(call.trail.begin()).await {
            return Err(Status::internal("failed to store audit event"));
        }
        let trail = call.trail.clone();
        let long = call.info.is_long_running();
        let most = self.config.front.requests.timeout;
        let mut result = match super::requests::deadline(&call.query, most) {
            _ if long => self.acting(call).await,
            Ok(limit) => {
                let writes = matches!(&*call.info.verb, "create" | "update" | "patch" | "delete" | "deletecollection");
                let limit = if writes { limit.min(WRITE_MAX) } else { limit };
                call.deadline = Some(Instant::now() + limit);
                within(limit, writes && limit < most, std::pin::pin!(self.acting(call))).await
            }
            Err(status) => Err(status),
        };
        if trail.is_enabled() {
            match long {
                true => Box::pin(trail.started(&mut result, &call.lasting)).await,
                false => Box::pin(trail.complete(&mut result)).await,
            }
        }
        result
    }

    /// The user of a request that came over a connection.
    async fn authenticated(&self, call: &Call, client: &Client) -> Result<Arc<UserInfo>, Status> {
        let started = Instant::now();
        let found = self.authenticator.authenticate(&call.parts, &client.peer).await;
        let found = found.and_then(|user| user.ok_or_else(Status::unauthorized));
        let (result, name) = match &found {
            Ok(user) => ("success", user.name.as_str()),
            Err(_) => ("failure", ""),
        };
        self.metrics.authentication(result, name, started.elapsed());
        if found.is_err() {
            Box::pin(self.audit.trail(call, None).refused(&attempted(call, client))).await;
        }
        found
    }

    /// Lets the user act as another, if the request asks for it.
    async fn acting(self: Arc<Self>, call: &mut Call) -> Result<Reply, Status> {
        if call.headers().keys().any(|name| name.as_str().starts_with("impersonate-")) {
            let target = authn::impersonate(call.headers(), &call.user, &call.info, &*self.authorizer);
            if let Some(target) = Box::pin(target).await? {
                call.trail.impersonated(&target.user, target.mode);
                call.user = target.user.into();
            }
        }
        strip_credentials(&mut call.parts);
        self.admitted(call).await
    }

    /// The part that holds a seat of flow control.
    async fn admitted(self: Arc<Self>, call: &mut Call) -> Result<Reply, Status> {
        if call.info.is_long_running() && call.info.verb != "watch" {
            // It costs the server little, however long it goes on.
            self.allowed(call).await?;
            return router::route(&self, call).await;
        }
        let (user, info) = (&call.user, &call.info);
        let patience = self.config.front.requests.timeout / 4;
        let work = |seats: u32| flow::estimate(info, &call.query, || self.stats(info), seats);
        let asked = Instant::now();
        let (sorted, seat) = self.flow.admit(user, info, patience, work).await;
        call.waited = asked.elapsed();
        call.sorted = Some(sorted);
        let Some(seat) = seat else { return Ok(flow::turned_away()) };
        self.allowed(call).await?;
        if let Some(reply) = router::read(&self, call) {
            return reply;
        }
        let reply = match trace::handler(&call.info).filter(|_| kube1_trace::is_traced()) {
            None => router::route(&self, call).await?,
            Some(name) => kube1_trace::within(name, Vec::new, Box::pin(router::route(&self, call))).await?,
        };
        if matches!(reply.body(), ResponseBody::Stream(_)) && call.info.verb == "list" {
            // A list is work until it is sent.
            call.lasting.add(seat);
        }
        Ok(reply)
    }

    /// What is known of the objects that a request is about.
    fn stats(&self, info: &RequestInfo) -> Stats {
        let row = self.table.load().get(&info.group, &info.version, &info.resource);
        let Some(row) = row.filter(|row| row.is_stored()) else { return Stats::default() };
        let (objects, size, watchers) = self.storage.collection(&row).stats();
        Stats { objects, size, watchers }
    }

    /// 403 unless the user may make the request.
    async fn allowed(&self, call: &Call) -> Result<(), Status> {
        let (started, user, info) = (Instant::now(), &call.user, &call.info);
        // Making up the reason takes time, which is spent only if somebody reads it.
        let (decision, reason) = match call.trail.is_enabled() {
            true => self.authorizer.explain(user, info).await,
            false => match self.authorizer.authorize_now(user, info) {
                Some(decision) => (decision, String::new()),
                None => (self.authorizer.authorize(user, info).await, String::new()),
            },
        };
        let (result, audited, reason) = match &decision {
            Decision::Allow => ("allowed", "allow", reason),
            Decision::Deny(reason) => ("denied", "forbid", reason.clone()),
            Decision::NoOpinion(reason) => ("no-opinion", "forbid", reason.clone()),
        };
        self.metrics.authorization(result, started.elapsed());
        call.trail.annotate("authorization.k8s.io/decision", audited);
        call.trail.annotate("authorization.k8s.io/reason", reason);
        judge(decision, user, info)
    }
}

/// The longest that a write takes, whatever its client would wait for.
const WRITE_MAX: Duration = Duration::from_secs(34);

/// 403 unless the user may make the request.
pub async fn authorize(authorizer: &dyn Authorizer, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
    judge(authorizer.authorize(user, info).await, user, info)
}

fn judge(decision: Decision, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
    match decision {
        Decision::Allow => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(user, info, &reason)),
    }
}

/// Takes the work by reference: futures are as large as what they hold, and this one would be twice in memory.
async fn within<T>(
    limit: Duration,
    shortened: bool,
    mut work: Pin<&mut impl Future<Output = Result<T, Status>>>,
) -> Result<T, Status> {
    // Most need not wait, and so no timer.
    if let Poll::Ready(result) = futures::poll!(work.as_mut()) {
        return result;
    }
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) if shortened => {
            Err(Status::timeout("request did not complete within requested timeout - context deadline exceeded"))
        }
        Err(_) => Err(Status::timeout("request did not complete within the allotted timeout")),
    }
}

fn is_apply(parts: &Parts) -> bool {
    parts.headers.get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/apply-patch"))
}

/// How a request tried to say who it is from, for the audit of its refusal.
fn attempted(call: &Call, client: &Client) -> String {
    let mut tried = Vec::new();
    let authorization = call.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match authorization.split(' ').next().map(str::to_ascii_lowercase).as_deref() {
        Some("basic") => tried.push("basic"),
        Some("bearer") => tried.push("bearer"),
        _ => {}
    }
    if client.peer.has_certificate() {
        tried.push("x509");
    }
    match tried.join(", ") {
        none if none.is_empty() => "Authentication failed, no credentials provided".to_owned(),
        some => format!("Authentication failed, attempted: {some}"),
    }
}

fn audit_id(headers: &HeaderMap) -> String {
    let given = headers.get(AUDIT_ID).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty() && v.len() <= 64);
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// Handlers and proxied servers never see a client's secret.
fn strip_credentials(parts: &mut Parts) {
    let secret = |name: &HeaderName| ["impersonate-", "x-remote-"].iter().any(|p| name.as_str().starts_with(p));
    // Rarely is there anything but the first.
    parts.headers.remove(AUTHORIZATION);
    let names: Vec<HeaderName> = parts.headers.keys().filter(|n| secret(n)).cloned().collect();
    for name in names {
        parts.headers.remove(name);
    }
}

/// An answer to HEAD: what GET would get but for its body, which HTTP/2 does not leave out by itself.
fn without_body(mut reply: Reply) -> Reply {
    let body = std::mem::replace(reply.body_mut(), ResponseBody::empty());
    if let Some(bytes) = body.full().filter(|bytes| !bytes.is_empty()) {
        reply.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from(bytes.len()));
    }
    reply
}

fn finish_headers(reply: &mut Reply, audit_id: String, warnings: &Warnings) {
    let headers = reply.headers_mut();
    if let Ok(value) = HeaderValue::try_from(audit_id) {
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
