//! `kube1 reset`: stops everything that a node runs and removes every trace of it.
//!
//! Only what belongs to the data directory is touched: processes in the node's own cgroup and those that name its
//! containerd socket, mounts below the directory, and the interfaces and tables of the node's network.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cli::{GlobalArgs, ResetArgs};
use crate::layout::Layout;

/// How long a process may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Removes the node; repeatable, also after an interrupted reset.
pub async fn run(global: &GlobalArgs, args: &ResetArgs) -> anyhow::Result<()> {
    let layout = Layout::new(&global.data_dir);
    guard_directory(&layout)?;
    if !args.yes {
        confirm(layout.root())?;
    }
    stop_kube1(&layout).await?;
    stop_processes(&layout)?;
    unmount_below(layout.root())?;
    kube1_network::cleanup(layout.root()).await.context("cannot remove the node's network")?;
    remove_cgroups(&layout.cgroup_name())?;
    remove_files(&layout, &args.write_kubeconfig)?;
    println!("kube1 is gone from {}", layout.root().display());
    Ok(())
}

/// Refuses a directory that is not a node's, so that a mistyped --data-dir removes nothing.
fn guard_directory(layout: &Layout) -> anyhow::Result<()> {
    let root = layout.root();
    if !root.exists() || std::fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_none()) {
        return Ok(());
    }
    let ours = layout.run().is_dir();
    anyhow::ensure!(ours, "{} holds something else than a kube1 node: nothing was changed", root.display());
    Ok(())
}

fn confirm(root: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(io::stdin().is_terminal(), "nothing was changed: confirm with --yes");
    println!("This stops every pod of this node and deletes {}. Type yes to go on:", root.display());
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    anyhow::ensure!(answer.trim() == "yes", "nothing was changed");
    Ok(())
}

async fn stop_kube1(layout: &Layout) -> anyhow::Result<()> {
    let Some(pid) = layout.running_pid() else { return Ok(()) };
    end_process(pid, Signal::TERM).with_context(|| format!("cannot stop kube1 (process {pid})"))
}

fn stop_processes(layout: &Layout) -> anyhow::Result<()> {
    let socket = layout.containerd_socket();
    // Shims hold containers, containerd holds shims: all are killed, and looked for again until none is left.
    let deadline = Instant::now() + STOP_TIMEOUT;
    loop {
        let mut pids = processes_naming(&socket);
        for hierarchy in cgroup_directories(&layout.cgroup_name()) {
            collect_cgroup(&hierarchy, &mut pids);
        }
        if pids.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "processes {pids:?} do not end");
        for pid in pids {
            end_process(pid, Signal::KILL).with_context(|| format!("cannot stop process {pid}"))?;
        }
    }
}

/// Sends a signal and waits for the end; SIGKILL follows when it does not come.
fn end_process(pid: i32, signal: Signal) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        opened => opened?,
    };
    for signal in [signal, Signal::KILL] {
        match pidfd_send_signal(&pidfd, signal) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            sent => sent?,
        }
        let timeout = Timespec { tv_sec: STOP_TIMEOUT.as_secs() as i64, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))?;
        if ended > 0 {
            return Ok(());
        }
    }
    Err(io::Error::other("it does not end after SIGKILL"))
}

/// Processes with `socket` as a word of their command line: containerd's shims, and containerd through its config.
fn processes_naming(socket: &Path) -> BTreeSet<i32> {
    let config = socket.with_file_name("containerd.toml");
    let words = [socket, &config].map(|path| path.as_os_str().as_encoded_bytes().to_vec());
    let me = std::process::id() as i32;
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let names = |pid: &i32| {
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        cmdline.split(|b| *b == 0).any(|word| words.iter().any(|w| w == word))
    };
    pids.filter(|pid| *pid != me).filter(names).collect()
}

/// The node's directory in every cgroup hierarchy that is mounted.
fn cgroup_directories(name: &str) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let cgroup_mounts = mounts.lines().filter_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        rest.starts_with("cgroup").then(|| fields.split(' ').nth(4)).flatten()
    });
    cgroup_mounts.map(|mount| Path::new(mount).join(name)).filter(|dir| dir.is_dir()).collect()
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn collect_cgroup(dir: &Path, pids: &mut BTreeSet<i32>) {
    let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for child in subdirectories(dir) {
        collect_cgroup(&child, pids);
    }
}

fn remove_cgroups(name: &str) -> anyhow::Result<()> {
    fn remove(dir: &Path) -> io::Result<()> {
        for child in subdirectories(dir) {
            remove(&child)?;
        }
        // The kernel lets go of a dead process's cgroup a moment after the process is gone.
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match std::fs::remove_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                removed => return removed,
            }
        }
    }
    for dir in cgroup_directories(name) {
        remove(&dir).with_context(|| format!("cannot remove the cgroup {}", dir.display()))?;
    }
    Ok(())
}

/// Detaches every mount below `root`, the innermost first.
fn unmount_below(root: &Path) -> anyhow::Result<()> {
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("cannot list mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(&root) && *point != root).collect();
    below.reverse();
    for point in below {
        match unmount(&point, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot unmount {}", point.display())),
        }
    }
    Ok(())
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

fn remove_files(layout: &Layout, kubeconfig: &Path) -> anyhow::Result<()> {
    let gone = |result: io::Result<()>, path: &Path| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    };
    if kubeconfig_is_ours(kubeconfig, layout) {
        gone(std::fs::remove_file(kubeconfig), kubeconfig)?;
        // The directory goes too if nothing else is in it.
        let _ = kubeconfig.parent().map(std::fs::remove_dir);
    }
    gone(std::fs::remove_dir_all(layout.root()), layout.root())
}

/// The kubeconfig of another cluster under the same path is left alone.
fn kubeconfig_is_ours(path: &Path, layout: &Layout) -> bool {
    let read = |path: &Path| std::fs::read(path).ok();
    read(path).is_some() && read(path) == read(&layout.admin_kubeconfig())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(guard_directory(&Layout::new(dir.path())).is_ok());
        std::fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
        assert!(guard_directory(&Layout::new(dir.path())).is_err());
        std::fs::create_dir(dir.path().join("run")).unwrap();
        assert!(guard_directory(&Layout::new(dir.path())).is_ok());
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
