//! Connections that are kept open between requests: a TLS handshake costs more than most of what is asked.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use super::connect::{DialError, Response, Target, Trust};

/// Largest answer that is read, in bytes.
const ANSWER_MAX: usize = 16 << 20;
/// Connections that wait for another request to the same target.
const IDLE_MAX: usize = 16;
/// How long they wait at most.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// What makes two targets the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    address: String,
    server_name: String,
    /// Of the authorities that vouch for it.
    trust: Option<u64>,
    /// Which identity is shown to it.
    identity: usize,
}

impl Key {
    pub fn of(target: &Target) -> Self {
        let digest = |pem: &[u8]| {
            let mut hasher = DefaultHasher::new();
            pem.hash(&mut hasher);
            hasher.finish()
        };
        Self {
            address: format!("{:?}", target.address),
            server_name: target.server_name.clone(),
            trust: match &target.trust {
                Trust::Authorities(pem) => Some(digest(pem)),
                Trust::Anything => None,
            },
            identity: target.identity.as_ref().map_or(0, |identity| Arc::as_ptr(identity).cast::<()>() as usize),
        }
    }
}

type Driving = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

/// An open connection. It moves only while a request is under way, so that no task of its own is needed.
pub(super) struct Open {
    sender: SendRequest<Full<Bytes>>,
    driving: Driving,
}

impl Open {
    pub async fn over<S>(stream: S) -> Result<Self, DialError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, driving) = http1::handshake(TokioIo::new(stream)).await.map_err(DialError::Exchange)?;
        Ok(Self { sender, driving: Box::pin(driving) })
    }

    /// Sends a request and reads the whole answer. After an error the connection is of no use.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response, DialError> {
        let sender = &mut self.sender;
        let answer = async {
            sender.ready().await.map_err(DialError::Exchange)?;
            let response = sender.send_request(request).await.map_err(DialError::Exchange)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|error| DialError::Answer(error.to_string()))?.to_bytes();
            Ok(Response { status, body })
        };
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            driven = &mut self.driving => {
                // It may have ended after the answer came.
                self.driving = Box::pin(std::future::pending());
                match driven {
                    Ok(()) => answer.await,
                    Err(error) => Err(DialError::Exchange(error)),
                }
            }
        }
    }
}

/// By target, with the time since which they wait.
type Idle = HashMap<Key, Vec<(Instant, Open)>>;

static IDLE: LazyLock<Mutex<Idle>> = LazyLock::new(Mutex::default);

/// A connection that nobody uses.
pub(super) fn take(key: &Key) -> Option<Open> {
    let mut idle = IDLE.lock();
    let list = idle.get_mut(key)?;
    list.retain(|(since, open)| since.elapsed() < IDLE_TIME && !open.sender.is_closed());
    let found = list.pop();
    if list.is_empty() {
        idle.remove(key);
    }
    found.map(|(_, open)| open)
}

/// Keeps a connection for the next request to the same target.
pub(super) fn keep(key: Key, open: Open) {
    if open.sender.is_closed() {
        return;
    }
    let mut idle = IDLE.lock();
    idle.retain(|_, list| {
        list.retain(|(since, _)| since.elapsed() < IDLE_TIME);
        !list.is_empty()
    });
    let list = idle.entry(key).or_default();
    if list.len() < IDLE_MAX {
        list.push((Instant::now(), open));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::StatusCode;
    use hyper::service::service_fn;

    use super::*;

    #[tokio::test]
    async fn a_connection_serves_one_request_after_the_other() {
        let (near, far) = tokio::io::duplex(4096);
        let served = tokio::spawn(async move {
            let answer = service_fn(|request: Request<hyper::body::Incoming>| async move {
                let body = request.into_body().collect().await?.to_bytes();
                Ok::<_, hyper::Error>(http::Response::new(Full::new(body)))
            });
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), answer).await
        });
        let mut open = Open::over(near).await.unwrap();
        for text in ["one", "two", "three"] {
            let request = Request::post("/").header("host", "h").body(Full::new(text.into())).unwrap();
            let answer = open.send(request).await.unwrap();
            assert_eq!((answer.status, &*answer.body), (StatusCode::OK, text.as_bytes()));
        }
        drop(open);
        served.await.unwrap().unwrap();
    }
}
