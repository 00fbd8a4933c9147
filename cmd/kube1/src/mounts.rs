//! The mount namespace of a node: that of its containerd.
//!
//! kube1 mounts volumes and containerd's children show them to containers, so both must see the same mounts. A kube1 that
//! is started elsewhere (by hand in a container, by a service with private mounts) than the containerd that it adopts
//! therefore joins containerd, which has the node's running pods, and not the other way round.

use std::fs::{File, metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kube1_supervisor::process_matches;
use nix::sched::{CloneFlags, setns};

use crate::cli::{GlobalArgs, NodeArgs};
use crate::containerd;
use crate::layout::Layout;

/// Enters the mount namespace of the containerd that this start will adopt, if that is another one. What stands in the way
/// is logged: the node then works, but for the volumes of new pods.
///
/// Must be called while the process has a single thread, as the kernel demands.
pub fn follow_containerd(global: &GlobalArgs, args: &NodeArgs) {
    if args.container_runtime_endpoint.is_some() {
        return;
    }
    let layout = Layout::new(&global.data_dir);
    let Some(pid) = running(&layout, args) else { return };
    match enter(pid, layout.root()) {
        Ok(false) => {}
        Ok(true) => tracing::info!(containerd = pid, "joined the running containerd in its mount namespace"),
        Err(reason) => tracing::warn!(
            containerd = pid,
            "the running containerd has other mounts, so new pods will not see their volumes: {reason}. Start kube1 \
             where it was started before, or restart containerd with it"
        ),
    }
}

fn running(layout: &Layout, args: &NodeArgs) -> Option<i32> {
    let pid = std::fs::read_to_string(layout.containerd_pid_file()).ok()?.trim().parse().ok()?;
    let program = args.containerd.as_deref().unwrap_or(Path::new("containerd"));
    process_matches(pid, program, &containerd::arguments(layout)).then_some(pid)
}

/// Enters the mount namespace of a process if it is another one; says whether it was.
fn enter(pid: i32, data_dir: &Path) -> Result<bool, String> {
    let error = |error: io::Error| error.to_string();
    let theirs = File::open(format!("/proc/{pid}/ns/mnt")).map_err(error)?;
    if identity(Path::new("/proc/self/ns/mnt")).map_err(error)? == identity_of(&theirs.metadata().map_err(error)?) {
        return Ok(false);
    }
    // Entering changes the working directory, from which relative paths count.
    let work_dir = std::env::current_dir().map_err(error)?;
    for dir in [data_dir, &work_dir] {
        if !same_there(pid, dir).map_err(error)? {
            return Err(format!("{} is another directory there", dir.display()));
        }
    }
    setns(theirs, CloneFlags::CLONE_NEWNS).map_err(|e| error(e.into()))?;
    std::env::set_current_dir(&work_dir).map_err(error)?;
    Ok(true)
}

/// Whether a directory of ours is the same one for another process.
fn same_there(pid: i32, dir: &Path) -> io::Result<bool> {
    let ours = dir.canonicalize()?;
    let theirs = PathBuf::from(format!("/proc/{pid}/root")).join(ours.strip_prefix("/").unwrap_or(&ours));
    Ok(identity(&theirs).is_ok_and(|theirs| identity(&ours).is_ok_and(|ours| ours == theirs)))
}

/// By which the kernel tells files apart.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    metadata(path).map(|found| identity_of(&found))
}

fn identity_of(found: &std::fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_is_not_entered_and_directories_are_compared_by_what_they_are() {
        let me = i32::try_from(std::process::id()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(enter(me, dir.path()), Ok(false));
        assert!(same_there(me, dir.path()).unwrap());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        assert!(same_there(me, &link).unwrap());
        assert!(same_there(me, &dir.path().join("missing")).is_err());
    }
}
