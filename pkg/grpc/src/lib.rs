//! gRPC calls to services beside this process: container runtimes, key management services, collectors of traces.

mod codec;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::{TcpStream, UnixStream};
use tonic::Code;
pub use tonic::transport::Channel;
use tonic::transport::{Endpoint, Uri};
use tower::service_fn;

use codec::Raw;

/// What a call failed with, in gRPC's own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {code} desc = {message}")]
pub struct CallError {
    /// The status code's name, such as `Unavailable`.
    pub code: &'static str,
    pub message: String,
}

/// Where a service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket's path; one that begins with `@` is a name in the abstract namespace.
    Unix(PathBuf),
    /// Host and port, without TLS.
    Tcp(String),
}

/// A service that is called with one request and gives one answer.
#[derive(Debug)]
pub struct Service {
    address: Address,
    channel: OnceLock<Channel>,
}

impl Service {
    /// Connects at the first call, and again whenever the connection was lost.
    pub fn new(address: Address) -> Self {
        Self { address, channel: OnceLock::new() }
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Calls `method` (`/package.Service/Method`); an error with `DeadlineExceeded` after `limit`. Dropping the future
    /// ends the call. Needs a tokio runtime.
    pub async fn call<Q: Message, R: Message + Default>(
        &self,
        method: &'static str,
        request: &Q,
        limit: Duration,
    ) -> Result<R, CallError> {
        let channel = self.channel.get_or_init(|| match &self.address {
            Address::Unix(path) => unix_channel(path),
            Address::Tcp(address) => tcp_channel(address.clone()),
        });
        let answer = match tokio::time::timeout(limit, unary(channel.clone(), method, request.encode_to_vec())).await {
            Ok(answer) => answer.map_err(|status| CallError::of(&status))?,
            Err(_) => {
                let message = "context deadline exceeded".to_owned();
                return Err(CallError { code: code_name(Code::DeadlineExceeded), message });
            }
        };
        R::decode(answer).map_err(|error| CallError { code: code_name(Code::Internal), message: error.to_string() })
    }
}

/// One for all messages, which are bytes here, so that its code exists once.
async fn unary(channel: Channel, method: &'static str, request: Vec<u8>) -> Result<bytes::Bytes, tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| tonic::Status::unavailable(causes(&error)))?;
    let path = PathAndQuery::from_static(method);
    Ok(client.unary(tonic::Request::new(request), path, Raw).await?.into_inner())
}

impl CallError {
    fn of(status: &tonic::Status) -> Self {
        let message = match std::error::Error::source(status) {
            Some(source) => format!("{}: {}", status.message(), causes(source)),
            None => status.message().to_owned(),
        };
        Self { code: code_name(status.code()), message }
    }
}

/// An error with those below it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// As other implementations of gRPC write a code.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// A channel to a unix socket that connects lazily. A path that begins with `@` is a name in the abstract namespace.
pub fn unix_channel(path: &Path) -> Channel {
    let path = match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => PathBuf::from(std::ffi::OsStr::from_bytes(&[&[0], name].concat())),
        _ => path.to_owned(),
    };
    let connect = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    localhost().connect_with_connector_lazy(connect)
}

fn tcp_channel(address: String) -> Channel {
    let connect = service_fn(move |_: Uri| {
        let address = address.clone();
        async move { TcpStream::connect(address).await.map(TokioIo::new) }
    });
    localhost().connect_with_connector_lazy(connect)
}

/// The address is only a form that gRPC demands.
fn localhost() -> Endpoint {
    Endpoint::from_static("http://localhost")
}
