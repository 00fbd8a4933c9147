//! Calls from inside the process.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tower_service::Service;

use super::Server;
use crate::http::body::{BoxError, RequestBody, ResponseBody};
use crate::http::pipeline::Origin;
use crate::user::UserInfo;

/// The server as one user sees it: the whole request path but authentication and TLS.
#[derive(Clone)]
pub struct InProcess {
    server: Arc<Server>,
    user: Arc<UserInfo>,
}

impl InProcess {
    pub(super) fn new(server: Arc<Server>, user: UserInfo) -> Self {
        Self { server, user: user.into() }
    }
}

impl<B> Service<Request<B>> for InProcess
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request = request.map(|body| RequestBody::new(body.map_err(Into::into)));
        let (server, user) = (self.server.clone(), self.user.clone());
        Box::pin(async move { Ok(server.answer(request, Origin::User(user)).await) })
    }
}
