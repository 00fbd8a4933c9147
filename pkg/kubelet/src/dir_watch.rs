//! Telling of changes in a directory.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// A watch of one directory.
pub struct DirWatch {
    fd: AsyncFd<InotifyFd>,
}

struct InotifyFd(Inotify);

impl AsRawFd for InotifyFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl DirWatch {
    /// Files that appear complete, and files that go.
    pub const FILES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
        .union(AddWatchFlags::IN_MOVED_TO)
        .union(AddWatchFlags::IN_MOVED_FROM)
        .union(AddWatchFlags::IN_DELETE);
    /// Every write to a file, and new files.
    pub const WRITES: AddWatchFlags = AddWatchFlags::IN_MODIFY
        .union(AddWatchFlags::IN_CREATE)
        .union(AddWatchFlags::IN_MOVED_TO)
        .union(AddWatchFlags::IN_CLOSE_WRITE);

    pub fn new(dir: &Path, changes: AddWatchFlags) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(dir, changes)?;
        // SAFETY: the descriptor is owned by the returned value, which neither replaces nor closes it before its
        // registration is dropped.
        #[allow(unsafe_code)]
        let fd = unsafe { AsyncFd::register(InotifyFd(inotify))? };
        Ok(Self { fd })
    }

    /// Waits for a change since the last one that was told. What changed is found by looking. Cancel-safe.
    pub async fn changed(&self) -> io::Result<()> {
        let mut ready = self.fd.readable().await?;
        while ready.get_inner().0.read_events().is_ok_and(|events| !events.is_empty()) {}
        ready.clear_ready();
        Ok(())
    }
}
