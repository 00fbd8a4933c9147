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

    /// Control-plane state.
    pub fn server(&self) -> PathBuf {
        self.root.join("server")
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.server().join("admin.kubeconfig")
    }

    /// The worker's identity and its own state.
    pub fn agent(&self) -> PathBuf {
        self.root.join("agent")
    }

    pub fn kubelet_kubeconfig(&self) -> PathBuf {
        self.agent().join("kubelet.kubeconfig")
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
