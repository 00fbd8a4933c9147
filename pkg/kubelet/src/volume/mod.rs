//! Volumes: what a pod mounts, made ready below its directory before its containers start, and kept current.

mod atomic_writer;
mod files;
mod image;
mod local;
mod mount;
mod persistent;
mod simple;
mod subpath;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use kube1_cri::{CriError, Runtime};

use crate::config::KubeletConfig;
use crate::downward::{DownwardError, PodFacts};
use crate::object_cache::{ObjectCache, ObjectError};
use crate::pod::PodExt;
use crate::token::{TokenError, Tokens};

pub use mount::unmount_below;
pub use subpath::{SubPathError, bind_sub_path, read_inside};

/// Why a volume cannot be made ready; the text is what `FailedMount` events show.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("{0}")]
    Object(#[from] ObjectError),
    #[error("{0}")]
    Token(#[from] TokenError),
    #[error("{0}")]
    Downward(#[from] DownwardError),
    #[error("{0}")]
    Runtime(#[from] CriError),
    #[error("references non-existent {kind} key: {key}")]
    Key { kind: &'static str, key: String },
    #[error("hostPath type check failed: {path} is not {wanted}")]
    HostPathType { path: String, wanted: &'static str },
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("PersistentVolumeClaim {0}")]
    Claim(String),
    #[error("this node does not support volumes of this type: {0}")]
    Unsupported(&'static str),
}

impl VolumeError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.display().to_string(), source }
    }
}

/// A failed volume, by name.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
pub struct FailedVolume {
    pub volume: String,
    pub source: VolumeError,
}

/// Volumes that are ready.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    pub paths: BTreeMap<String, VolumePath>,
    /// When something in them must be renewed.
    pub refresh_at: Option<Timestamp>,
}

/// Where a volume lies on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumePath {
    pub path: PathBuf,
    pub read_only: bool,
    /// An image that the runtime itself mounts; then there is no path.
    pub image: Option<ImageSource>,
    /// The path is a device that containers get as such.
    pub block: bool,
}

/// An image to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSource {
    pub reference: String,
    pub pull_policy: Option<String>,
}

impl VolumePath {
    fn new(path: PathBuf, read_only: bool) -> Self {
        Self { path, read_only, image: None, block: false }
    }
}

/// Makes and removes volumes.
pub struct VolumeManager {
    config: KubeletConfig,
    runtime: Runtime,
    objects: Arc<ObjectCache>,
    tokens: Arc<Tokens>,
}

impl VolumeManager {
    pub fn new(config: KubeletConfig, runtime: Runtime, objects: Arc<ObjectCache>, tokens: Arc<Tokens>) -> Self {
        Self { config, runtime, objects, tokens }
    }

    /// Makes a pod's volumes ready and current. Idempotent; called at every synchronisation.
    pub async fn set_up(&self, pod: &Pod, facts: &PodFacts) -> Result<Volumes, FailedVolume> {
        let mut volumes = Volumes::default();
        for volume in pod.spec().volumes.iter().flatten() {
            let made = self.set_up_volume(pod, facts, volume, &mut volumes.refresh_at).await;
            let path = made.map_err(|source| FailedVolume { volume: volume.name.clone(), source })?;
            volumes.paths.insert(volume.name.clone(), path);
        }
        Ok(volumes)
    }

    async fn set_up_volume(
        &self,
        pod: &Pod,
        facts: &PodFacts,
        volume: &Volume,
        refresh_at: &mut Option<Timestamp>,
    ) -> Result<VolumePath, VolumeError> {
        let group = pod.spec().security_context.as_ref().and_then(|s| s.fs_group);
        let group = group.and_then(|g| u32::try_from(g).ok());
        if let Some(source) = &volume.host_path {
            return Ok(VolumePath::new(simple::host_path(source)?, false));
        }
        if let Some(source) = &volume.image {
            let reference = source.reference.clone().unwrap_or_default();
            let image = ImageSource { reference, pull_policy: source.pull_policy.clone() };
            return Ok(VolumePath { image: Some(image), ..VolumePath::new(PathBuf::new(), true) });
        }
        if let Some(source) = &volume.empty_dir {
            let dir = self.volume_dir(pod, "empty-dir", &volume.name);
            simple::empty_dir(&dir, source, group, memory_default(pod, facts))?;
            return Ok(VolumePath::new(dir, false));
        }
        if let Some((plugin, in_memory)) = files::plugin(volume) {
            let dir = self.volume_dir(pod, plugin, &volume.name);
            let sources = files::Sources { pod, facts, objects: &self.objects, tokens: &self.tokens };
            let made = files::payload(&sources, volume).await?;
            if let Some(at) = made.refresh_at {
                *refresh_at = Some(refresh_at.map_or(at, |old| old.min(at)));
            }
            let publish = move || {
                simple::files_dir(&dir, in_memory)?;
                atomic_writer::publish(&dir, &made.payload, group).map_err(VolumeError::io(&dir))?;
                Ok(VolumePath::new(dir, false))
            };
            return run_blocking(publish).await;
        }
        let claim = volume.persistent_volume_claim.as_ref().map(|c| (c.claim_name.clone(), c.read_only));
        let claim =
            claim.or_else(|| volume.ephemeral.as_ref().map(|_| (format!("{}-{}", pod.name(), volume.name), None)));
        if let Some((name, read_only)) = claim {
            let dirs = |plugin: &str| self.volume_dir(pod, plugin, &volume.name);
            let mut path = persistent::claim(&self.config.client, pod, &name, dirs, group).await?;
            path.read_only |= read_only == Some(true);
            return Ok(path);
        }
        if let Some(nfs) = &volume.nfs {
            let dir = self.volume_dir(pod, "nfs", &volume.name);
            let read_only = nfs.read_only == Some(true);
            persistent::mount_nfs(&dir, &nfs.server, &nfs.path, read_only, &[]).await?;
            return Ok(VolumePath::new(dir, read_only));
        }
        Err(VolumeError::Unsupported(persistent::source_name(volume)))
    }

    fn volume_dir(&self, pod: &Pod, plugin: &str, name: &str) -> PathBuf {
        self.config.pod_dir(pod.uid()).join(format!("volumes/kubernetes.io~{plugin}")).join(name)
    }

    /// Unmounts and removes everything below a pod's directory.
    pub async fn tear_down(&self, uid: &str) -> std::io::Result<()> {
        let dir = self.config.pod_dir(uid);
        self.objects.release(uid);
        self.tokens.release(uid);
        self.forget_images(uid).await?;
        let removed = tokio::task::spawn_blocking(move || remove_pod_dir(&dir)).await;
        removed.map_err(std::io::Error::other)?
    }
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| VolumeError::Io { path: "the volume".to_owned(), source: std::io::Error::other(e) })?
}

/// A pod that limits its memory limits its memory volumes by the same amount.
fn memory_default(pod: &Pod, facts: &PodFacts) -> u64 {
    let limit = crate::pod::total_limit(pod.spec(), "memory").map(|q| q.units()).filter(|m| *m > 0);
    u64::try_from(limit.unwrap_or(facts.allocatable_memory)).unwrap_or(0)
}

/// Unmounts first: data behind a mount that stays is never deleted.
fn remove_pod_dir(dir: &Path) -> std::io::Result<()> {
    unmount_below(dir)?;
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
