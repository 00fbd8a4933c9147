//! The state of a container in a file (KEP-2008), as far as the runtime can write it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use kube1_cri::ErrorKind;
use kube1_cri::v1::ContainerState;
use serde_json::json;

use super::{Reply, Server, json_reply, text};
use crate::labels;
use crate::pod::PodExt;

/// Writes a checkpoint of a running container and tells where it lies; `timeout` is in seconds.
pub(super) async fn serve(
    server: &Arc<Server>,
    query: &[(String, String)],
    namespace: &str,
    pod: &str,
    container: &str,
) -> Reply {
    let Some(entry) = server.node.pods.by_name(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist\n");
    };
    let limit = match query.iter().find(|(key, _)| key == "timeout").map(|(_, value)| value.parse()) {
        Some(Ok(seconds)) => Duration::from_secs(seconds),
        Some(Err(_)) => return text(StatusCode::BAD_REQUEST, "timeout is no number of seconds\n"),
        None => Duration::ZERO,
    };
    let wanted = HashMap::from([
        (labels::POD_UID.to_owned(), entry.pod().uid().to_owned()),
        (labels::CONTAINER_NAME.to_owned(), container.to_owned()),
    ]);
    let found = match server.node.runtime.list_containers(wanted).await {
        Ok(containers) => containers.into_iter().find(|c| c.state() == ContainerState::ContainerRunning),
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    };
    let Some(found) = found else {
        return text(StatusCode::NOT_FOUND, format!("container {container} does not exist\n"));
    };
    let dir = server.node.config.data_dir.join("checkpoints");
    if let Err(error) = std::fs::create_dir_all(&dir) {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}: {error}\n", dir.display()));
    }
    let file = format!("checkpoint-{pod}_{namespace}-{container}-{}.tar", Timestamp::now());
    let file = dir.join(file).display().to_string();
    match server.node.runtime.checkpoint_container(&found.id, &file, limit).await {
        Ok(()) => json_reply(&json!({"items": [file]})),
        Err(error) => {
            let why = match error.kind {
                ErrorKind::Unimplemented => "the container runtime of this node writes no checkpoints: ".to_owned(),
                _ => String::new(),
            };
            let message = format!("checkpointing of {namespace}/{pod}/{container} failed: {why}{error}\n");
            text(StatusCode::INTERNAL_SERVER_ERROR, message)
        }
    }
}
