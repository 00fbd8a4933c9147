//! Host paths and empty directories.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource};
use kube1_api::quantity::Quantity;

use super::VolumeError;
use super::mount::mount_tmpfs;

/// Checks (or makes) what a `hostPath` asks for.
pub(super) fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&source.path);
    let kind = path.metadata().ok().map(|m| m.file_type());
    let fails = |wanted| VolumeError::HostPathType { path: source.path.clone(), wanted };
    let check = |ok: bool, wanted| if ok { Ok(()) } else { Err(fails(wanted)) };
    match source.type_.as_deref().unwrap_or_default() {
        "DirectoryOrCreate" if kind.is_none() => {
            make_dir(&path, 0o755)?;
        }
        "FileOrCreate" if kind.is_none() => {
            fs::File::create(&path).map_err(VolumeError::io(&path))?;
            set_mode(&path, 0o644)?;
        }
        "Directory" | "DirectoryOrCreate" => check(kind.is_some_and(|k| k.is_dir()), "a directory")?,
        "File" | "FileOrCreate" => check(kind.is_some_and(|k| k.is_file()), "a file")?,
        "Socket" => check(kind.is_some_and(|k| k.is_socket()), "a socket file")?,
        "CharDevice" => check(kind.is_some_and(|k| k.is_char_device()), "a character device")?,
        "BlockDevice" => check(kind.is_some_and(|k| k.is_block_device()), "a block device")?,
        // Without a type nothing is checked; a missing path becomes a directory, as container engines do.
        _ if kind.is_none() => make_dir(&path, 0o755)?,
        _ => {}
    }
    Ok(path)
}

fn make_dir(path: &Path, mode: u32) -> Result<(), VolumeError> {
    fs::create_dir_all(path).map_err(VolumeError::io(path))?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), VolumeError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(VolumeError::io(path))
}

/// Makes an empty directory, in memory if it says so; `memory` bounds one that gives no size.
pub(super) fn empty_dir(
    dir: &Path,
    source: &EmptyDirVolumeSource,
    group: Option<u32>,
    memory: u64,
) -> Result<(), VolumeError> {
    let ready = dir.with_extension("ready");
    // Kept beside the volume: a pod may change its volume's mode, which a restart of kube1 must not undo.
    let mut done = ready.exists() && dir.is_dir();
    fs::create_dir_all(dir).map_err(VolumeError::io(dir))?;
    let medium = source.medium.as_deref().unwrap_or_default();
    if medium == "Memory" {
        let limit = source.size_limit.as_ref().and_then(|q| Quantity::parse(&q.0).ok());
        let limit = limit.and_then(|q| u64::try_from(q.units()).ok()).filter(|l| *l > 0);
        let size = match (limit, memory) {
            (Some(limit), memory) if memory > 0 => limit.min(memory),
            (Some(limit), _) => limit,
            (None, memory) => memory,
        };
        // What was in memory is gone after a restart of the machine.
        done &= !mount_tmpfs(dir, Some(size)).map_err(VolumeError::io(dir))?;
    } else if medium.starts_with("HugePages") {
        return Err(VolumeError::Unsupported("emptyDir in huge pages"));
    }
    if done {
        return Ok(());
    }
    set_mode(dir, empty_mode(medium == "Memory", group.is_some()))?;
    std::os::unix::fs::chown(dir, None, group).map_err(VolumeError::io(dir))?;
    fs::write(&ready, []).map_err(VolumeError::io(&ready))
}

/// Everybody may write to an empty directory, and what is made in one with a group belongs to the group. One in memory
/// is like any tmpfs: nobody removes the files of others.
fn empty_mode(in_memory: bool, grouped: bool) -> u32 {
    0o777 | if in_memory { 0o1000 } else { 0 } | if grouped { 0o2000 } else { 0 }
}

/// The directory of published files; secrets lie in memory, so that they are never on a disk.
pub(super) fn files_dir(dir: &Path, in_memory: bool) -> Result<(), VolumeError> {
    fs::create_dir_all(dir).map_err(VolumeError::io(dir))?;
    if in_memory {
        mount_tmpfs(dir, None).map_err(VolumeError::io(dir))?;
    }
    set_mode(dir, 0o777)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn empty_directories_have_the_modes_of_upstream() {
        let modes = [(false, false), (false, true), (true, false), (true, true)].map(|(m, g)| empty_mode(m, g));
        assert_eq!(modes, [0o777, 0o2777, 0o1777, 0o3777]);
    }

    #[test]
    fn host_paths_are_checked_and_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let source = |name: &str, kind: &str| HostPathVolumeSource { path: path(name), type_: Some(kind.into()) };
        assert!(host_path(&source("x", "Directory")).is_err());
        assert!(host_path(&source("x", "DirectoryOrCreate")).unwrap().is_dir());
        assert!(host_path(&source("x", "Directory")).is_ok());
        assert!(host_path(&source("x", "FileOrCreate")).is_err());
        assert!(host_path(&source("f", "FileOrCreate")).unwrap().is_file());
        assert!(host_path(&source("f", "Socket")).is_err());
    }
}
