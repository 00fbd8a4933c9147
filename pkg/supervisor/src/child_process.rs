//! Child processes that outlive this one: containerd goes on when kube1 is killed, and is adopted when it returns.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::child_log::{self, LOG_MAX, LOOK};
use crate::component::{BoxError, Component, Context};

/// How long a process may take to end after SIGTERM.
const TERM_TIMEOUT: Duration = Duration::from_secs(10);

/// How a child process is run.
#[derive(Clone, Debug)]
pub struct ChildProcessConfig {
    /// The component's name.
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Added to this process's environment.
    pub env: Vec<(String, String)>,
    /// Where the process id is remembered, for adoption.
    pub pid_file: PathBuf,
    /// Standard output and error are appended here. What is there is put aside when it has become long.
    pub log_file: PathBuf,
    /// Whether stopping the component stops the process. False leaves it running, to be adopted later.
    pub stop_with_component: bool,
}

/// Waits until the process does its job; run after each start and adoption.
pub type ReadyProbe = Box<dyn Fn() -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// A supervised process in its own process group, found again through its pid file.
pub struct ChildProcess {
    config: ChildProcessConfig,
    ready: ReadyProbe,
}

/// Why a child process could not be run.
#[derive(Debug, thiserror::Error)]
enum ChildError {
    #[error("cannot start {program}")]
    Spawn { program: PathBuf, source: io::Error },
    #[error("cannot open {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("cannot follow process {pid}")]
    Follow { pid: i32, source: io::Error },
    #[error("{program} ended; the end of {log}:\n{tail}")]
    Ended { program: PathBuf, log: PathBuf, tail: String },
}

impl ChildProcess {
    pub fn new(config: ChildProcessConfig, ready: ReadyProbe) -> Self {
        Self { config, ready }
    }

    /// The running process of an earlier start, if the pid file names it and it still runs the same program and arguments.
    fn adopt(&self) -> Option<i32> {
        let pid: i32 = std::fs::read_to_string(&self.config.pid_file).ok()?.trim().parse().ok()?;
        process_matches(pid, &self.config.program, &self.config.args).then_some(pid)
    }

    fn spawn(&self) -> Result<(i32, tokio::process::Child), ChildError> {
        let log = self.open_log()?;
        let copy = log.try_clone().map_err(|source| ChildError::File { path: self.config.log_file.clone(), source })?;
        let spawn_error = |source| ChildError::Spawn { program: self.config.program.clone(), source };
        let child = tokio::process::Command::new(&self.config.program)
            .args(&self.config.args)
            .envs(self.config.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            .process_group(0)
            .kill_on_drop(false)
            .spawn()
            .map_err(spawn_error)?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or_else(|| spawn_error(io::Error::other("the process ended at once")))?;
        let path = &self.config.pid_file;
        std::fs::write(path, pid.to_string()).map_err(|source| ChildError::File { path: path.clone(), source })?;
        Ok((pid, child))
    }

    fn open_log(&self) -> Result<File, ChildError> {
        let path = &self.config.log_file;
        self.tidy_log();
        child_log::open(path).map_err(|source| ChildError::File { path: path.clone(), source })
    }

    fn tidy_log(&self) {
        let path = &self.config.log_file;
        if let Err(error) = child_log::keep_small(path, LOG_MAX) {
            tracing::warn!(%error, log = %path.display(), "a long log could not be put aside");
        }
    }

    fn ended(&self) -> ChildError {
        let text = std::fs::read(&self.config.log_file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
        let mut tail: Vec<&str> = text.lines().rev().take(8).collect();
        tail.reverse();
        ChildError::Ended {
            program: self.config.program.clone(),
            log: self.config.log_file.clone(),
            tail: tail.join("\n"),
        }
    }
}

#[async_trait]
impl Component for ChildProcess {
    fn name(&self) -> &str {
        &self.config.name
    }

    async fn run(&self, ctx: Context) -> Result<(), BoxError> {
        let (pid, mut child) = match self.adopt() {
            Some(pid) => {
                tracing::info!(component = self.config.name, pid, "adopted the running process");
                (pid, None)
            }
            None => {
                let (pid, mut child) = self.spawn()?;
                shown(pid, &mut child).await;
                (pid, Some(child))
            }
        };
        let follow_error = |source: io::Error| ChildError::Follow { pid, source };
        let exit = Exit::of(pid).map_err(follow_error)?;
        let mut probe = std::pin::pin!((self.ready)());
        let mut probing = true;
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = look.tick() => self.tidy_log(),
                ended = exit.wait() => {
                    ended.map_err(follow_error)?;
                    reap(child.as_mut()).await;
                    return Err(self.ended().into());
                }
                ready = &mut probe, if probing => {
                    ready?;
                    probing = false;
                    ctx.ready();
                }
                () = ctx.shutdown.cancelled() => break,
            }
        }
        if self.config.stop_with_component {
            exit.terminate().await.map_err(follow_error)?;
            reap(child.as_mut()).await;
        }
        Ok(())
    }
}

/// Waits until `child` shows its command line, by which it is adopted later, or has ended.
///
/// The kernel tells the parent of an exec as soon as the old memory is given up; the new command line is there only a
/// moment after that. Cancel-safe.
async fn shown(pid: i32, child: &mut tokio::process::Child) {
    let empty = || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty());
    while empty() && matches!(child.try_wait(), Ok(None)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Collects an ended child, so that it does not stay a zombie.
async fn reap(child: Option<&mut tokio::process::Child>) {
    if let Some(child) = child {
        let _ = child.wait().await;
    }
}

/// The end of any process, whether a child or not.
struct Exit {
    pidfd: AsyncFd<OwnedFd>,
}

impl Exit {
    fn of(pid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("no such process"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // SAFETY: the descriptor is owned by the returned value, which neither replaces nor closes it before its
        // registration is dropped.
        #[allow(unsafe_code)]
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE)? };
        Ok(Self { pidfd })
    }

    /// Cancel-safe.
    async fn wait(&self) -> io::Result<()> {
        self.pidfd.readable().await.map(drop)
    }

    async fn terminate(&self) -> io::Result<()> {
        for signal in [Signal::TERM, Signal::KILL] {
            match pidfd_send_signal(&self.pidfd, signal) {
                Err(rustix::io::Errno::SRCH) => return Ok(()),
                sent => sent?,
            }
            if tokio::time::timeout(TERM_TIMEOUT, self.wait()).await.is_ok() {
                return Ok(());
            }
        }
        Err(io::Error::other("the process did not end after SIGKILL"))
    }
}

/// Whether process `pid` runs `program` with exactly `args`. False for a zombie or a missing process.
pub fn process_matches(pid: i32, program: &Path, args: &[String]) -> bool {
    let Ok(cmdline) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let mut words = cmdline.split(|b| *b == 0);
    let name_matches = words
        .next()
        .is_some_and(|arg0| Path::new(String::from_utf8_lossy(arg0).as_ref()).file_name() == program.file_name());
    let rest: Vec<&[u8]> = words.collect();
    // The command line ends with a NUL, which leaves one empty word.
    let rest = rest.strip_suffix(&[&b""[..]]).unwrap_or(&rest);
    name_matches && rest.len() == args.len() && rest.iter().zip(args).all(|(a, b)| *a == b.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::status::ComponentState;
    use crate::supervisor::Supervisor;

    fn sleeper(dir: &Path, stop: bool) -> Arc<ChildProcess> {
        let config = ChildProcessConfig {
            name: "sleeper".into(),
            program: "/bin/sleep".into(),
            args: vec!["1000.25".into()],
            env: Vec::new(),
            pid_file: dir.join("pid"),
            log_file: dir.join("log"),
            stop_with_component: stop,
        };
        Arc::new(ChildProcess::new(config, Box::new(|| Box::pin(async { Ok(()) }))))
    }

    fn pid(dir: &Path) -> i32 {
        std::fs::read_to_string(dir.join("pid")).unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn a_process_survives_its_supervisor_and_is_adopted() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Supervisor::new();
        first.start(sleeper(dir.path(), false));
        assert!(first.ready("sleeper").await);
        let started = pid(dir.path());
        first.stop().await;
        let args = ["1000.25".to_owned()];
        assert!(process_matches(started, Path::new("/bin/sleep"), &args));

        let mut second = Supervisor::new();
        second.start(sleeper(dir.path(), true));
        assert!(second.ready("sleeper").await);
        assert_eq!(pid(dir.path()), started);
        second.stop().await;
        assert!(!process_matches(started, Path::new("/bin/sleep"), &args));
    }

    #[tokio::test]
    async fn a_killed_process_is_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut supervisor = Supervisor::new();
        let board = supervisor.board();
        supervisor.start(sleeper(dir.path(), true));
        assert!(supervisor.ready("sleeper").await);
        let first = pid(dir.path());
        let mut changes = board.subscribe();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).unwrap();
        let again = changes.wait_for(|list| list[0].restarts == 1 && list[0].state == ComponentState::Ready);
        tokio::time::timeout(Duration::from_secs(30), again).await.unwrap().unwrap();
        assert_ne!(pid(dir.path()), first);
        supervisor.stop().await;
    }
}
