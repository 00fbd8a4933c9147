//! Writing blobs to containerd's content store.

use std::collections::HashMap;

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::{Info, InfoRequest, UpdateRequest, WriteAction, WriteContentRequest};
use prost_types::FieldMask;

use super::archive::{Archive, Blob};
use super::{ImportError, Session};
use crate::CriError;

/// Bytes of a blob in one message; gRPC servers refuse more than 4 MiB.
const CHUNK: usize = 1 << 20;

impl Session {
    /// Stores a blob under the labels that keep its children alive. A blob that is there already is only labelled.
    pub(super) async fn write_blob(
        &self,
        archive: &Archive,
        blob: &Blob,
        snapshotter: &str,
    ) -> Result<(), ImportError> {
        let labels = labels(blob, snapshotter);
        let mut content = ContentClient::new(self.channel.clone());
        let stored = content.info(self.request(InfoRequest { digest: blob.digest.clone() })).await.is_ok();
        if stored {
            return Ok(self.label(blob, labels).await?);
        }
        let total = archive.size(&blob.content);
        // The blob is read chunk by chunk into a short channel, so that a large layer is never in memory as a whole.
        let (sender, receiver) = tokio::sync::mpsc::channel::<WriteContentRequest>(2);
        let messages = futures::stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|message| (message, receiver))
        });
        let feed = async move {
            let mut offset = 0;
            loop {
                let data = archive.read(&blob.content, offset, CHUNK)?;
                let length = data.len() as u64;
                let last = offset + length >= total;
                let message = WriteContentRequest {
                    action: if last { WriteAction::Commit } else { WriteAction::Write }.into(),
                    r#ref: format!("kube1-import-{}", blob.digest),
                    total: total as i64,
                    expected: blob.digest.clone(),
                    offset: offset as i64,
                    data,
                    labels: labels.clone(),
                };
                // A closed channel means that the call has failed, which its own result tells.
                if sender.send(message).await.is_err() || last {
                    return Ok::<(), ImportError>(());
                }
                offset += length;
            }
        };
        let write = async {
            let call = content.write(self.request(messages)).await;
            let mut answers = call.map_err(|s| CriError::status("write content", &s))?.into_inner();
            loop {
                match answers.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Ok(()),
                    Err(status) if status.code() == tonic::Code::AlreadyExists => return Ok(()),
                    Err(status) => return Err(ImportError::from(CriError::status("write content", &status))),
                }
            }
        };
        let (fed, written) = tokio::join!(feed, write);
        written.and(fed)
    }

    async fn label(&self, blob: &Blob, labels: HashMap<String, String>) -> Result<(), CriError> {
        if labels.is_empty() {
            return Ok(());
        }
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let info = Info { digest: blob.digest.clone(), labels, ..Info::default() };
        let update = UpdateRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
        let updated = ContentClient::new(self.channel.clone()).update(self.request(update)).await;
        updated.map(drop).map_err(|s| CriError::status("label content", &s))
    }
}

fn labels(blob: &Blob, snapshotter: &str) -> HashMap<String, String> {
    let children = blob.children.iter().map(|(name, digest)| {
        let name = format!("containerd.io/gc.ref.content.{name}");
        (name, digest.clone())
    });
    let snapshot =
        blob.chain_id.iter().map(|chain| (format!("containerd.io/gc.ref.snapshot.{snapshotter}"), chain.clone()));
    children.chain(snapshot).collect()
}
