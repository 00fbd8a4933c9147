//! Mounts in the host's namespace.

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mount points at or below a directory, the deepest last.
fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    Ok(points.filter(|point| point.starts_with(dir)).collect())
}

/// The kernel writes blanks and backslashes of a path in octal.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|o| u8::from_str_radix(o, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

pub(super) fn is_mounted(dir: &Path) -> io::Result<bool> {
    Ok(mounts_below(dir)?.iter().any(|point| point == dir))
}

/// Unmounts everything at or below a directory.
pub fn unmount_below(dir: &Path) -> io::Result<()> {
    for point in mounts_below(dir)?.iter().rev() {
        // Detached at once: a process that still has a file open must not keep the pod.
        umount2(point, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// Mounts a tmpfs unless there is one already; says whether it did.
pub(super) fn mount_tmpfs(dir: &Path, size: Option<u64>) -> io::Result<bool> {
    if is_mounted(dir)? {
        return Ok(false);
    }
    let options = size.filter(|s| *s > 0).map(|s| format!("size={s}"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), dir, Some("tmpfs"), flags, options.as_deref())?;
    Ok(true)
}

/// Shows what an open file descriptor refers to at `target`.
pub(super) fn bind_fd(fd: &impl std::os::fd::AsRawFd, target: &Path) -> io::Result<()> {
    let source = format!("/proc/self/fd/{}", fd.as_raw_fd());
    mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescape("/a\\040b\\134c"), PathBuf::from("/a b\\c"));
        assert!(is_mounted(Path::new("/proc")).is_ok_and(|m| m));
    }
}
