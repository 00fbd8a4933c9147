//! The two ways to reach an apiserver.

use std::path::Path;

use bytes::Bytes;
use http::{Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tower::{BoxError, Layer, Service};

use crate::metered::Metered;

/// What metrics of requests inside the process have for the host.
const IN_PROCESS: &str = "in-process";

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot read kubeconfig {path}")]
    Kubeconfig { path: String, source: Box<kube::config::KubeconfigError> },
    #[error("cannot build a client from kubeconfig {path}")]
    Build { path: String, source: Box<kube::Error> },
}

/// What went wrong in plain words: of an API server's refusal its message, where kube's own text shows all of the Status.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("the server answered {} {}", status.code, status.reason),
        other => other.to_string(),
    }
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
    kube::Client::new(Metered::new(IN_PROCESS).layer(service), "default")
}

/// A client that speaks HTTPS as the current context of the kubeconfig at `path`.
pub async fn from_kubeconfig(path: &Path) -> Result<kube::Client, ClientError> {
    let shown = || path.display().to_string();
    let kubeconfig_error = |source| ClientError::Kubeconfig { path: shown(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(kubeconfig_error)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(kubeconfig_error)?;
    let build = |source| ClientError::Build { path: shown(), source: Box::new(source) };
    let host = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
    Ok(ClientBuilder::try_from(config).map_err(build)?.with_layer(&Metered::new(&host)).build())
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn refusals_are_told_by_their_message() {
        let status =
            Status { code: 409, message: "it exists".into(), reason: "AlreadyExists".into(), ..Status::default() };
        assert_eq!(message(&kube::Error::Api(status.boxed())), "it exists");
        let silent = Status { code: 500, ..Status::default() };
        assert_eq!(message(&kube::Error::Api(silent.boxed())), "the server answered 500 ");
    }
}
