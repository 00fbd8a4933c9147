//! Facts about the machine.

use std::fs;

/// What the node reports of its machine. Read once: none of it changes while the machine runs.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub cpus: i64,
    pub memory: i64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    pub swap: i64,
    /// Containers can be kept from swapping: there is swap, and cgroup v2 to limit it.
    pub limits_swap: bool,
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// A value of /proc/meminfo, in bytes.
pub fn meminfo(name: &str) -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':').map(str::to_owned))?;
    let kib: i64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// A counter of /proc/vmstat since the start of the machine, such as `pgfault`.
pub fn page_faults(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

impl Machine {
    pub fn read() -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpus = cpus.lines().filter(|l| l.starts_with("processor")).count();
        let parallel = std::thread::available_parallelism().map_or(1, |n| n.get());
        let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let os_image = os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        let swap = meminfo("SwapTotal").unwrap_or(0);
        Self {
            cpus: i64::try_from(if cpus == 0 { parallel } else { cpus }).unwrap_or(1),
            memory: meminfo("MemTotal").unwrap_or(0),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid.to_lowercase() },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image.trim_matches('"').to_owned(),
            swap,
            limits_swap: swap > 0 && crate::cgroup::is_unified(),
        }
    }
}

/// Size and free space of the filesystem that holds a path.
pub fn filesystem(path: &std::path::Path) -> Option<Filesystem> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let block = stat.fragment_size();
    Some(Filesystem {
        capacity: stat.blocks() * block,
        available: stat.blocks_available() * block,
        inodes: stat.files(),
        inodes_free: stat.files_free(),
    })
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    pub capacity: u64,
    pub available: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// When the machine was started.
pub fn boot_time() -> Option<jiff::Timestamp> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let seconds = stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    jiff::Timestamp::from_second(seconds).ok()
}

/// CPU time that all processes have used since then.
pub fn cpu_nanoseconds() -> Option<u64> {
    /// Length of one tick in the kernel's statistics, which is fixed for programs.
    const TICK: u64 = 10_000_000;
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // user, nice, system, then (after idle and iowait) irq, softirq, steal.
    let used = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| fields.get(*at)).sum::<u64>();
    Some(used * TICK)
}

/// The architecture in Kubernetes' words.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_processors_memory_and_a_disk() {
        let machine = Machine::read();
        assert!(machine.cpus > 0 && machine.memory > 1 << 26 && !machine.kernel.is_empty(), "{machine:?}");
        let disk = filesystem(std::path::Path::new("/")).expect("the root filesystem");
        assert!(disk.capacity >= disk.available);
    }
}
