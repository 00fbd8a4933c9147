//! A containerd of its own for a test: root, state, socket, images and CNI in a temporary directory.
#![allow(clippy::unwrap_used, dead_code)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube1_cri::Runtime;

/// A CNI plugin that only hands out the loopback address of the sandbox, which is all that these tests need.
const CNI_PLUGIN: &str = r#"#!/bin/sh
case "$CNI_COMMAND" in
ADD) echo '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"version":"4","interface":0,"address":"10.99.0.7/24"}]}';;
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}';;
esac
"#;
const CNI_LOOPBACK: &str = "#!/bin/sh\n\
    case $CNI_COMMAND in ADD) nsenter --net=$CNI_NETNS ip link set lo up >/dev/null 2>&1;; esac\n\
    echo '{\"cniVersion\":\"0.3.1\",\"supportedVersions\":[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\"]}'\n";

pub struct Containerd {
    pub dir: tempfile::TempDir,
    child: Child,
}

impl Containerd {
    /// Starts containerd with the pause and busybox images; `None` where this machine cannot run one.
    pub async fn start() -> Option<Self> {
        let usable = nix_root() && which("containerd") && which("runc") && which("busybox");
        if !usable {
            eprintln!("skipped: needs root, containerd, runc and a static busybox");
            return None;
        }
        // Short, because a unix socket's path must fit in 108 bytes with what the shims append.
        let dir = tempfile::Builder::new().prefix("k1").tempdir_in("/tmp").unwrap();
        write_config(dir.path());
        let log = std::fs::File::create(dir.path().join("containerd.log")).unwrap();
        let child = Command::new("containerd")
            .arg("--config")
            .arg(dir.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let this = Self { dir, child };
        this.wait_ready().await;
        let socket = this.socket();
        kube1_cri::images::import_bytes(&socket, kube1_images::pause_archive(), "k8s.io", true).await.unwrap();
        kube1_cri::images::import(&socket, &busybox_archive(this.dir.path()), "k8s.io").await.unwrap();
        Some(this)
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    pub fn runtime(&self) -> Runtime {
        Runtime::new(&self.socket())
    }

    async fn wait_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let runtime = self.runtime();
        while runtime.version().await.is_err() {
            let log = std::fs::read_to_string(self.dir.path().join("containerd.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "containerd did not start:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Removes every sandbox; dropping the value ends containerd and its mounts.
    pub async fn stop(self) {
        let runtime = self.runtime();
        for sandbox in runtime.list_pod_sandboxes(Default::default()).await.unwrap_or_default() {
            let _ = runtime.stop_pod_sandbox(&sandbox.id).await;
            let _ = runtime.remove_pod_sandbox(&sandbox.id).await;
        }
    }

    /// A test that failed leaves its containers: their shims name this containerd's socket.
    fn end_shims(&self) {
        let socket = self.socket().display().to_string();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let cmdline = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            if pid.parse::<u32>().is_ok() && cmdline.contains("containerd-shim") && cmdline.contains(&socket) {
                let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
                let _ = Command::new("kill").arg("-9").args(children.split_whitespace()).arg(&pid).status();
            }
        }
    }

    fn end(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        self.end_shims();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below: Vec<&str> = mounts.lines().filter_map(|l| l.split(' ').nth(1)).collect();
        for mount in below.iter().rev().filter(|m| Path::new(m).starts_with(self.dir.path())) {
            let _ = Command::new("umount").arg("-l").arg(mount).status();
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.end();
    }
}

fn nix_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n")
}

fn which(program: &str) -> bool {
    Command::new("sh").args(["-c", &format!("command -v {program}")]).output().is_ok_and(|o| o.status.success())
}

fn write_config(dir: &Path) {
    let path = |name: &str| dir.join(name).display().to_string();
    for sub in ["cni/bin", "cni/net.d"] {
        std::fs::create_dir_all(dir.join(sub)).unwrap();
    }
    for (name, text) in [("test-net", CNI_PLUGIN), ("loopback", CNI_LOOPBACK)] {
        let file = dir.join("cni/bin").join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let conf = r#"{"cniVersion":"0.4.0","name":"test","plugins":[{"type":"test-net"}]}"#;
    std::fs::write(dir.join("cni/net.d/10-test.conflist"), conf).unwrap();
    let config = format!(
        "version = 2\nroot = '{}'\nstate = '{}'\n[grpc]\naddress = '{}'\n[debug]\nlevel = 'info'\n\
         [plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'kube1.local/pause:1'\n\
         restrict_oom_score_adj = true\ndisable_apparmor = true\nenable_selinux = false\n\
         stream_server_address = '127.0.0.1'\nstream_server_port = '0'\n\
         [plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '{}'\nconf_dir = '{}'\n",
        path("root"),
        path("state"),
        path("c.sock"),
        path("cni/bin"),
        path("cni/net.d"),
    );
    std::fs::write(dir.join("config.toml"), config).unwrap();
}

/// An image of the machine's own static busybox, with the applets as links.
fn busybox_archive(dir: &Path) -> PathBuf {
    let binary = Command::new("sh").args(["-c", "command -v busybox"]).output().unwrap();
    let binary = String::from_utf8(binary.stdout).unwrap().trim().to_owned();
    let applets = Command::new(&binary).arg("--list").output().unwrap();
    let applets = String::from_utf8(applets.stdout).unwrap();
    let links = applets.lines().filter(|a| *a != "busybox").map(|a| (format!("bin/{a}"), "busybox".to_owned()));
    let file = |path: &str, mode, content| kube1_images::ImageFile { path: path.into(), mode, content };
    let image = kube1_images::Image {
        name: "kube1.local/busybox:1".into(),
        files: vec![
            file("bin/busybox", 0o755, std::fs::read(&binary).unwrap()),
            file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n".to_vec()),
        ],
        links: links.collect(),
        directories: vec![("tmp".into(), 0o1777)],
        cmd: vec!["sh".into()],
        ..kube1_images::Image::default()
    };
    let path = dir.join("busybox.tar");
    kube1_images::write_archive(&image, std::fs::File::create(&path).unwrap()).unwrap();
    path
}
