//! This process in Prometheus' text format.

use crate::build::{Build, platform};

/// Which release runs.
pub fn build_metrics(version: &str) -> String {
    let (name, mut parts) = ("kubernetes_build_info", version.trim_start_matches('v').split('.'));
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (build, platform) = (Build::told(), platform());
    let (commit, tree, date, compiler) = (build.git_commit, build.git_tree_state, build.date(), build.compiler());
    format!(
        "# HELP {name} A metric with a constant '1' value that says what runs.\n# TYPE {name} gauge\n\
         {name}{{build_date=\"{date}\",compiler=\"rustc\",git_commit=\"{commit}\",git_tree_state=\"{tree}\",\
         git_version=\"{version}\",go_version=\"{compiler}\",major=\"{major}\",minor=\"{minor}\",platform=\"{platform}\"}} 1\n"
    )
}

/// What clients of Prometheus tell where there is no limit.
const UNLIMITED: f64 = 18446744073709551615.0;

/// What the kernel knows of this process, under the names of Prometheus' own clients.
pub fn process_metrics() -> String {
    let mut out = String::new();
    let mut add = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
        }
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    // Counted from the process' state, which is the third field of the file.
    let field = |index: usize| fields.get(index - 3).and_then(|f| f.parse::<f64>().ok());
    let (ticks, page) = (100.0, 4096.0);
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / ticks);
    add("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu);
    let resident = field(24).map(|pages| pages * page);
    add("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident);
    add("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", field(23));
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|d| d.count() as f64);
    add("process_open_fds", "gauge", "Number of open file descriptors.", open);
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<f64>().unwrap_or(UNLIMITED))
    };
    add("process_max_fds", "gauge", "Maximum number of open file descriptors.", limit("Max open files"));
    let most = limit("Max address space");
    add("process_virtual_memory_max_bytes", "gauge", "Maximum amount of virtual memory available in bytes.", most);
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    let start = boot.zip(field(22)).map(|(boot, since)| boot + since / ticks);
    add("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", start);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_described() {
        let text = process_metrics();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("{name} is missing in {text}"))
        };
        assert!(value("process_resident_memory_bytes") > 1e5 && value("process_open_fds") > 2.0);
        assert!(value("process_start_time_seconds") > 1.7e9);
    }
}
