//! Looking into an image: a read-only snapshot of its file system.

use std::collections::HashMap;

use containerd_client::services::v1::PluginsRequest;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    MountsRequest, RemoveSnapshotRequest, StatSnapshotRequest, ViewSnapshotRequest,
};
use tonic::Code;
use tonic::metadata::MetadataValue;

use crate::{CriError, ErrorKind, Runtime};

/// What to mount to see a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMount {
    pub kind: String,
    pub source: String,
    pub options: Vec<String>,
}

fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static("k8s.io"));
    request
}

impl Runtime {
    /// A read-only snapshot of an image that the runtime has, as what to mount. It is kept under `key`, and given again when
    /// asked for again, until [`Self::drop_view`]. Fails where the runtime is not containerd.
    pub async fn view_image(&self, image: &str, key: &str) -> Result<ImageMount, CriError> {
        let chain = self.chain_id(image).await?;
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        for snapshotter in self.snapshotters().await? {
            let stat = StatSnapshotRequest { snapshotter: snapshotter.clone(), key: chain.clone() };
            match snapshots.stat(request(stat)).await {
                Err(status) if status.code() == Code::NotFound => continue,
                other => other.map_err(|s| CriError::status("look for a snapshot", &s))?,
            };
            // Without the label the snapshot would be collected.
            let labels = HashMap::from([("containerd.io/gc.root".to_owned(), jiff::Timestamp::now().to_string())]);
            let view = ViewSnapshotRequest {
                snapshotter: snapshotter.clone(),
                key: key.to_owned(),
                parent: chain.clone(),
                labels,
            };
            let mounts = match snapshots.view(request(view)).await {
                Err(status) if status.code() == Code::AlreadyExists => {
                    let again = MountsRequest { snapshotter, key: key.to_owned() };
                    snapshots.mounts(request(again)).await.map(|answer| answer.into_inner().mounts)
                }
                other => other.map(|answer| answer.into_inner().mounts),
            };
            let mounts = mounts.map_err(|s| CriError::status("view an image", &s))?;
            let Some(mount) = mounts.into_iter().next() else { break };
            return Ok(ImageMount { kind: mount.r#type, source: mount.source, options: mount.options });
        }
        Err(CriError::new("view an image", ErrorKind::Failed, format!("the runtime has not unpacked image {image}")))
    }

    /// Gives up a snapshot of [`Self::view_image`]. Harmless when there is none.
    pub async fn drop_view(&self, key: &str) -> Result<(), CriError> {
        for snapshotter in self.snapshotters().await? {
            let remove = RemoveSnapshotRequest { snapshotter, key: key.to_owned() };
            match SnapshotsClient::new(self.channel.clone()).remove(request(remove)).await {
                Err(status) if status.code() != Code::NotFound => {
                    return Err(CriError::status("remove a snapshot", &status));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The snapshotters that work here.
    async fn snapshotters(&self) -> Result<Vec<String>, CriError> {
        let plugins = PluginsRequest { filters: vec!["type==io.containerd.snapshotter.v1".to_owned()] };
        let answer = IntrospectionClient::new(self.channel.clone()).plugins(request(plugins)).await;
        let plugins = answer.map_err(|s| CriError::status("list plugins", &s))?.into_inner().plugins;
        Ok(plugins.into_iter().filter(|plugin| plugin.init_err.is_none()).map(|plugin| plugin.id).collect())
    }
}

/// The name of an image's topmost layer in what the runtime tells of it.
pub(crate) fn chain_id(info: &str) -> Option<String> {
    let info: serde_json::Value = serde_json::from_str(info).ok()?;
    info["chainID"].as_str().filter(|chain| !chain.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_read_or_missed() {
        assert_eq!(chain_id(r#"{"chainID":"sha256:a","imageSpec":{}}"#).as_deref(), Some("sha256:a"));
        for text in ["", "{}", "[]", r#"{"chainID":""}"#, r#"{"chainID":1}"#] {
            assert_eq!(chain_id(text), None, "{text}");
        }
    }
}
