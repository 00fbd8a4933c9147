//! Where tests find facts about the API to compare with; tests that need them pass without them.

use std::path::PathBuf;

use serde_json::Value;

/// A file of the folder that `KUBE1_API_FACTS` names.
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("KUBE1_API_FACTS")?;
    Some(PathBuf::from(folder).join(name)).filter(|path| path.exists())
}

pub(crate) fn read_json(name: &str) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path(name)?).ok()?).ok()
}
