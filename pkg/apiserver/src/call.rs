//! One request on its way through the server.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::USER_AGENT;
use http::request::Parts;
use kube1_api::name::GroupResource;
use kube1_api::status::Status;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::audit::Trail;
use crate::flow::Sorted;
use crate::http::body::RequestBody;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::user::UserInfo;

/// A request with what the pipeline has found out about it.
pub struct Call {
    pub parts: Parts,
    /// Taken by the handler that reads it.
    pub body: Mutex<Option<RequestBody>>,
    pub info: RequestInfo,
    pub query: Query,
    pub user: Arc<UserInfo>,
    /// The request came from outside over HTTP/2, and nobody knows (yet) from whom.
    pub stranger: bool,
    pub warnings: Warnings,
    /// Address of the client; none for calls inside the process.
    pub client_ip: Option<IpAddr>,
    pub audit_id: String,
    /// What auditing notes of this request.
    pub trail: Trail,
    /// When the client gives up; none for what may go on without end.
    pub deadline: Option<Instant>,
    /// How flow control sorted it.
    pub sorted: Option<Sorted>,
    /// How long it waited for its turn.
    pub waited: Duration,
    /// Kept until the answer is over; streams that outlive the handler keep a clone.
    pub lasting: Lasting,
}

/// Guards of a request that may go on after its handler has returned. All are dropped with the last clone.
#[derive(Clone, Default)]
pub struct Lasting(Arc<Mutex<Held>>);

type Held = SmallVec<[Box<dyn Send>; 2]>;

impl Lasting {
    pub fn add(&self, guard: impl Send + 'static) {
        self.0.lock().push(Box::new(guard));
    }
}

impl Call {
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    pub fn user_agent(&self) -> &str {
        self.headers().get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// Reads the whole body; a second call answers empty.
    pub async fn read_body(&self) -> Result<bytes::Bytes, Status> {
        match self.take_body() {
            Some(body) => crate::http::body::read(body).await,
            None => Ok(bytes::Bytes::new()),
        }
    }

    pub fn take_body(&self) -> Option<RequestBody> {
        self.body.lock().take()
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.info.group, &self.info.resource)
    }
}

/// Texts that the client should show to its user.
#[derive(Clone, Debug, Default)]
pub struct Warnings {
    texts: Arc<Mutex<Vec<String>>>,
}

impl Warnings {
    /// Adds a text unless it is there already.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut texts = self.texts.lock();
        if !text.is_empty() && !texts.contains(&text) {
            texts.push(text);
        }
    }

    pub fn extend(&self, texts: impl IntoIterator<Item = String>) {
        texts.into_iter().for_each(|t| self.add(t));
    }

    /// The texts as values of `Warning` headers, cut when they are too long together.
    pub fn header_values(&self) -> Vec<String> {
        let mut room = 4096_usize;
        let mut values = Vec::new();
        for text in self.texts.lock().iter() {
            let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(room).collect();
            let value = format!("299 - \"{}\"", clean.replace('\\', "\\\\").replace('"', "\\\""));
            let Some(left) = room.checked_sub(value.len()) else { break };
            room = left;
            values.push(value);
        }
        values
    }
}
