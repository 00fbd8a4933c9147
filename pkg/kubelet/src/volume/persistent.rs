//! Persistent volumes: the claim's volume, if it lies on this node or is served over NFS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::Api;

use super::mount::is_mounted;
use super::{VolumeError, VolumePath, local, simple};
use crate::pod::PodExt;

/// How long `mount` may take for a server that does not answer.
const MOUNT: Duration = Duration::from_secs(120);

/// The bound volume of a claim, ready at the returned path. `dirs` gives the place to mount at, by the volume's type.
pub(super) async fn claim(
    client: &kube::Client,
    pod: &Pod,
    name: &str,
    dirs: impl Fn(&str) -> PathBuf,
    group: Option<u32>,
) -> Result<VolumePath, VolumeError> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), pod.namespace());
    let failed = |error: kube::Error| VolumeError::Claim(format!("\"{name}\": {}", kube1_client::message(&error)));
    let claim = claims.get_opt(name).await.map_err(failed)?;
    let claim = claim.ok_or_else(|| VolumeError::Claim(format!("\"{name}\" not found")))?;
    let spec = claim.spec.clone().unwrap_or_default();
    let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let Some(volume) = spec.volume_name.filter(|v| bound && !v.is_empty()) else {
        return Err(VolumeError::Claim(format!("\"{name}\" is not bound")));
    };
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = volumes.get_opt(&volume).await.map_err(failed)?;
    let volume = volume.ok_or_else(|| VolumeError::Claim(format!("\"{name}\": its volume is gone")))?;
    let uid = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).and_then(|r| r.uid.clone());
    if uid.is_some() && uid != claim.metadata.uid {
        return Err(VolumeError::Claim(format!("\"{name}\": its volume belongs to another claim")));
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        let source = volume.spec.as_ref().and_then(|s| s.local.as_ref());
        return local::device(source.ok_or(VolumeError::Unsupported("raw block volumes other than local ones"))?);
    }
    mount_volume(volume, dirs, group).await
}

async fn mount_volume(
    volume: PersistentVolume,
    dirs: impl Fn(&str) -> PathBuf,
    group: Option<u32>,
) -> Result<VolumePath, VolumeError> {
    let spec = volume.spec.unwrap_or_default();
    let options = spec.mount_options.unwrap_or_default();
    if let Some(source) = &spec.host_path {
        return Ok(VolumePath::new(simple::host_path(source)?, false));
    }
    if let Some(source) = &spec.local {
        return local::directory(source, &options, &dirs("local-volume"), group).await;
    }
    if let Some(nfs) = &spec.nfs {
        let read_only = nfs.read_only == Some(true);
        let dir = dirs("nfs");
        mount_nfs(&dir, &nfs.server, &nfs.path, read_only, &options).await?;
        return Ok(VolumePath::new(dir, read_only));
    }
    Err(VolumeError::Unsupported(if spec.csi.is_some() { "csi" } else { "a persistent volume that is no path" }))
}

/// Mounts an NFS export with the host's own tool, which knows how to find server and version.
pub(super) async fn mount_nfs(
    dir: &Path,
    server: &str,
    path: &str,
    read_only: bool,
    options: &[String],
) -> Result<(), VolumeError> {
    std::fs::create_dir_all(dir).map_err(VolumeError::io(dir))?;
    if is_mounted(dir).map_err(VolumeError::io(dir))? {
        return Ok(());
    }
    let mut all: Vec<&str> = options.iter().map(String::as_str).collect();
    all.extend(read_only.then_some("ro"));
    let mut command = tokio::process::Command::new("mount");
    command.args(["-t", "nfs"]);
    if !all.is_empty() {
        command.args(["-o", &all.join(",")]);
    }
    command.arg(format!("{server}:{path}")).arg(dir).kill_on_drop(true);
    let failed = |reason: String| VolumeError::io(dir)(std::io::Error::other(reason));
    match tokio::time::timeout(MOUNT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(failed(format!("mount failed: {}", String::from_utf8_lossy(&output.stderr).trim()))),
        Ok(Err(error)) => Err(failed(format!("cannot run mount: {error}"))),
        Err(_) => Err(failed(format!("{server} did not answer in {} s", MOUNT.as_secs()))),
    }
}

/// What people call the volume's type.
pub(super) fn source_name(volume: &Volume) -> &'static str {
    let present = [
        (volume.csi.is_some(), "csi"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.fc.is_some(), "fc"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.rbd.is_some(), "rbd"),
    ];
    present.iter().find(|(there, _)| *there).map_or("an unknown source", |(_, name)| name)
}
