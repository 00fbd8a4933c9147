//! The last known services on disk: a node that starts while its server is away still serves them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kube1_client::ObjectKey;
use serde::{Deserialize, Serialize};

use crate::endpoints::Targets;
use crate::service::ServicePort;

/// A service's ports and where each leads.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedService {
    pub namespace: String,
    pub name: String,
    pub ports: Vec<(ServicePort, Targets)>,
}

impl SavedService {
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&*self.namespace, &*self.name)
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("proxy/services.json")
}

/// What was written last; nothing if that is missing or damaged.
pub fn read(data_dir: &Path) -> Option<Vec<SavedService>> {
    serde_json::from_slice(&fs::read(path(data_dir)).ok()?).ok()
}

/// Replaces what was written before, unless it is the same.
pub fn write(data_dir: &Path, services: &[SavedService]) -> io::Result<()> {
    let (path, bytes) = (path(data_dir), serde_json::to_vec(services)?);
    if fs::read(&path).is_ok_and(|now| now == bytes) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().unwrap_or(data_dir))?;
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, &path)
}
