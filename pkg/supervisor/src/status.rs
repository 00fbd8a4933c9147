//! What the components of this process are doing, for `kube1 status` and the readiness endpoint.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Where a component is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComponentState {
    /// Waits for the components before it.
    Waiting,
    Starting,
    Ready,
    /// Failed; runs again after its back-off.
    Backoff,
    Stopped,
}

/// One component's state and history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    pub name: String,
    pub state: ComponentState,
    /// Seconds since the epoch of the last change of `state`.
    pub since: u64,
    pub restarts: u32,
    /// The last failure with its causes; kept after a recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// The answer to `kube1 status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    pub role: String,
    pub node_name: String,
    pub version: String,
    pub pid: u32,
    /// Seconds since the epoch.
    pub started: u64,
    pub components: Vec<ComponentStatus>,
}

/// Shared, observable list of component states. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct StatusBoard {
    sender: Arc<watch::Sender<Vec<ComponentStatus>>>,
}

impl StatusBoard {
    pub fn snapshot(&self) -> Vec<ComponentStatus> {
        self.sender.borrow().clone()
    }

    /// Sees every later change.
    pub fn subscribe(&self) -> watch::Receiver<Vec<ComponentStatus>> {
        self.sender.subscribe()
    }

    pub(crate) fn add(&self, name: &str) {
        self.sender.send_modify(|list| {
            list.push(ComponentStatus {
                name: name.to_owned(),
                state: ComponentState::Waiting,
                since: now_seconds(),
                restarts: 0,
                last_error: None,
            });
        });
    }

    pub(crate) fn set(&self, name: &str, state: ComponentState, error: Option<String>) {
        self.sender.send_modify(|list| {
            let Some(entry) = list.iter_mut().find(|c| c.name == name) else { return };
            if entry.state != state {
                entry.since = now_seconds();
            }
            entry.state = state;
            if state == ComponentState::Backoff {
                entry.restarts = entry.restarts.saturating_add(1);
            }
            if error.is_some() {
                entry.last_error = error;
            }
        });
    }
}

/// Seconds since the epoch; 0 on a clock before it.
pub(crate) fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
