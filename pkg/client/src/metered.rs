//! Counts the requests of a client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Request, Response, StatusCode};
use tower::{Layer, Service};

use crate::metrics;

/// Wraps a client's service.
#[derive(Clone)]
pub(crate) struct Metered {
    host: Arc<str>,
}

impl Metered {
    /// `host` is told of each request: the server's name with its port.
    pub fn new(host: &str) -> Self {
        Self { host: host.into() }
    }
}

impl<S> Layer<S> for Metered {
    type Service = MeteredService<S>;

    fn layer(&self, inner: S) -> MeteredService<S> {
        MeteredService { inner, host: self.host.clone() }
    }
}

#[derive(Clone)]
pub(crate) struct MeteredService<S> {
    inner: S,
    host: Arc<str>,
}

impl<S, A, B> Service<Request<A>> for MeteredService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (host, method, started) = (self.host.clone(), request.method().clone(), Instant::now());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let status = answer.as_ref().ok().map(Response::status);
            let code = status.as_ref().map_or("<error>", StatusCode::as_str);
            metrics::answered(method.as_str(), &host, code, started.elapsed());
            answer
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_counted_by_their_answers() {
        let answer = |request: Request<()>| async move {
            match request.uri().path() {
                "/gone" => Err(std::io::Error::other("gone")),
                _ => Ok(Response::builder().status(404).body(()).unwrap()),
            }
        };
        let mut service = Metered::new("test:1").layer(tower::service_fn(answer));
        for path in ["/a", "/gone", "/b"] {
            let _ = service.call(Request::get(path).body(()).unwrap()).await;
        }
        let text = kube1_telemetry::metrics::render_shared().unwrap();
        for line in [
            r#"rest_client_requests_total{code="404",method="GET",host="test:1"} 2"#,
            r#"rest_client_requests_total{code="<error>",method="GET",host="test:1"} 1"#,
            r#"rest_client_request_duration_seconds_count{verb="GET",host="test:1"} 3"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
