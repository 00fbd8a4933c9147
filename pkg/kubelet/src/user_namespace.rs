//! User namespaces of pods (`hostUsers: false`): each such pod has a range of the host's user and group ids of its own.
//!
//! A pod's range is written into its directory, so that a later run of the node agent gives it to nobody else.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kube1_cri::v1::{IdMapping, NamespaceMode, UserNamespace};
use parking_lot::Mutex;

/// Ids of one pod. The host's own ids are below the first range.
const LENGTH: u32 = 65_536;
const FILE: &str = "user-namespace";

/// Why a pod got no ids.
#[derive(Debug, thiserror::Error)]
pub enum UserNamespaceError {
    #[error("all {0} ranges of user ids are in use")]
    Exhausted(u32),
    #[error("cannot prepare {path} for user namespaces: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// The ids that a pod sees as 0 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange(u32);

impl IdRange {
    /// For mounts and namespaces.
    pub fn mappings(self) -> Vec<IdMapping> {
        vec![IdMapping { host_id: self.0, container_id: 0, length: LENGTH }]
    }

    pub fn namespace(self) -> UserNamespace {
        UserNamespace { mode: NamespaceMode::Pod.into(), uids: self.mappings(), gids: self.mappings() }
    }
}

/// The ranges of a node's pods, by uid.
pub struct UserNamespaces {
    data_dir: PathBuf,
    pods_dir: PathBuf,
    pods: u32,
    taken: Mutex<HashMap<String, u32>>,
}

impl UserNamespaces {
    /// Ranges for so many pods; those that were given away before are kept.
    pub fn new(data_dir: &Path, pods_dir: &Path, pods: u32) -> Self {
        let entries = std::fs::read_dir(pods_dir).into_iter().flatten().flatten();
        let known = entries.filter_map(|entry| {
            let text = std::fs::read_to_string(entry.path().join(FILE)).ok()?;
            Some((entry.file_name().into_string().ok()?, text.trim().parse().ok()?))
        });
        let taken = Mutex::new(known.collect());
        Self { data_dir: data_dir.to_owned(), pods_dir: pods_dir.to_owned(), pods, taken }
    }

    /// The range of a pod, a new one if it has none yet.
    pub fn range(&self, uid: &str) -> Result<IdRange, UserNamespaceError> {
        let mut taken = self.taken.lock();
        if let Some(first) = taken.get(uid) {
            return Ok(IdRange(*first));
        }
        let free = (1..=self.pods).map(|number| number * LENGTH).find(|first| taken.values().all(|used| used != first));
        let first = free.ok_or(UserNamespaceError::Exhausted(self.pods))?;
        open_way(&self.data_dir)?;
        let dir = self.pods_dir.join(uid);
        let written = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(dir.join(FILE), first.to_string()));
        written.map_err(|source| UserNamespaceError::Io { path: dir, source })?;
        taken.insert(uid.to_owned(), first);
        Ok(IdRange(first))
    }

    /// Gives a pod's range back.
    pub fn release(&self, uid: &str) {
        self.taken.lock().remove(uid);
    }
}

/// Lets everybody pass through the data directory on the way to the runtime's root file systems, which is where a pod's
/// own root must get to; nobody can list it, and all else in it is closed.
fn open_way(data_dir: &Path) -> Result<(), UserNamespaceError> {
    const WAY: &str = "run";
    let set = |path: &Path, change: fn(u32) -> u32| -> Result<(), UserNamespaceError> {
        let done = std::fs::metadata(path).and_then(|found| {
            let (old, new) = (found.permissions().mode() & 0o7777, change(found.permissions().mode() & 0o7777));
            if old == new { Ok(()) } else { std::fs::set_permissions(path, PermissionsExt::from_mode(new)) }
        });
        done.map_err(|source| UserNamespaceError::Io { path: path.to_owned(), source })
    };
    for entry in std::fs::read_dir(data_dir).into_iter().flatten().flatten() {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir && entry.file_name() != WAY {
            set(&entry.path(), |mode| mode & !0o007)?;
        }
    }
    set(&data_dir.join(WAY), |mode| mode | 0o001)?;
    set(data_dir, |mode| mode | 0o001)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_unique_and_outlive_the_node_agent() {
        let dir = tempfile::tempdir().unwrap();
        let (root, pods) = (dir.path(), dir.path().join("pods"));
        for (sub, mode) in [(".", 0o700), ("run", 0o700), ("pods", 0o755), ("server", 0o755)] {
            std::fs::create_dir_all(root.join(sub)).unwrap();
            std::fs::set_permissions(root.join(sub), PermissionsExt::from_mode(mode)).unwrap();
        }
        let first = UserNamespaces::new(root, &pods, 2);
        let (a, b) = (first.range("a").unwrap(), first.range("b").unwrap());
        assert_ne!(a, b);
        assert_eq!(first.range("a").unwrap(), a);
        let mode = |sub: &str| std::fs::metadata(root.join(sub)).unwrap().permissions().mode() & 0o007;
        assert_eq!([mode("."), mode("run"), mode("server"), mode("pods")], [1, 1, 0, 0]);
        let second = UserNamespaces::new(root, &pods, 2);
        assert_eq!(second.range("b").unwrap(), b);
        assert!(matches!(second.range("c"), Err(UserNamespaceError::Exhausted(2))));
        second.release("a");
        assert_eq!(second.range("c").unwrap(), a);
        assert!(a.mappings()[0].host_id >= LENGTH);
    }
}
