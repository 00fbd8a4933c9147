//! Loading image archives into containerd without a registry, and listing what is there.
//!
//! The archive's blobs go into the content store, the image's name into the image store and its layers into the
//! snapshotter, all under the labels that keep them from being collected and that make CRI see the image.

mod archive;
mod content;
mod unpack;
mod view;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{
    CreateImageRequest, CreateRequest, DeleteRequest, Image as ImageRecord, ListImagesRequest, UpdateImageRequest,
};
use containerd_client::types::Descriptor;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use crate::{CriError, Runtime};
use archive::Archive;
#[cfg(any(test, fuzzing))]
pub(crate) use archive::hostile;
pub use view::ImageMount;
pub(crate) use view::chain_id;

/// The label by which CRI knows its images.
const MANAGED_LABEL: (&str, &str) = ("io.cri-containerd.image", "managed");
/// The label that keeps image collection away, for containerd 1.7 and later.
const PINNED_LABEL: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

/// Why an archive could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("cannot read the image archive {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is no image archive: {reason}")]
    Format { path: PathBuf, reason: String },
    #[error("containerd refused the image: {0}")]
    Containerd(#[source] CriError),
}

impl From<CriError> for ImportError {
    fn from(error: CriError) -> Self {
        Self::Containerd(error)
    }
}

/// Loads an OCI or Docker archive (plain or gzip) into containerd's `namespace`; gives the names of its images.
///
/// They are pinned: what came without a registry could not be fetched again after a collection.
pub async fn import(socket: &Path, archive: &Path, namespace: &str) -> Result<Vec<String>, ImportError> {
    let path = archive.to_owned();
    let read = tokio::task::spawn_blocking(move || Archive::open(&path)).await;
    let archive = read.map_err(|e| ImportError::Format { path: archive.to_owned(), reason: e.to_string() })??;
    import_archive(socket, &archive, namespace, true).await
}

impl Runtime {
    /// Names of images that collection must leave alone, which CRI does not tell before containerd 1.7. None where the
    /// runtime is not containerd.
    pub async fn pinned_images(&self) -> Vec<String> {
        let filters = vec![format!("labels.\"{}\"=={}", PINNED_LABEL.0, PINNED_LABEL.1)];
        let mut request = tonic::Request::new(ListImagesRequest { filters });
        request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static("k8s.io"));
        match ImagesClient::new(self.channel.clone()).list(request).await {
            Ok(answer) => answer.into_inner().images.into_iter().map(|image| image.name).collect(),
            Err(error) => {
                tracing::debug!(%error, "pinned images are unknown");
                Vec::new()
            }
        }
    }
}

/// Loads an archive that is in memory; `pinned` keeps image collection away from it.
pub async fn import_bytes(
    socket: &Path,
    archive: Vec<u8>,
    namespace: &str,
    pinned: bool,
) -> Result<Vec<String>, ImportError> {
    import_archive(socket, &Archive::from_bytes(archive)?, namespace, pinned).await
}

/// An image that the runtime has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    pub id: String,
    pub names: Vec<String>,
    pub size: u64,
}

/// The images that CRI knows, by name.
pub async fn list(socket: &Path) -> Result<Vec<ImageSummary>, CriError> {
    let images = Runtime::new(socket).list_images().await?;
    let summary = |image: k8s_cri::v1::Image| {
        let names = if image.repo_tags.is_empty() { image.repo_digests } else { image.repo_tags };
        ImageSummary { id: image.id, names, size: image.size }
    };
    let mut images: Vec<ImageSummary> = images.into_iter().map(summary).collect();
    images.sort_by(|a, b| a.names.cmp(&b.names));
    Ok(images)
}

async fn import_archive(
    socket: &Path,
    archive: &Archive,
    namespace: &str,
    pinned: bool,
) -> Result<Vec<String>, ImportError> {
    let mut session = Session::open(Runtime::new(socket).channel, namespace).await?;
    let loaded = session.load(archive, pinned).await;
    // The lease only protects the load; what is referenced by an image stays.
    session.close().await;
    loaded
}

/// A load in progress: nothing it writes is collected before it ends.
struct Session {
    channel: Channel,
    namespace: String,
    lease: String,
}

impl Session {
    async fn open(channel: Channel, namespace: &str) -> Result<Self, CriError> {
        let mut session = Self { channel, namespace: namespace.to_owned(), lease: String::new() };
        // Should the load be cut off, the lease itself is collected after an hour.
        let expire = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expire.to_string())]);
        let request = session.request(CreateRequest { id: format!("kube1-import-{}", unique()), labels });
        let mut leases = LeasesClient::new(session.channel.clone());
        let created = leases.create(request).await.map_err(|s| CriError::status("create lease", &s))?.into_inner();
        session.lease = created.lease.map(|lease| lease.id).unwrap_or_default();
        Ok(session)
    }

    async fn close(&self) {
        let request = self.request(DeleteRequest { id: self.lease.clone(), sync: false });
        if let Err(error) = LeasesClient::new(self.channel.clone()).delete(request).await {
            tracing::debug!(%error, "the import's lease stays until it expires");
        }
    }

    /// A request in the session's namespace and under its lease.
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        for (key, value) in [("containerd-namespace", &self.namespace), ("containerd-lease", &self.lease)] {
            if let Ok(value) = MetadataValue::try_from(value.as_str())
                && !value.is_empty()
            {
                request.metadata_mut().insert(key, value);
            }
        }
        request
    }

    async fn load(&mut self, archive: &Archive, pinned: bool) -> Result<Vec<String>, ImportError> {
        let snapshotter = self.snapshotter().await?;
        let mut names = Vec::new();
        for image in archive.images()? {
            for blob in &image.blobs {
                self.write_blob(archive, blob, &snapshotter).await?;
            }
            for manifest in &image.manifests {
                self.unpack(manifest, &snapshotter).await?;
            }
            self.record(&image.name, image.target.clone(), pinned).await?;
            names.push(image.name);
        }
        Ok(names)
    }

    /// Names the image; an image of that name is replaced.
    async fn record(&self, name: &str, target: Descriptor, pinned: bool) -> Result<(), CriError> {
        let mut labels = HashMap::from([(MANAGED_LABEL.0.to_owned(), MANAGED_LABEL.1.to_owned())]);
        if pinned {
            labels.insert(PINNED_LABEL.0.to_owned(), PINNED_LABEL.1.to_owned());
        }
        let image = ImageRecord { name: name.to_owned(), labels, target: Some(target), ..ImageRecord::default() };
        let mut images = ImagesClient::new(self.channel.clone());
        let create = CreateImageRequest { image: Some(image.clone()), ..CreateImageRequest::default() };
        match images.create(self.request(create)).await {
            Err(status) if status.code() == tonic::Code::AlreadyExists => {
                let update = UpdateImageRequest { image: Some(image), ..UpdateImageRequest::default() };
                images.update(self.request(update)).await.map_err(|s| CriError::status("update image", &s))?;
                Ok(())
            }
            other => other.map(drop).map_err(|s| CriError::status("create image", &s)),
        }
    }
}

fn unique() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("{}-{now:x}", std::process::id())
}
