//! What the overlay writes: its last known state, and what the container runtime needs.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::peers::Peer;
use super::{OverlayConfig, OverlayError};
use crate::BRIDGE;
use crate::cni::{LOOPBACK, PLUGIN};

/// What the state of a node's network follows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub node_ip: IpAddr,
    /// The addresses of the node's pods.
    pub subnet: IpNet,
    pub peers: Vec<Peer>,
}

impl State {
    /// The state as it was written last; none if that is missing or damaged.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join("state.json")).ok()?).ok()
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), OverlayError> {
        if Self::read(dir).as_ref() == Some(self) {
            return Ok(());
        }
        write_atomically(&dir.join("state.json"), &json!(self))
    }
}

/// Where the plugin keeps which pod has which address.
pub(super) fn pods_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("pods")
}

/// Puts plugins and network configuration in place.
pub(super) fn write_cni(config: &OverlayConfig, state_dir: &Path, subnet: IpNet, mtu: u32) -> Result<(), OverlayError> {
    for name in [PLUGIN, LOOPBACK] {
        let path = config.cni_bin_dir.join(name);
        link(&config.executable, &path).map_err(|source| OverlayError::File { path, source })?;
    }
    let list = json!({
        "cniVersion": "1.0.0",
        "name": "kube1",
        "plugins": [{
            "type": PLUGIN,
            "bridge": BRIDGE,
            "subnet": subnet,
            "mtu": mtu,
            "dataDir": pods_dir(state_dir),
            "capabilities": {"portMappings": true},
        }],
    });
    let path = config.cni_conf_dir.join("10-kube1.conflist");
    let same =
        fs::read(&path).is_ok_and(|now| serde_json::from_slice::<serde_json::Value>(&now).ok().as_ref() == Some(&list));
    if same { Ok(()) } else { write_atomically(&path, &list) }
}

/// Makes `path` a symbolic link to `target`, in place of whatever it is.
fn link(target: &Path, path: &Path) -> io::Result<()> {
    if fs::read_link(path).is_ok_and(|now| now == target) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => symlink(target, &temporary)?,
    }
    fs::rename(&temporary, path)
}

fn write_atomically(path: &Path, value: &serde_json::Value) -> Result<(), OverlayError> {
    let write = || {
        let dir = path.parent().unwrap_or(path);
        fs::create_dir_all(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(serde_json::to_string_pretty(value)?.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|source| OverlayError::File { path: path.to_owned(), source })
}
