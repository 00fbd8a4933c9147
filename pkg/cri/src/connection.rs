//! The connection to the runtime's socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::{CriError, ErrorKind};

/// Lists of many containers are larger than gRPC's default of 4 MiB.
const MESSAGE_MAX: usize = 64 << 20;

/// A container runtime, reached through its CRI socket. Cloning shares the connection.
#[derive(Clone, Debug)]
pub struct Runtime {
    socket: PathBuf,
    pub(crate) channel: Channel,
}

impl Runtime {
    /// A client of the socket at `path`. Connects at the first call, and again whenever the connection was lost.
    pub fn new(path: &Path) -> Self {
        Self { socket: path.to_owned(), channel: channel(path) }
    }

    /// Where the runtime listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    pub(crate) fn image(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
    }
}

/// A channel that connects lazily; the address is only a form that gRPC demands.
fn channel(path: &Path) -> Channel {
    let path = path.to_owned();
    let connect = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect)
}

/// Runs a call under a time limit and gives its failure a type.
pub(crate) async fn limited<T>(
    operation: &'static str,
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, CriError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(CriError::status(operation, &status)),
        Err(_) => Err(CriError::timeout(operation, limit.as_secs())),
    }
}

/// An error for an answer that lacks what it must have.
pub(crate) fn incomplete(operation: &'static str) -> CriError {
    CriError::new(operation, ErrorKind::Failed, format!("the container runtime's answer to {operation} is incomplete"))
}
