//! Where a node keeps its files. Everything derives from the data directory, so that several nodes fit on one machine.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Paths below a data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(data_dir: &Path) -> Self {
        Self { root: data_dir.to_owned() }
    }

    /// Makes the directory and its parents, 0700 for what is new.
    pub fn create(&self) -> std::io::Result<()> {
        for dir in [self.root.clone(), self.run(), self.containerd()] {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        Ok(())
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Sockets and process ids.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub fn status_socket(&self) -> PathBuf {
        self.run().join("kube1.sock")
    }

    /// Process id of the running kube1; locked while it runs.
    pub fn pid_file(&self) -> PathBuf {
        self.run().join("kube1.pid")
    }

    /// Name of the cgroup that holds this node's pods, the same in every hierarchy. A hash of the path keeps several
    /// nodes on one machine apart.
    pub fn cgroup_name(&self) -> String {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in self.root.as_os_str().as_encoded_bytes() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        format!("kube1-{:08x}", hash >> 32)
    }

    /// The process that runs this node, if one does.
    pub fn running_pid(&self) -> Option<i32> {
        let pid: i32 = std::fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        name.starts_with("kube1").then_some(pid)
    }

    /// Control-plane state.
    pub fn server(&self) -> PathBuf {
        self.root.join("server")
    }

    pub fn snapshots(&self) -> PathBuf {
        self.server().join("snapshots")
    }

    pub fn snapshot_socket(&self) -> PathBuf {
        self.run().join("snapshot.sock")
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.server().join("admin.kubeconfig")
    }

    pub fn containerd(&self) -> PathBuf {
        self.root.join("containerd")
    }

    pub fn containerd_socket(&self) -> PathBuf {
        self.run().join("containerd.sock")
    }

    pub fn containerd_pid_file(&self) -> PathBuf {
        self.run().join("containerd.pid")
    }

    pub fn cni_bin(&self) -> PathBuf {
        self.root.join("cni/bin")
    }

    pub fn cni_conf(&self) -> PathBuf {
        self.root.join("cni/net.d")
    }
}
