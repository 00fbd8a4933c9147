//! The two ways to reach an apiserver.

use std::path::Path;

use bytes::Bytes;
use http::{Request, Response};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tower::{BoxError, Service};

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot read kubeconfig {path}")]
    Kubeconfig { path: String, source: Box<kube::config::KubeconfigError> },
    #[error("cannot build a client from kubeconfig {path}")]
    Build { path: String, source: Box<kube::Error> },
}

/// A client whose requests are calls into `service`, normally an apiserver's pipeline bound to one identity.
///
/// Must be called inside a tokio runtime: the client owns one small forwarding task that ends with its last clone.
pub fn in_process<S, B>(service: S) -> kube::Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    kube::Client::new(service, "default")
}

/// A client that speaks HTTPS as the current context of the kubeconfig at `path`.
pub async fn from_kubeconfig(path: &Path) -> Result<kube::Client, ClientError> {
    let shown = || path.display().to_string();
    let kubeconfig_error = |source| ClientError::Kubeconfig { path: shown(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(kubeconfig_error)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(kubeconfig_error)?;
    kube::Client::try_from(config).map_err(|source| ClientError::Build { path: shown(), source: Box::new(source) })
}
