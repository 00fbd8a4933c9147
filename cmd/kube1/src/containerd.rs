//! containerd as a supervised process: its configuration is made anew at every start, its state is kept.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use kube1_cri::{Runtime, images};
use kube1_images::{PAUSE_IMAGE, pause_archive};
use kube1_supervisor::{BoxError, ChildProcess, ChildProcessConfig};

use crate::check::find_program;
use crate::layout::Layout;

/// How long containerd may take from its start to its first answer; a slow disk after a power cut needs much of it.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_PERIOD: Duration = Duration::from_millis(10);
/// containerd's namespace of everything that CRI sees.
pub const NAMESPACE: &str = "k8s.io";

/// Where containerd and runc are, as flags or found in PATH.
#[derive(Clone, Debug)]
pub struct Programs {
    pub containerd: PathBuf,
    pub runc: PathBuf,
}

impl Programs {
    /// Fails with what to do when one is missing.
    pub fn find(containerd: Option<&Path>, runc: Option<&Path>) -> anyhow::Result<Self> {
        let find = |name: &str, given: Option<&Path>| {
            find_program(name, given)
                .with_context(|| format!("{name} is not there: install it, or name the file with --{name}"))
        };
        Ok(Self { containerd: find("containerd", containerd)?, runc: find("runc", runc)? })
    }
}

/// containerd for one node, which keeps running when kube1 ends and is adopted when it comes back.
pub fn component(layout: &Layout, programs: &Programs) -> anyhow::Result<ChildProcess> {
    let config_file = config_file(layout);
    std::fs::write(&config_file, configuration(layout, programs))
        .with_context(|| format!("cannot write {}", config_file.display()))?;
    let config = ChildProcessConfig {
        name: "containerd".into(),
        program: programs.containerd.clone(),
        args: arguments(layout),
        env: vec![("PATH".into(), search_path(&programs.containerd))],
        pid_file: layout.containerd_pid_file(),
        log_file: layout.containerd().join("containerd.log"),
        stop_with_component: false,
    };
    let socket = layout.containerd_socket();
    Ok(ChildProcess::new(config, Box::new(move || Box::pin(ready(socket.clone())))))
}

/// The arguments by which a node's containerd is known.
pub fn arguments(layout: &Layout) -> Vec<String> {
    vec!["--config".into(), config_file(layout).display().to_string()]
}

fn config_file(layout: &Layout) -> PathBuf {
    layout.run().join("containerd.toml")
}

/// containerd starts its shim by name: the directory of containerd itself comes first.
fn search_path(containerd: &Path) -> String {
    let own = containerd.parent().map(|dir| dir.display().to_string()).unwrap_or_default();
    let inherited = std::env::var("PATH").unwrap_or_default();
    format!("{own}:{inherited}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// Waits until containerd answers, and gives it the pause image.
async fn ready(socket: PathBuf) -> Result<(), BoxError> {
    let runtime = Runtime::new(&socket);
    let deadline = Instant::now() + START_TIMEOUT;
    // A new process says by nothing but its answer that it listens.
    while let Err(error) = runtime.version().await {
        if Instant::now() > deadline {
            return Err(error.into());
        }
        tokio::time::sleep(ANSWER_PERIOD).await;
    }
    if runtime.image_status(PAUSE_IMAGE).await?.is_none() {
        images::import_bytes(&socket, pause_archive(), NAMESPACE, true).await?;
    }
    Ok(())
}

/// Whether this process may set an oom_score_adj below its own, which containerd wants for sandboxes.
fn may_lower_oom_score() -> bool {
    let path = "/proc/self/oom_score_adj";
    let Ok(current) = std::fs::read_to_string(path) else { return false };
    let allowed = std::fs::write(path, "-999").is_ok();
    // Restoring a higher value is always allowed.
    let _ = std::fs::write(path, current.trim());
    allowed
}

/// Version 2 of the configuration: containerd 1.6 knows no later one, 2.x still reads it.
fn configuration(layout: &Layout, programs: &Programs) -> String {
    let quote = |path: PathBuf| toml_string(&path.display().to_string());
    let root = quote(layout.containerd().join("root"));
    let state = quote(layout.run().join("containerd"));
    let socket = quote(layout.containerd_socket());
    let stream = toml_string("127.0.0.1");
    let runc = quote(programs.runc.clone());
    let (bin, conf) = (quote(layout.cni_bin()), quote(layout.cni_conf()));
    let certs = quote(layout.root().join("registry"));
    let restrict = !may_lower_oom_score();
    let opt = quote(layout.containerd().join("opt"));
    format!(
        r#"version = 2
root = {root}
state = {state}
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri",
]

[grpc]
address = {socket}

[plugins."io.containerd.internal.v1.opt"]
path = {opt}

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
stream_server_address = {stream}
stream_server_port = "0"
enable_selinux = false
restrict_oom_score_adj = {restrict}
disable_hugetlb_controller = true
tolerate_missing_hugetlb_controller = true
enable_unprivileged_ports = true
enable_unprivileged_icmp = true
netns_mounts_under_state_dir = true
device_ownership_from_security_context = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = {runc}
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {bin}
conf_dir = {conf}

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = {certs}
"#
    )
}

/// A TOML basic string.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml_and_stays_below_the_data_directory() {
        let layout = Layout::new(Path::new("/data \"dir\""));
        let programs = Programs { containerd: "/usr/bin/containerd".into(), runc: "/usr/sbin/runc".into() };
        let config: toml::Table = toml::from_str(&configuration(&layout, &programs)).unwrap();
        assert_eq!(config["grpc"]["address"].as_str(), Some("/data \"dir\"/run/containerd.sock"));
        let cri = &config["plugins"]["io.containerd.grpc.v1.cri"];
        assert_eq!(cri["sandbox_image"].as_str(), Some(PAUSE_IMAGE));
        assert_eq!(cri["cni"]["conf_dir"].as_str(), Some("/data \"dir\"/cni/net.d"));
    }
}
