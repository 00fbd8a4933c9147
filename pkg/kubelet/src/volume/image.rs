//! Parts of images as volumes: the image is mounted below the pod's directory, and a part of it is bound from there.
//!
//! Whole images are mounted by the runtime itself; of parts (`subPath`) only containerd 2.2 and later know.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube1_cri::images::ImageMount;
use nix::mount::{MsFlags, mount};

use super::mount::{is_mounted, unmount_below};
use super::{VolumeError, VolumeManager, run_blocking};
use crate::pod::PodExt;

const PLUGIN: &str = "image";

/// The name of a pod's snapshot for a volume.
fn key(uid: &str, volume: &str) -> String {
    format!("kube1-volume-{uid}-{volume}")
}

impl VolumeManager {
    /// Where the file system of an image that the runtime has is mounted for a pod's volume, read-only. Idempotent.
    pub async fn image_dir(&self, pod: &Pod, volume: &str, image: &str) -> Result<PathBuf, VolumeError> {
        let dir = self.volume_dir(pod, PLUGIN, volume);
        std::fs::create_dir_all(&dir).map_err(VolumeError::io(&dir))?;
        if is_mounted(&dir).map_err(VolumeError::io(&dir))? {
            return Ok(dir);
        }
        let view = self.runtime.view_image(image, &key(pod.uid(), volume)).await?;
        run_blocking(move || {
            mount_view(&dir, &view).map_err(VolumeError::io(&dir))?;
            Ok(dir)
        })
        .await
    }

    /// Unmounts a pod's images and gives their snapshots up.
    pub(super) async fn forget_images(&self, uid: &str) -> std::io::Result<()> {
        let dir = self.config.pod_dir(uid).join(format!("volumes/kubernetes.io~{PLUGIN}"));
        let Ok(entries) = std::fs::read_dir(&dir) else { return Ok(()) };
        // What containers were shown lies on top of the image.
        unmount_below(&self.config.pod_dir(uid))?;
        for volume in entries.flatten() {
            let dropped = self.runtime.drop_view(&key(uid, &volume.file_name().to_string_lossy())).await;
            dropped.map_err(std::io::Error::other)?;
        }
        Ok(())
    }
}

fn mount_view(dir: &Path, view: &ImageMount) -> std::io::Result<()> {
    let (mut flags, mut data) = (MsFlags::MS_RDONLY, Vec::new());
    for option in &view.options {
        match option.as_str() {
            // A view is never written to.
            "ro" | "rw" => {}
            "bind" => flags |= MsFlags::MS_BIND,
            "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            other => data.push(other),
        }
    }
    let data = data.join(",");
    mount(Some(view.source.as_str()), dir, Some(view.kind.as_str()), flags, Some(data.as_str()))?;
    if flags.contains(MsFlags::MS_BIND) {
        // The kernel makes a bind mount read-only only in a second step.
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, dir, None::<&str>, flags, None::<&str>)?;
    }
    Ok(())
}
