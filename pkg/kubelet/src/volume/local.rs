//! Local persistent volumes: a directory, or a block device that is given as it is or with a file system on it.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::LocalVolumeSource;
use tokio::process::Command;

use super::mount::is_mounted;
use super::{VolumeError, VolumePath};

const DEFAULT_FS: &str = "ext4";
/// What `blkid` answers about a device on which it finds nothing.
const NOTHING_FOUND: i32 = 2;

/// The device of a volume in block mode.
pub(super) fn device(source: &LocalVolumeSource) -> Result<VolumePath, VolumeError> {
    let path = PathBuf::from(&source.path);
    if !is_block_device(&path) {
        let wanted = "a block device on this node, which a local volume of mode Block must be";
        return Err(VolumeError::HostPathType { path: source.path.clone(), wanted });
    }
    Ok(VolumePath { block: true, ..VolumePath::new(path, false) })
}

/// The directory of a volume in file system mode. A device is mounted at `dir`, and formatted before if it is blank.
pub(super) async fn directory(
    source: &LocalVolumeSource,
    options: &[String],
    dir: &Path,
    group: Option<u32>,
) -> Result<VolumePath, VolumeError> {
    let mut path = PathBuf::from(&source.path);
    if is_block_device(&path) {
        mount_device(&path, source.fs_type.as_deref(), options, dir).await?;
        path = dir.to_owned();
    }
    if !path.is_dir() {
        let wanted = "a directory or block device on this node, which a local volume must be";
        return Err(VolumeError::HostPathType { path: source.path.clone(), wanted });
    }
    if let Some(group) = group {
        set_group(&path, group).map_err(VolumeError::io(&path))?;
    }
    Ok(VolumePath::new(path, false))
}

fn is_block_device(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.file_type().is_block_device())
}

/// Gives the pod's group the volume's top directory, and what is made in it later.
fn set_group(path: &Path, group: u32) -> std::io::Result<()> {
    std::os::unix::fs::chown(path, None, Some(group))?;
    let mode = path.metadata()?.permissions().mode();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | 0o2770))
}

async fn mount_device(device: &Path, fs_type: Option<&str>, options: &[String], dir: &Path) -> Result<(), VolumeError> {
    std::fs::create_dir_all(dir).map_err(VolumeError::io(dir))?;
    if is_mounted(dir).map_err(VolumeError::io(dir))? {
        return Ok(());
    }
    let wanted = fs_type.filter(|t| !t.is_empty()).unwrap_or(DEFAULT_FS);
    // A low-level look at the device itself: what the cache says may be from before it was wiped.
    let mut look = Command::new("blkid");
    look.args(["-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "value"]).arg(device);
    let (code, _) = run(look, device).await?;
    if code == NOTHING_FOUND {
        let mut format = Command::new(format!("mkfs.{wanted}"));
        // Without it, these ask whether a whole device is really meant.
        format.args(if wanted == "xfs" { ["-f"] } else { ["-F"] }).arg(device);
        must(run(format, device).await?, device)?;
    }
    let mut mount = Command::new("mount");
    mount.args(["-t", wanted]);
    if !options.is_empty() {
        mount.args(["-o", &options.join(",")]);
    }
    mount.arg(device).arg(dir);
    must(run(mount, device).await?, device)
}

/// A host tool's exit code and what it complained of.
async fn run(mut command: Command, device: &Path) -> Result<(i32, String), VolumeError> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let failed = |e: std::io::Error| std::io::Error::new(e.kind(), format!("cannot run {name}: {e}"));
    let output = command.kill_on_drop(true).output().await.map_err(failed).map_err(VolumeError::io(device))?;
    let said = format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok((output.status.code().unwrap_or(-1), said))
}

fn must((code, said): (i32, String), device: &Path) -> Result<(), VolumeError> {
    if code == 0 { Ok(()) } else { Err(VolumeError::io(device)(std::io::Error::other(said))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &Path) -> LocalVolumeSource {
        LocalVolumeSource { path: path.display().to_string(), fs_type: None }
    }

    #[tokio::test]
    async fn a_volume_must_be_what_its_mode_says() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(device(&source(dir.path())).is_err());
        let file = dir.path().join("file");
        std::fs::write(&file, []).expect("a file");
        assert!(directory(&source(&file), &[], dir.path(), None).await.is_err());
        let found = directory(&source(dir.path()), &[], dir.path(), None).await.expect("a volume");
        assert_eq!((found.path.as_path(), found.block), (dir.path(), false));
    }
}
