//! One kube1 per data directory: the pid file is locked while the process lives.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};

use crate::layout::Layout;

/// The lock on a data directory; given back by the kernel when the process ends, however it ends.
#[derive(Debug)]
pub struct ProcessGuard {
    _file: File,
}

impl ProcessGuard {
    /// Makes the node's directories and takes the lock.
    pub fn take(layout: &Layout) -> anyhow::Result<Self> {
        layout.create().with_context(|| format!("cannot use the data directory {}", layout.root().display()))?;
        let path = layout.pid_file();
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = opened.with_context(|| format!("cannot open {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            anyhow::bail!("kube1 already runs on {} as process {}", layout.root().display(), holder.trim());
        }
        file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).context("cannot write the pid file")?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let first = ProcessGuard::take(&layout).unwrap();
        let refused = ProcessGuard::take(&layout).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        ProcessGuard::take(&layout).unwrap();
    }
}
