//! `kube1 check`: what this host lacks, named before anything is started.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use crate::cli::{CheckArgs, GlobalArgs};

/// Free space below which image pulls and evictions start to hurt, in bytes.
const DISK_MIN: u64 = 2 << 30;

/// How a host fares in one respect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok(String),
    /// Works, with a limitation worth knowing.
    Warning(String),
    /// A node cannot run; the text says what to do.
    Missing(String),
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub subject: &'static str,
    pub verdict: Verdict,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, text) = match &self.verdict {
            Verdict::Ok(text) => ("ok     ", text),
            Verdict::Warning(text) => ("warning", text),
            Verdict::Missing(text) => ("MISSING", text),
        };
        write!(f, "{mark}  {:<12} {text}", self.subject)
    }
}

/// Prints the report; fails if the host cannot run a node.
pub fn run(global: &GlobalArgs, args: &CheckArgs) -> anyhow::Result<()> {
    let findings = findings(&global.data_dir, args);
    for finding in &findings {
        println!("{finding}");
    }
    let missing = findings.iter().filter(|f| matches!(f.verdict, Verdict::Missing(_))).count();
    anyhow::ensure!(missing == 0, "{missing} thing(s) are missing on this host");
    println!("This host can run kube1.");
    Ok(())
}

/// What a worker cannot do without; empty if nothing is missing.
pub fn missing_for_worker(containerd: Option<&Path>, runc: Option<&Path>) -> Vec<Finding> {
    let programs = [program("containerd", containerd), program("runc", runc)];
    let all =
        [root(), cgroups(), filesystem("overlay"), hosts_file(Path::new("/etc/hosts"))].into_iter().chain(programs);
    all.filter(|f| matches!(f.verdict, Verdict::Missing(_))).collect()
}

fn findings(data_dir: &Path, args: &CheckArgs) -> Vec<Finding> {
    vec![
        root(),
        cgroups(),
        filesystem("overlay"),
        program("containerd", args.containerd.as_deref()),
        program("runc", args.runc.as_deref()),
        hosts_file(Path::new("/etc/hosts")),
        port(args.https_listen_port),
        disk(data_dir),
        oom_score(),
        clock(),
        firewall(),
    ]
}

fn root() -> Finding {
    let verdict = if rustix::process::geteuid().is_root() {
        Verdict::Ok("running as root".into())
    } else {
        Verdict::Missing("not root: containers, mounts and interfaces need it; use sudo".into())
    };
    Finding { subject: "root", verdict }
}

fn cgroups() -> Finding {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let unified = read("/sys/fs/cgroup/cgroup.controllers");
    let legacy = read("/proc/cgroups");
    let has = |name: &str| {
        let v2 = unified.split_whitespace().any(|c| c == name);
        let v1 = legacy.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(name) && words.next().is_some_and(|h| h != "0") && words.nth(1) == Some("1")
        });
        v2 || v1
    };
    let lacking: Vec<&str> = ["cpu", "memory", "pids"].into_iter().filter(|name| !has(name)).collect();
    let verdict = if !lacking.is_empty() {
        let list = lacking.join(", ");
        Verdict::Missing(format!(
            "cgroup controllers {list}: enable them on the kernel command line, such as cgroup_enable=memory"
        ))
    } else {
        let version = if unified.is_empty() { "v1" } else { "v2" };
        Verdict::Ok(format!("{version} with cpu, memory and pids"))
    };
    Finding { subject: "cgroups", verdict }
}

fn filesystem(name: &'static str) -> Finding {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let built_in = known.lines().any(|line| line.split_whitespace().last() == Some(name));
    let verdict = if built_in || module_exists(name) {
        Verdict::Ok(format!("{name} file system"))
    } else {
        Verdict::Missing(format!("the kernel has no {name} file system: load the module with `modprobe {name}`"))
    };
    Finding { subject: "filesystem", verdict }
}

/// containerd starts no pod without it; images of minimal systems come without.
fn hosts_file(path: &Path) -> Finding {
    let verdict = match std::fs::metadata(path) {
        Ok(_) => Verdict::Ok(path.display().to_string()),
        Err(error) => Verdict::Missing(format!(
            "{}: {error}; make it with `echo 127.0.0.1 localhost > {}`",
            path.display(),
            path.display()
        )),
    };
    Finding { subject: "hosts file", verdict }
}

/// Whether the running kernel has a module of that name that could be loaded.
fn module_exists(name: &str) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let list = format!("/lib/modules/{}/modules.dep", release.trim());
    std::fs::read_to_string(list).is_ok_and(|deps| deps.contains(&format!("/{name}.ko")))
}

fn program(name: &'static str, given: Option<&Path>) -> Finding {
    let verdict = match find_program(name, given) {
        Ok(path) => Verdict::Ok(format!("{}", path.display())),
        Err(error) => Verdict::Missing(format!("{error}; install the {name} package or give --{name} FILE")),
    };
    Finding { subject: name, verdict }
}

/// The given program, or the first of that name in PATH and the usual system directories.
pub fn find_program(name: &str, given: Option<&Path>) -> io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let executable = |path: &Path| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if let Some(path) = given {
        if executable(path) {
            return Ok(path.to_owned());
        }
        return Err(io::Error::other(format!("{} is no executable file", path.display())));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|p| executable(p));
    found.ok_or_else(|| io::Error::other(format!("{name} is not in PATH")))
}

fn port(port: u16) -> Finding {
    let verdict = match TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))) {
        Ok(_) => Verdict::Ok(format!("{port} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Verdict::Missing(format!("port {port} is taken: stop what uses it or choose --https-listen-port"))
        }
        Err(error) => Verdict::Missing(format!("port {port} cannot be used: {error}")),
    };
    Finding { subject: "port", verdict }
}

fn disk(data_dir: &Path) -> Finding {
    let existing = data_dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let verdict = match rustix::fs::statvfs(existing) {
        Err(error) => Verdict::Missing(format!("{} cannot be read: {error}", existing.display())),
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let text = format!("{:.1} GiB free for {}", free as f64 / f64::from(1 << 30), data_dir.display());
            if free < DISK_MIN { Verdict::Warning(format!("only {text}")) } else { Verdict::Ok(text) }
        }
    };
    Finding { subject: "disk", verdict }
}

/// Lowering the score needs CAP_SYS_RESOURCE, which some sandboxes withhold.
fn oom_score() -> Finding {
    let effective = std::fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or(0);
    const CAP_SYS_RESOURCE: u32 = 24;
    let verdict = if effective >> CAP_SYS_RESOURCE & 1 == 1 {
        Verdict::Ok("system processes can be protected".into())
    } else {
        Verdict::Warning("no CAP_SYS_RESOURCE: system processes are not protected when memory runs out".into())
    };
    Finding { subject: "oom", verdict }
}

fn clock() -> Finding {
    const YEAR_2025: u64 = 1_735_689_600;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let verdict = if now < YEAR_2025 {
        Verdict::Warning("the clock is years behind: certificates will be dated wrongly until it is set".into())
    } else {
        Verdict::Ok("set".into())
    };
    Finding { subject: "clock", verdict }
}

fn firewall() -> Finding {
    let active: Vec<&str> = ["/run/firewalld", "/run/ufw.lock"]
        .into_iter()
        .zip(["firewalld", "ufw"])
        .filter(|(path, _)| Path::new(path).exists())
        .map(|(_, name)| name)
        .collect();
    let verdict = if active.is_empty() {
        Verdict::Ok("no firewalld or ufw is active".into())
    } else {
        Verdict::Warning(format!(
            "{} is active: allow the pod and Service ranges, TCP 6443 and 10250, and UDP 8472 between nodes",
            active.join(" and ")
        ))
    };
    Finding { subject: "firewall", verdict }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_and_a_missing_program_are_named() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        assert!(matches!(port(taken).verdict, Verdict::Missing(text) if text.contains(&taken.to_string())));
        let Verdict::Missing(text) = program("runc", Some(Path::new("/nonexistent/runc"))).verdict else {
            unreachable!("the program does not exist")
        };
        assert!(text.contains("/nonexistent/runc"), "{text}");
        assert!(find_program("sh", None).is_ok());
        let Verdict::Missing(text) = hosts_file(Path::new("/nonexistent/hosts")).verdict else {
            unreachable!("the file does not exist")
        };
        assert!(text.contains("/nonexistent/hosts"), "{text}");
    }
}
