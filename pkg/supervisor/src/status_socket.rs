//! The node's status over a Unix socket that only its owner may open: one JSON document per connection.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::status::NodeStatus;

/// Longest time one reader may take.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest reply that a client accepts, in bytes.
const REPLY_MAX: u64 = 1 << 20;

/// Why the status of a node could not be served or read.
#[derive(Debug, thiserror::Error)]
pub enum StatusSocketError {
    #[error("nothing answers on {path}: kube1 is not running on this data directory")]
    NotRunning { path: PathBuf, source: io::Error },
    #[error("cannot use the status socket {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the status socket {path} gave no valid status")]
    Malformed { path: PathBuf, source: serde_json::Error },
}

/// Answers every connection to `path` with `status()` until `shutdown`. Replaces a socket left by an earlier process.
pub async fn serve_status(
    path: &Path,
    status: impl Fn() -> NodeStatus,
    shutdown: CancellationToken,
) -> Result<(), StatusSocketError> {
    let io_error = |source| StatusSocketError::Io { path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(io_error)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(io_error)?;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (mut stream, _) = accepted.map_err(io_error)?;
        let reply = serde_json::to_vec(&status()).map_err(|e| io_error(e.into()))?;
        // A reader that goes away or dawdles loses its answer, nobody else's.
        let _ = tokio::time::timeout(REPLY_TIMEOUT, stream.write_all(&reply)).await;
    }
    let _ = std::fs::remove_file(path);
    Ok(())
}

/// Asks the node behind `path` for its status.
pub async fn query_status(path: &Path) -> Result<NodeStatus, StatusSocketError> {
    let io_error = |source| StatusSocketError::Io { path: path.to_owned(), source };
    let stream = UnixStream::connect(path).await.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            StatusSocketError::NotRunning { path: path.to_owned(), source }
        }
        _ => io_error(source),
    })?;
    let mut reply = Vec::new();
    stream.take(REPLY_MAX).read_to_end(&mut reply).await.map_err(io_error)?;
    serde_json::from_slice(&reply).map_err(|source| StatusSocketError::Malformed { path: path.to_owned(), source })
}
