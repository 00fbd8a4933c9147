//! Writing a pod's status to the API: only what has changed, and only the newest.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::pod::PodExt;

const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// List fields that the API merges item by item; a patch must say that it gives the whole list.
const MERGED_LISTS: [(&str, &str); 2] = [("podIPs", "ip"), ("hostIPs", "ip")];

/// A status to write, for the pod that the API knows by name and uid.
#[derive(Clone)]
struct Wanted {
    namespace: String,
    name: String,
    uid: String,
    /// What the API has, as far as is known.
    base: PodStatus,
    status: PodStatus,
    number: u64,
}

/// Writes one pod's statuses in order. Dropping it gives up what is not written.
pub struct StatusWriter {
    wanted: watch::Sender<Option<Wanted>>,
    written: watch::Receiver<u64>,
    number: u64,
    last: Arc<Mutex<Option<PodStatus>>>,
    /// The API object that was reported to; a new mirror of a static pod has nothing of it yet.
    reported_to: String,
    _task: AbortOnDropHandle<()>,
}

impl StatusWriter {
    pub fn new(client: kube::Client) -> Self {
        let (wanted, receiver) = watch::channel(None);
        let (done, written) = watch::channel(0);
        let task = AbortOnDropHandle::new(tokio::spawn(write_all(client, receiver, done)));
        Self { wanted, written, number: 0, last: Arc::default(), reported_to: String::new(), _task: task }
    }

    /// The status that was reported last.
    pub fn last(&self) -> Option<PodStatus> {
        self.last.lock().clone()
    }

    /// Reports a status for the API's pod. Returns at once; an older one that waits is dropped.
    pub fn report(&mut self, api_pod: &Pod, status: PodStatus) {
        let mut last = self.last.lock();
        if self.reported_to != api_pod.uid() {
            api_pod.uid().clone_into(&mut self.reported_to);
            *last = None;
        }
        if last.as_ref() == Some(&status) {
            return;
        }
        let base = last.clone().unwrap_or_else(|| api_pod.status().clone());
        *last = Some(status.clone());
        drop(last);
        self.number += 1;
        let wanted = Wanted {
            namespace: api_pod.namespace().to_owned(),
            name: api_pod.name().to_owned(),
            uid: api_pod.uid().to_owned(),
            base,
            status,
            number: self.number,
        };
        self.wanted.send_modify(|slot| {
            // What an unwritten report would have changed is still to be changed.
            let unwritten = slot.take().filter(|old| old.number > *self.written.borrow());
            let base = unwritten.map_or(wanted.base.clone(), |old| old.base);
            *slot = Some(Wanted { base, ..wanted.clone() });
        });
    }

    /// Waits until the newest report is written. Cancel-safe.
    pub async fn flushed(&mut self) {
        let number = self.number;
        // The task ends only with this writer.
        let _ = self.written.wait_for(|written| *written >= number).await;
    }
}

async fn write_all(client: kube::Client, mut wanted: watch::Receiver<Option<Wanted>>, written: watch::Sender<u64>) {
    let mut retry = RETRY_MIN;
    while wanted.changed().await.is_ok() {
        loop {
            let Some(next) = wanted.borrow_and_update().clone() else { break };
            match write(&client, &next).await {
                Ok(()) => {
                    retry = RETRY_MIN;
                    written.send_replace(next.number);
                    break;
                }
                Err(error) => {
                    tracing::warn!(pod = next.name, namespace = next.namespace, %error, "status not written");
                    // A newer status is tried without delay.
                    let _ = tokio::time::timeout(retry, wanted.changed()).await;
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
    }
}

async fn write(client: &kube::Client, wanted: &Wanted) -> Result<(), kube::Error> {
    let old = serde_json::to_value(&wanted.base).map_err(kube::Error::SerdeError)?;
    let new = serde_json::to_value(&wanted.status).map_err(kube::Error::SerdeError)?;
    let Some(changes) = changes(&old, &new) else { return Ok(()) };
    let patch = json!({"metadata": {"uid": wanted.uid}, "status": changes});
    let api: Api<Pod> = Api::namespaced(client.clone(), &wanted.namespace);
    match api.patch_status(&wanted.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        // Gone, or another pod of the same name: there is nothing to tell any more.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

/// The strategic patch that makes `old` into `new`; `None` if they are equal.
fn changes(old: &Value, new: &Value) -> Option<Value> {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        // What this node never writes is somebody else's.
        if !matches!(
            key.as_str(),
            "nominatedNodeName" | "resourceClaimStatuses" | "resize" | "extendedResourceClaimStatus"
        ) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    for (key, value) in new.iter().filter(|(key, value)| old.get(*key) != Some(value)) {
        let merged = MERGED_LISTS.iter().any(|(list, _)| list == key);
        let before = |item: &Value| old.get(key).and_then(Value::as_array).is_some_and(|list| list.contains(item));
        let value = match value {
            // Conditions are merged by type, and some are not this node's: only what changed may be sent.
            Value::Array(items) if key == "conditions" => {
                let kept = |gone: &Value| items.iter().any(|item| item["type"] == gone["type"]);
                let old_items = old.get(key).and_then(Value::as_array).into_iter().flatten();
                let gone = old_items.filter(|item| !kept(item));
                let gone = gone.map(|item| json!({"type": item["type"], "$patch": "delete"}));
                let of_type =
                    |item: &Value| old.get(key).and_then(Value::as_array)?.iter().find(|o| o["type"] == item["type"]);
                let changed = items.iter().filter(|i| !before(i)).map(|item| cleared(item, of_type(item)));
                changed.chain(gone).collect()
            }
            Value::Array(items) if merged => {
                let replace = json!({"$patch": "replace"});
                Value::Array(items.iter().cloned().chain([replace]).collect())
            }
            other => other.clone(),
        };
        patch.insert(key.clone(), value);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// A list item that also takes away what an older one of it had and it has not.
fn cleared(item: &Value, old: Option<&Value>) -> Value {
    let mut item = item.clone();
    let gone = old.and_then(Value::as_object).into_iter().flat_map(Map::keys).filter(|key| item.get(*key).is_none());
    for key in gone.cloned().collect::<Vec<_>>() {
        item[key] = Value::Null;
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_has_only_what_changed() {
        let old = json!({"phase": "Running", "reason": "X", "podIPs": [{"ip": "a"}], "hostIP": "h"});
        let new = json!({"phase": "Running", "podIPs": [{"ip": "b"}], "hostIP": "h"});
        let wanted = json!({"reason": null, "podIPs": [{"ip": "b"}, {"$patch": "replace"}]});
        assert_eq!(changes(&old, &new), Some(wanted));
        assert_eq!(changes(&new, &new), None);
        let old = json!({"conditions": [{"type": "A", "message": "m"}, {"type": "B"}, {"type": "C"}]});
        let new = json!({"conditions": [{"type": "A", "status": "True"}, {"type": "B"}]});
        let wanted = json!({"conditions": [
            {"type": "A", "status": "True", "message": null}, {"type": "C", "$patch": "delete"},
        ]});
        assert_eq!(changes(&old, &new), Some(wanted));
    }
}
