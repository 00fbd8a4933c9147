//! The node's tree of cgroups: ROOT/kubepods, its burstable and besteffort parts, and one cgroup for each pod.
//!
//! Works on cgroup v2 and on v1, where each controller has a tree of its own. The containers' own cgroups below are the
//! runtime's.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use crate::pod::QosClass;
use crate::psi::Pressure;
use crate::resources::{POD_CPU_PERIOD_US, PodLimits};

const MOUNT: &str = "/sys/fs/cgroup";
/// Controllers in which pods get a cgroup, as far as the kernel has them.
const CONTROLLERS: [&str; 8] = ["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "devices", "freezer"];

/// Whether the host has cgroup v2 alone.
pub fn is_unified() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").exists()
}

/// A node's cgroups.
#[derive(Clone, Debug)]
pub struct Cgroups {
    mount: PathBuf,
    root: String,
    unified: bool,
}

impl Cgroups {
    pub fn new(root: &str) -> Self {
        Self::mounted_at(Path::new(MOUNT), root)
    }

    fn mounted_at(mount: &Path, root: &str) -> Self {
        let unified = mount.join("cgroup.controllers").exists();
        Self { mount: mount.to_owned(), root: root.trim_matches('/').to_owned(), unified }
    }

    fn class_path(&self, class: QosClass) -> String {
        match class {
            QosClass::Guaranteed => format!("/{}/kubepods", self.root),
            QosClass::Burstable => format!("/{}/kubepods/burstable", self.root),
            QosClass::BestEffort => format!("/{}/kubepods/besteffort", self.root),
        }
    }

    /// A pod's cgroup, as the runtime takes it for a parent.
    pub fn pod_path(&self, class: QosClass, uid: &str) -> String {
        format!("{}/pod{uid}", self.class_path(class))
    }

    /// Directories of a cgroup in every hierarchy that limits something.
    fn directories(&self, path: &str) -> Vec<PathBuf> {
        let path = path.trim_start_matches('/');
        if self.unified {
            return vec![self.mount.join(path)];
        }
        let mounted = CONTROLLERS.iter().map(|c| self.mount.join(c)).filter(|d| d.is_dir());
        mounted.map(|dir| dir.join(path)).collect()
    }

    /// Directories of a cgroup in every hierarchy that is mounted: beside v1's controllers the runtime also uses
    /// those without one (`systemd`, `unified`).
    fn all_directories(&self, path: &str) -> Vec<PathBuf> {
        let path = path.trim_start_matches('/');
        if self.unified {
            return vec![self.mount.join(path)];
        }
        let entries = std::fs::read_dir(&self.mount).into_iter().flatten().flatten();
        // Links are second names of a hierarchy.
        let hierarchies = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        hierarchies.map(|e| e.path().join(path)).collect()
    }

    fn controller(&self, name: &str, path: &str) -> PathBuf {
        let path = path.trim_start_matches('/');
        if self.unified { self.mount.join(path) } else { self.mount.join(name).join(path) }
    }

    fn create(&self, path: &str) -> io::Result<()> {
        for dir in self.directories(path) {
            create_chain(&dir, self.unified)?;
        }
        Ok(())
    }

    /// Makes the node's own cgroups. Best-effort pods together weigh as little as the kernel allows.
    pub fn prepare(&self) -> io::Result<()> {
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            self.create(&self.class_path(class))?;
        }
        self.set_shares(&self.class_path(QosClass::BestEffort), 2)
    }

    /// Weighs the burstable part by what its pods request in all.
    pub fn set_burstable_shares(&self, shares: i64) -> io::Result<()> {
        self.set_shares(&self.class_path(QosClass::Burstable), shares)
    }

    fn set_shares(&self, path: &str, shares: i64) -> io::Result<()> {
        let dir = self.controller("cpu", path);
        if self.unified {
            write_if_there(&dir.join("cpu.weight"), &weight(shares).to_string())
        } else {
            write_if_there(&dir.join("cpu.shares"), &shares.to_string())
        }
    }

    /// Makes a pod's cgroup or changes its limits.
    pub fn apply_pod(&self, class: QosClass, uid: &str, limits: PodLimits) -> io::Result<()> {
        let path = self.pod_path(class, uid);
        self.create(&path)?;
        self.set_shares(&path, limits.cpu_shares)?;
        let (cpu, memory) = (self.controller("cpu", &path), self.controller("memory", &path));
        if self.unified {
            let quota = limits.cpu_quota.map_or("max".to_owned(), |q| q.to_string());
            write_if_there(&cpu.join("cpu.max"), &format!("{quota} {POD_CPU_PERIOD_US}"))?;
            let limit = limits.memory.map_or("max".to_owned(), |m| m.to_string());
            write_if_there(&memory.join("memory.max"), &limit)
        } else {
            write_if_there(&cpu.join("cpu.cfs_period_us"), &POD_CPU_PERIOD_US.to_string())?;
            write_if_there(&cpu.join("cpu.cfs_quota_us"), &limits.cpu_quota.unwrap_or(-1).to_string())?;
            write_if_there(&memory.join("memory.limit_in_bytes"), &limits.memory.unwrap_or(-1).to_string())
        }
    }

    /// Removes a pod's cgroup with what the runtime left below. Does nothing when it is gone.
    pub fn remove_pod(&self, uid: &str) {
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            for dir in self.all_directories(&self.pod_path(class, uid)) {
                remove_tree(&dir);
            }
        }
    }

    /// Uids of pods that have a cgroup in any hierarchy.
    pub fn pod_uids(&self) -> BTreeSet<String> {
        let mut uids = BTreeSet::new();
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            let dirs = self.all_directories(&self.class_path(class)).into_iter();
            let entries = dirs.filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
            let names = entries.filter_map(|e| e.file_name().into_string().ok());
            uids.extend(names.filter_map(|n| n.strip_prefix("pod").map(str::to_owned)));
        }
        uids
    }

    /// Processes of a container or sandbox of a pod.
    pub fn processes(&self, class: QosClass, uid: &str, id: &str) -> Vec<u32> {
        let dir = self.controller("memory", &format!("{}/{id}", self.pod_path(class, uid)));
        let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// The counters of a container's `cpu.stat`.
    pub fn cpu_stat(&self, class: QosClass, uid: &str, id: &str) -> HashMap<String, u64> {
        let dir = self.controller("cpu", &format!("{}/{id}", self.pod_path(class, uid)));
        let text = std::fs::read_to_string(dir.join("cpu.stat")).unwrap_or_default();
        text.lines()
            .filter_map(|l| l.split_once(' '))
            .filter_map(|(k, v)| Some((k.to_owned(), v.parse().ok()?)))
            .collect()
    }

    /// What a pod waited for `cpu`, `memory` or `io`, or one of its containers (`id`). Only cgroup v2 tells.
    pub fn pressure(&self, class: QosClass, uid: &str, id: Option<&str>, resource: &str) -> Option<Pressure> {
        let dir = id.map_or_else(|| self.pod_path(class, uid), |id| format!("{}/{id}", self.pod_path(class, uid)));
        self.pressure_at(&self.mount.join(dir.trim_start_matches('/')), resource)
    }

    /// What all of the machine waited for a resource.
    pub fn machine_pressure(&self, resource: &str) -> Option<Pressure> {
        self.pressure_at(&self.mount, resource)
    }

    fn pressure_at(&self, dir: &Path, resource: &str) -> Option<Pressure> {
        let read = || std::fs::read_to_string(dir.join(format!("{resource}.pressure"))).ok();
        if self.unified { Pressure::parse(&read()?) } else { None }
    }

    /// Bytes of memory that a pod uses without what the kernel can drop at once.
    pub fn working_set(&self, class: QosClass, uid: &str) -> Option<u64> {
        let dir = self.controller("memory", &self.pod_path(class, uid));
        let (usage, inactive) = if self.unified {
            ("memory.current", "inactive_file ")
        } else {
            ("memory.usage_in_bytes", "total_inactive_file ")
        };
        let usage: u64 = std::fs::read_to_string(dir.join(usage)).ok()?.trim().parse().ok()?;
        let stat = std::fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
        let inactive = stat.lines().find_map(|l| l.strip_prefix(inactive)?.parse::<u64>().ok());
        Some(usage.saturating_sub(inactive.unwrap_or(0)))
    }
}

/// Makes a directory and its parents; on v2 each parent passes its controllers on.
fn create_chain(dir: &Path, unified: bool) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_chain(parent, unified)?;
        if unified {
            let available = std::fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
            for controller in available.split_whitespace() {
                // A controller that cannot be passed on (a threaded or busy parent) is one this node goes without.
                let _ = std::fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        copy_cpuset(parent, dir)?;
        return Ok(());
    }
    Ok(())
}

/// A new v1 cpuset has no CPUs until it is given some.
fn copy_cpuset(parent: &Path, dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let empty = std::fs::read_to_string(dir.join(file)).is_ok_and(|t| t.trim().is_empty());
        if empty && let Ok(text) = std::fs::read_to_string(parent.join(file)) {
            let _ = std::fs::write(dir.join(file), text);
        }
    }
    Ok(())
}

fn remove_tree(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // A cgroup with processes stays; the next cleaning finds it again.
    let _ = std::fs::remove_dir(dir);
}

/// Writes a limit; a kernel without the controller has no such file.
fn write_if_there(path: &Path, value: &str) -> io::Result<()> {
    match std::fs::write(path, value) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// CPU weight on the scale of cgroup v2, from shares.
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_class_and_pod() {
        let cgroups = Cgroups::new("/kube1-x");
        assert_eq!(cgroups.pod_path(QosClass::Guaranteed, "u"), "/kube1-x/kubepods/podu");
        assert_eq!(cgroups.pod_path(QosClass::BestEffort, "u"), "/kube1-x/kubepods/besteffort/podu");
        assert_eq!([weight(2), weight(1024), weight(262_144)], [1, 39, 10_000]);
    }
    #[test]
    fn a_pod_leaves_no_hierarchy_anything() {
        let mount = tempfile::tempdir().unwrap();
        let hierarchies = ["cpu", "memory", "systemd", "unified"];
        for hierarchy in hierarchies {
            for pod in ["podu/container", "pode/container"] {
                std::fs::create_dir_all(mount.path().join(hierarchy).join("k/kubepods/besteffort").join(pod)).unwrap();
            }
        }
        let cgroups = Cgroups::mounted_at(mount.path(), "k");
        cgroups.remove_pod("u");
        for hierarchy in hierarchies {
            let left = std::fs::read_dir(mount.path().join(hierarchy).join("k/kubepods/besteffort")).unwrap();
            assert_eq!(left.map(|e| e.unwrap().file_name()).collect::<Vec<_>>(), ["pode"], "{hierarchy}");
        }
        std::fs::remove_dir_all(mount.path().join("cpu/k/kubepods/besteffort/pode")).unwrap();
        assert!(cgroups.pod_uids().contains("e"), "one that only a hierarchy without controllers has");
    }
}
