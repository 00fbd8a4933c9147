//! Mounting a part of a volume, without ever following a link out of it.
//!
//! The part is opened relative to the volume in a way that the kernel refuses to leave it, and the opened file is bound
//! below the pod's directory. What a container does to the volume afterwards cannot change what is mounted.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use super::mount::{bind_fd, unmount_below};

/// The largest file that is read as a whole.
const TEXT_MAX: u64 = 1 << 20;

/// Why a part of a volume cannot be mounted.
#[derive(Debug, thiserror::Error)]
#[error("failed to prepare subPath for volumeMount \"{volume}\" of container \"{container}\": {source}")]
pub struct SubPathError {
    pub volume: String,
    pub container: String,
    pub source: io::Error,
}

/// Binds `sub_path` of the volume at `volume_path` below `pod_dir`; gives the place. A missing part becomes a directory.
pub fn bind_sub_path(
    pod_dir: &Path,
    volume: (&str, &Path),
    container: &str,
    number: usize,
    sub_path: &str,
) -> Result<PathBuf, SubPathError> {
    let (name, root) = volume;
    let target = pod_dir.join("volume-subpaths").join(name).join(container).join(number.to_string());
    let bound = open_inside(root, sub_path).and_then(|fd| bind(&fd, &target));
    bound.map_err(|source| SubPathError { volume: name.to_owned(), container: container.to_owned(), source })?;
    Ok(target)
}

fn bind(fd: &OwnedFd, target: &Path) -> io::Result<()> {
    let is_dir = SFlag::from_bits_truncate(fstat(fd)?.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
    if target.exists() {
        unmount_below(target)?;
    }
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if is_dir {
        std::fs::create_dir_all(target)?;
    } else if !target.exists() {
        std::fs::File::create(target)?;
    }
    bind_fd(fd, target)
}

/// Opens a path below `root`, making directories that are missing.
fn open_inside(root: &Path, sub_path: &str) -> io::Result<OwnedFd> {
    let root = open(root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(&root, Path::new(sub_path), how) {
        Ok(fd) => return Ok(fd),
        Err(Errno::ENOENT) => {}
        Err(error) => return Err(refusal(error)),
    }
    let mut made = PathBuf::new();
    for part in Path::new(sub_path).components() {
        made.push(part);
        match openat2(&root, &made, how) {
            Ok(_) => {}
            Err(Errno::ENOENT) => {
                let parent = match made.parent().filter(|p| !p.as_os_str().is_empty()) {
                    Some(parent) => openat2(&root, parent, how).map_err(refusal)?,
                    None => root.try_clone()?,
                };
                let name = made.file_name().unwrap_or_default();
                mkdirat(&parent, name, Mode::from_bits_truncate(0o750))?;
                let dir = openat2(&root, &made, how).map_err(refusal)?;
                // As the volume itself: writable by whom the volume is writable.
                let mode = fstat(&parent)?.st_mode & 0o7777;
                let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir));
                std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
            }
            Err(error) => return Err(refusal(error)),
        }
    }
    openat2(&root, Path::new(sub_path), how).map_err(refusal)
}

/// The text of a file below `root`; at most [`TEXT_MAX`] bytes, and never through a link that leads out of it.
pub fn read_inside(root: &Path, path: &str) -> io::Result<String> {
    let root = open(root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    // A pipe would wait for its writer.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(&root, Path::new(path), how).map_err(refusal)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    file.take(TEXT_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > TEXT_MAX {
        return Err(io::Error::other(format!("it is larger than {TEXT_MAX} bytes")));
    }
    Ok(text)
}

fn refusal(error: Errno) -> io::Error {
    match error {
        Errno::EXDEV | Errno::ELOOP => io::Error::other("the subPath leads out of the volume"),
        other => other.into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn links_that_leave_the_volume_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("v");
        std::fs::create_dir_all(root.join("in")).unwrap();
        std::os::unix::fs::symlink("in", root.join("ok")).unwrap();
        std::os::unix::fs::symlink("../..", root.join("out")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("abs")).unwrap();
        for good in ["in", "ok", "new/deep"] {
            open_inside(&root, good).unwrap();
        }
        assert!(root.join("new/deep").is_dir());
        for bad in ["out", "abs/passwd", "../x"] {
            assert!(open_inside(&root, bad).is_err(), "{bad}");
            assert!(read_inside(&root, bad).is_err(), "{bad}");
        }
        std::fs::write(root.join("in/text"), "text").unwrap();
        assert_eq!(read_inside(&root, "ok/text").unwrap(), "text");
        nix::unistd::mkfifo(&root.join("pipe"), Mode::S_IRWXU).unwrap();
        assert!(read_inside(&root, "pipe").is_err());
    }
}
