//! Watches the metadata of all objects.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::runtime::watcher;
use kube1_client::{Ownership, follow_ownership};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::Shared;
use crate::discovery::{Kind, Kinds};

/// One watch per kind.
pub struct Monitors {
    client: Client,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    running: HashMap<String, Monitor>,
}

struct Monitor {
    kind: Arc<Kind>,
    task: AbortHandle,
    synced: watch::Receiver<bool>,
}

impl Monitors {
    pub fn new(client: Client, shared: Arc<Shared>) -> Self {
        Self { client, shared, tasks: JoinSet::new(), running: HashMap::new() }
    }

    /// Starts watches of new kinds and stops those of kinds that are gone. Kinds of groups that do not answer stay.
    pub fn follow(&mut self, kinds: &Kinds) {
        let wanted: HashMap<String, &Kind> =
            kinds.all.iter().filter(|k| is_collected(k)).map(|k| (k.name(), k)).collect();
        let stale = |kind: &Kind| {
            kinds.stale.iter().any(|s| s.split_once('/').is_some_and(|(group, _)| group == kind.resource.group))
        };
        let gone: Vec<String> = self
            .running
            .iter()
            .filter(|(name, m)| !stale(&m.kind) && wanted.get(*name).is_none_or(|k| **k != *m.kind))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(monitor) = self.running.remove(&name) {
                monitor.task.abort();
                self.forget(&monitor.kind);
            }
        }
        for (name, kind) in wanted {
            if !self.running.contains_key(&name) {
                let monitor = self.start(Arc::new(kind.clone()));
                self.running.insert(name, monitor);
            }
        }
        // Collects the ends of aborted watches.
        while self.tasks.try_join_next().is_some() {}
    }

    fn start(&mut self, kind: Arc<Kind>) -> Monitor {
        let (done, synced) = watch::channel(false);
        let task = self.tasks.spawn(run(self.client.clone(), Arc::clone(&self.shared), Arc::clone(&kind), done));
        Monitor { kind, task, synced }
    }

    fn forget(&self, kind: &Kind) {
        let mut graph = self.shared.graph.lock();
        let work: Vec<_> = graph.of_kind(kind).iter().flat_map(|uid| graph.remove(uid)).collect();
        drop(graph);
        self.shared.add(work);
    }

    /// Waits until every watch has listed its objects once.
    pub async fn synced(&self) {
        for monitor in self.running.values() {
            let mut synced = monitor.synced.clone();
            // An ended watch will not sync any more.
            let _ = synced.wait_for(|done| *done).await;
        }
    }
}

/// Events expire by themselves, and own nothing.
fn is_collected(kind: &Kind) -> bool {
    kind.can("list") && kind.can("watch") && kind.can("delete") && kind.resource.plural != "events"
}

async fn run(client: Client, shared: Arc<Shared>, kind: Arc<Kind>, synced: watch::Sender<bool>) {
    let defines_kinds = matches!(kind.resource.plural.as_str(), "customresourcedefinitions" | "apiservices");
    let changed = || {
        if defines_kinds {
            shared.kinds_changed.notify_one();
        }
    };
    let listing = Mutex::new(HashSet::new());
    let observe = |event: watcher::Event<Ownership>| match event {
        watcher::Event::Init => listing.lock().clear(),
        watcher::Event::InitApply(object) => {
            listing.lock().insert(object.uid.clone());
            shared.observe(&kind, object);
        }
        watcher::Event::InitDone => {
            shared.retain(&kind, &std::mem::take(&mut *listing.lock()));
            synced.send_replace(true);
        }
        watcher::Event::Apply(object) => {
            shared.observe(&kind, object);
            changed();
        }
        watcher::Event::Delete(object) => {
            shared.remove(&object.uid);
            changed();
        }
    };
    follow_ownership(client, &kind.resource, observe).await;
}

impl Shared {
    fn observe(&self, kind: &Arc<Kind>, object: Ownership) {
        let kinds = Arc::clone(&self.kinds.read());
        let kind_of = |owner: &OwnerReference| kinds.of_owner(owner).cloned().map(Arc::new);
        let work = self.graph.lock().observe(kind, object, kind_of);
        self.add(work);
    }

    pub(super) fn remove(&self, uid: &str) {
        self.remember_absent(uid);
        let work = self.graph.lock().remove(uid);
        self.add(work);
    }

    /// Takes out the objects of a kind that a complete list does not have.
    fn retain(&self, kind: &Kind, listed: &HashSet<String>) {
        let mut graph = self.graph.lock();
        let gone: Vec<_> = graph.of_kind(kind).into_iter().filter(|uid| !listed.contains(&**uid)).collect();
        let work: Vec<_> = gone.iter().flat_map(|uid| graph.remove(uid)).collect();
        drop(graph);
        gone.iter().for_each(|uid| self.remember_absent(uid));
        self.add(work);
    }
}
