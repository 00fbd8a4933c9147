//! Running code in other network namespaces.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// Runs `work` on a thread of its own that has entered the network namespace at `path`.
///
/// Sockets opened by `work` belong to that namespace for good, also after this returns.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    on_own_thread(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

/// Runs `work` on a thread of its own in a new, empty network namespace, which ends with the thread and its sockets.
pub fn within_new<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_own_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

/// A network namespace that lives as long as this value, and longer if something else holds it.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A new, empty namespace.
    pub fn new() -> io::Result<Self> {
        let file = within_new(|| File::open("/proc/thread-self/ns/net"))??;
        Ok(Self { file })
    }

    /// Where it can be opened, also by other processes, while this one lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// Runs `work` in it; see [`within`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        within(&self.path(), work)
    }
}

/// The namespace is a property of the thread, so a thread that entered another one is not used for anything else.
fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let handle = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
