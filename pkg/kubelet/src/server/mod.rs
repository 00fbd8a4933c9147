//! The node's HTTPS API.

use std::sync::Arc;

use kube1_supervisor::BoxError;
use tokio_util::sync::CancellationToken;

use crate::node::Node;

/// Serves until `stop`.
pub(crate) async fn run(_node: Arc<Node>, stop: CancellationToken) -> Result<(), BoxError> {
    stop.cancelled().await;
    Ok(())
}
