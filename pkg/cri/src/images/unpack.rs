//! Unpacking layers into snapshots.

use std::collections::HashMap;

use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::services::v1::{ApplyRequest, PluginsRequest};
use containerd_client::types::Descriptor;
use tonic::Code;

use super::archive::{Manifest, chain_ids};
use super::{ImportError, Session, unique};
use crate::CriError;

impl Session {
    /// The snapshotter that CRI uses by default, or the plain one where overlay filesystems do not work.
    pub(super) async fn snapshotter(&self) -> Result<String, CriError> {
        let request = PluginsRequest { filters: vec!["type==io.containerd.snapshotter.v1".to_owned()] };
        let answer = IntrospectionClient::new(self.channel.clone()).plugins(self.request(request)).await;
        let plugins = answer.map_err(|s| CriError::status("list plugins", &s))?.into_inner().plugins;
        let works = |id: &&str| plugins.iter().any(|plugin| plugin.id == *id && plugin.init_err.is_none());
        Ok(["overlayfs", "native"].iter().copied().find(works).unwrap_or("overlayfs").to_owned())
    }

    /// Makes the snapshot of every layer of a manifest that is not there yet.
    pub(super) async fn unpack(&self, manifest: &Manifest, snapshotter: &str) -> Result<(), ImportError> {
        let mut parent = String::new();
        for (layer, chain) in manifest.layers.iter().zip(chain_ids(&manifest.diff_ids)) {
            self.unpack_layer(layer, &chain, &parent, snapshotter).await?;
            parent = chain;
        }
        Ok(())
    }

    async fn unpack_layer(
        &self,
        layer: &Descriptor,
        chain: &str,
        parent: &str,
        snapshotter: &str,
    ) -> Result<(), CriError> {
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let stat = StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: chain.to_owned() };
        match snapshots.stat(self.request(stat)).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(CriError::status("look for a snapshot", &status)),
        }
        let key = format!("extract-{} {chain}", unique());
        let prepare = PrepareSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.clone(),
            parent: parent.to_owned(),
            labels: HashMap::new(),
        };
        let prepared = snapshots.prepare(self.request(prepare)).await;
        let mounts = prepared.map_err(|s| CriError::status("prepare a snapshot", &s))?.into_inner().mounts;
        let apply = ApplyRequest { diff: Some(layer.clone()), mounts, ..ApplyRequest::default() };
        let applied = match DiffClient::new(self.channel.clone()).apply(self.request(apply)).await {
            Ok(_) => self.commit(&key, chain, parent, snapshotter).await,
            Err(status) => Err(CriError::status("unpack a layer", &status)),
        };
        if !matches!(applied, Ok(true)) {
            let remove = RemoveSnapshotRequest { snapshotter: snapshotter.to_owned(), key };
            // Only tidies: what cannot be removed goes with the lease.
            let _ = snapshots.remove(self.request(remove)).await;
        }
        applied.map(drop)
    }

    /// Says false when someone else unpacked the same layer meanwhile.
    async fn commit(&self, key: &str, chain: &str, parent: &str, snapshotter: &str) -> Result<bool, CriError> {
        let mut request = CommitSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            name: chain.to_owned(),
            key: key.to_owned(),
            ..CommitSnapshotRequest::default()
        };
        if !parent.is_empty() {
            request.labels.insert("containerd.io/gc.ref.snapshot.parent".to_owned(), parent.to_owned());
        }
        match SnapshotsClient::new(self.channel.clone()).commit(self.request(request)).await {
            Err(status) if status.code() == Code::AlreadyExists => Ok(false),
            other => other.map(|_| true).map_err(|s| CriError::status("commit a snapshot", &s)),
        }
    }
}
