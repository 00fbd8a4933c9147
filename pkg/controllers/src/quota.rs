//! ResourceQuotas: counts what is used, as deletions and ends free it again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ResourceQuota, ResourceQuotaStatus, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use kube::runtime::watcher;
use kube1_api::amounts::{self, Amounts};
use kube1_api::quantity::Quantity;
use kube1_api::quota::{in_scopes, usage};
use kube1_client::{Event, Informer, Keep, ObjectKey, Outcome, Ownership, WorkQueue, follow_ownership};
use kube1_supervisor::BoxError;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use tokio::task::{AbortHandle, JoinSet};

use crate::cached_pod::CachedPod;
use crate::controller::{Controller, Reconcile, SyncError, SyncResult, namespaced, replace_status, unless_gone};
use crate::discovery::{Kind, Kinds};
use crate::pods;

/// Everything is counted again after this long, whatever was seen.
const RECOUNT: Duration = Duration::from_secs(300);
/// How soon a count is repeated that a charge came before.
const AGAIN: Duration = Duration::from_millis(100);
/// How soon a kind is looked for again that the server does not have, or does not have at the moment.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How long objects of extension servers may gather before they are counted.
const GATHER: Duration = Duration::from_secs(1);
/// Core kinds that quotas count under their plain name, besides those with an informer.
const PLAIN: [&str; 4] = ["configmaps", "secrets", "replicationcontrollers", "resourcequotas"];

/// Runs the controller of ResourceQuotas.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let quotas = controller.informers.all::<ResourceQuota>();
    let (pods, services) = (controller.informers.all::<CachedPod>(), controller.informers.all::<Service>());
    let claims = controller.informers.all::<PersistentVolumeClaim>();
    if !controller.synced(&[&quotas, &pods, &services, &claims]).await {
        return Ok(());
    }
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    recount_when(&controller, &pods, &quotas, &queue, |event| is_gone(event) || has_finished(event));
    recount_when(&controller, &services, &quotas, &queue, is_gone);
    recount_when(&controller, &claims, &quotas, &queue, is_gone);
    controller.watch(&quotas, &queue, |event| is_new(event).then(|| ObjectKey::of(&**event.object())));
    let watches = Watches {
        client: controller.client.clone(),
        quotas: quotas.clone(),
        queue: queue.clone(),
        running: Mutex::default(),
    };
    let counter = Counter { client: controller.client.clone(), quotas, pods, services, claims, watches };
    controller.keep(&queue, 4, counter).await;
    Ok(())
}

/// Counts again when something is free. What comes is charged by the server as it is admitted, before it can be seen
/// here: to count then would forget what is about to come.
fn recount_when<K>(
    controller: &Controller,
    objects: &Informer<K>,
    quotas: &Informer<ResourceQuota>,
    queue: &WorkQueue<ObjectKey>,
    frees: impl Fn(&Event<K>) -> bool + Send + Sync + 'static,
) where
    K: Keep,
{
    let quotas = quotas.clone();
    controller.watch(objects, queue, move |event| {
        let namespace = frees(event).then(|| event.object().full_name().0.to_owned());
        let affected = namespace.map(|namespace| quotas.list_namespace(&namespace)).unwrap_or_default();
        affected.iter().map(|q| ObjectKey::of(&**q)).collect::<Vec<_>>()
    });
}

fn is_gone<K>(event: &Event<K>) -> bool {
    matches!(event, Event::Deleted(_))
}

fn has_finished(event: &Event<CachedPod>) -> bool {
    matches!(event, Event::Updated { old, new } if !pods::is_finished(old) && pods::is_finished(new))
}

/// Whether there is a quota to count for the first time, or for other limits. Its status changes with each charge.
fn is_new(event: &Event<ResourceQuota>) -> bool {
    match event {
        Event::Added(_) => true,
        Event::Updated { old, new } => old.spec != new.spec,
        Event::Deleted(_) => false,
    }
}

struct Counter {
    client: Client,
    quotas: Informer<ResourceQuota>,
    pods: Informer<CachedPod>,
    services: Informer<Service>,
    claims: Informer<PersistentVolumeClaim>,
    watches: Watches,
}

impl Reconcile<ObjectKey> for Counter {
    async fn sync(&self, key: ObjectKey) -> SyncResult {
        let Some(quota) = self.quotas.get(&key) else { return Ok(Outcome::Done) };
        let hard = quota.spec.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default();
        let mut used: BTreeMap<String, Quantity> = hard.keys().map(|k| (k.clone(), Quantity::ZERO)).collect();
        let mut add = |amounts: Amounts| {
            for (name, amount) in amounts {
                if let Some(sum) = used.get_mut(&name) {
                    *sum = sum.plus(amount);
                }
            }
        };
        let running: Vec<_> =
            self.pods.list_namespace(&key.namespace).into_iter().filter(|p| !pods::is_finished(p)).collect();
        // Whatever else a pod has, quotas look at its specification only.
        let running: Vec<_> = running.iter().map(|pod| Arc::new(json!({"spec": *pod.spec}))).collect();
        count("pods", &running, &quota, &mut add);
        count("services", &self.services.list_namespace(&key.namespace), &quota, &mut add);
        count("persistentvolumeclaims", &self.claims.list_namespace(&key.namespace), &quota, &mut add);
        let complete = self.count_others(&quota, &mut used).await?;
        let used = used.into_iter().map(|(name, amount)| (name, QuantityText(amount.to_string()))).collect();
        let status = ResourceQuotaStatus { hard: Some(hard), used: Some(used) };
        if !same(quota.status.as_ref(), &status) {
            let changed = ResourceQuota { status: Some(status), ..ResourceQuota::clone(&quota) };
            let written = replace_status(&namespaced(&self.client, &key.namespace), changed).await;
            match unless_gone(written).map_err(SyncError::from) {
                // Something was charged meanwhile, which does not bring the quota back here.
                Err(SyncError::Superseded) => return Ok(Outcome::RequeueAfter(AGAIN)),
                written => written?,
            };
        }
        Ok(Outcome::RequeueAfter(if complete { RECOUNT } else { LOOK_AGAIN }))
    }
}

impl Counter {
    /// Counts kinds of which only the number matters, by asking the server. Those that the server does not have, or whose
    /// extension server does not answer, keep their last count; false if there are such.
    async fn count_others(
        &self,
        quota: &ResourceQuota,
        used: &mut BTreeMap<String, Quantity>,
    ) -> Result<bool, SyncError> {
        let names: Vec<(String, String)> =
            used.keys().filter_map(|key| Some((key.clone(), counted(key)?.to_owned()))).collect();
        // Scopes are about pods and claims; others are in none.
        if names.is_empty() || is_scoped(quota) {
            return Ok(true);
        }
        let kinds = Kinds::discover(&self.client).await?;
        let before = quota.status.as_ref().and_then(|s| s.used.as_ref());
        let before =
            |key: &str| before.and_then(|used| Quantity::parse(&used.get(key)?.0).ok()).unwrap_or(Quantity::ZERO);
        let namespace = quota.metadata.namespace.as_deref().unwrap_or_default();
        let mut complete = true;
        for (key, name) in names {
            let count = match kinds.all.iter().find(|k| k.namespaced && k.name() == name && k.can("list")) {
                Some(kind) => {
                    self.watches.ensure(kind);
                    self.number(namespace, kind).await
                }
                None => None,
            };
            complete &= count.is_some();
            used.insert(key.clone(), count.unwrap_or_else(|| before(&key)));
        }
        Ok(complete)
    }

    /// None if the server cannot tell at the moment, which must not keep the rest from being counted.
    async fn number(&self, namespace: &str, kind: &Kind) -> Option<Quantity> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind.resource);
        match api.list_metadata(&ListParams::default()).await {
            Ok(found) => Some(Quantity::from_units(i64::try_from(found.items.len()).unwrap_or(i64::MAX))),
            Err(error) => {
                tracing::debug!(kind = kind.name(), namespace, %error, "objects cannot be counted for a quota yet");
                None
            }
        }
    }
}

/// The kind, as `PLURAL.GROUP`, whose objects a quota's key counts; None for those with an informer.
fn counted(key: &str) -> Option<&str> {
    let name = key.strip_prefix("count/").or_else(|| PLAIN.contains(&key).then_some(key))?;
    (!matches!(name, "pods" | "services" | "persistentvolumeclaims")).then_some(name)
}

fn is_scoped(quota: &ResourceQuota) -> bool {
    let spec = quota.spec.as_ref();
    spec.is_some_and(|s| s.scopes.as_ref().is_some_and(|l| !l.is_empty()) || s.scope_selector.is_some())
}

fn count<K: Serialize>(plural: &str, objects: &[Arc<K>], quota: &ResourceQuota, add: &mut impl FnMut(Amounts)) {
    let spec = json!(quota.spec);
    for object in objects {
        let object = json!(**object);
        if in_scopes("", plural, &spec, &object) {
            add(usage("", plural, &object));
        }
    }
}

/// Whether two statuses say the same, however amounts are written.
fn same(old: Option<&ResourceQuotaStatus>, new: &ResourceQuotaStatus) -> bool {
    let Some(old) = old else { return false };
    let read = |list: &Option<BTreeMap<String, QuantityText>>| amounts::read(&json!(list));
    let equal = |a: Amounts, b: Amounts| {
        a.len() == b.len()
            && a.iter().zip(&b).all(|((n, x), (m, y))| n == m && x.partial_cmp(y).is_some_and(|o| o.is_eq()))
    };
    equal(read(&old.hard), read(&new.hard)) && equal(read(&old.used), read(&new.used))
}

/// Watches of the metadata of kinds that quotas count.
struct Watches {
    client: Client,
    quotas: Informer<ResourceQuota>,
    queue: WorkQueue<ObjectKey>,
    running: Mutex<(JoinSet<()>, HashMap<String, AbortHandle>)>,
}

impl Watches {
    /// Starts the watch of a kind, and ends those of kinds that no quota counts any more.
    fn ensure(&self, kind: &Kind) {
        let all = self.quotas.list();
        let keys = all.iter().filter_map(|q| q.spec.as_ref()?.hard.as_ref()).flat_map(BTreeMap::keys);
        let wanted: HashSet<String> = keys.filter_map(|k| counted(k)).map(str::to_owned).collect();
        let mut running = self.running.lock();
        let (tasks, watches) = &mut *running;
        watches.retain(|name, task| {
            let keep = wanted.contains(name);
            if !keep {
                task.abort();
            }
            keep
        });
        while tasks.try_join_next().is_some() {}
        watches.entry(kind.name()).or_insert_with(|| {
            tasks.spawn(recount(self.client.clone(), kind.clone(), self.quotas.clone(), self.queue.clone()))
        });
    }
}

/// Has the quotas of a namespace counted again whenever objects of a kind go there. Where no admission charges for those
/// that come, as extension servers do not, also then.
async fn recount(client: Client, kind: Kind, quotas: Informer<ResourceQuota>, queue: WorkQueue<ObjectKey>) {
    let uncharged = is_remote(&client, &kind).await;
    let synced = AtomicBool::new(false);
    let observe = move |event: watcher::Event<Ownership>| {
        let first = matches!(event, watcher::Event::InitDone) && !synced.swap(true, Ordering::Relaxed);
        let Some((namespace, delay)) = recounted(&event, uncharged).filter(|_| !first) else { return };
        let affected = namespace.map_or_else(|| quotas.list(), |namespace| quotas.list_namespace(namespace));
        affected.iter().for_each(|quota| queue.add_after(quota.key(), delay));
    };
    follow_ownership(client, &kind.resource, observe).await;
}

/// The namespace whose quotas are to be counted again, or none for all, and how soon.
fn recounted(event: &watcher::Event<Ownership>, uncharged: bool) -> Option<(Option<&str>, Duration)> {
    match event {
        watcher::Event::Delete(object) => Some((Some(&object.namespace), Duration::ZERO)),
        watcher::Event::Apply(object) if uncharged => Some((Some(&object.namespace), GATHER)),
        // After an interruption anything may have changed.
        watcher::Event::InitDone => Some((None, Duration::ZERO)),
        _ => None,
    }
}

/// Whether an extension server keeps the objects of a kind.
async fn is_remote(client: &Client, kind: &Kind) -> bool {
    let name = format!("{}.{}", kind.resource.version, kind.resource.group);
    let services: Api<APIService> = Api::all(client.clone());
    let found = services.list(&ListParams::default().fields(&format!("metadata.name={name}"))).await;
    found.is_ok_and(|found| found.items.iter().any(|s| s.spec.as_ref().is_some_and(|spec| spec.service.is_some())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cached_pod::tests::cached;

    #[test]
    fn only_what_frees_or_limits_is_counted_again() {
        let pod = |phase: &str| cached(json!({"status": {"phase": phase}}));
        let updated = |old, new| Event::Updated { old: pod(old), new: pod(new) };
        let pods = [
            (Event::Added(pod("Pending")), false),
            (updated("Pending", "Running"), false),
            (updated("Running", "Succeeded"), true),
            (updated("Failed", "Failed"), false),
            (Event::Deleted(pod("Running")), true),
        ];
        for (place, (event, counts)) in pods.iter().enumerate() {
            assert_eq!(is_gone(event) || has_finished(event), *counts, "case {place}");
        }
        let quota = |limit: &str, used: &str| -> Arc<ResourceQuota> {
            let quota = json!({"metadata": {}, "spec": {"hard": {"pods": limit}}, "status": {"used": {"pods": used}}});
            Arc::new(serde_json::from_value(quota).unwrap())
        };
        assert!(is_new(&Event::Added(quota("2", "0"))));
        assert!(!is_new(&Event::Updated { old: quota("2", "0"), new: quota("2", "1") }));
        assert!(is_new(&Event::Updated { old: quota("2", "1"), new: quota("3", "1") }));
    }

    #[test]
    fn what_no_admission_charges_is_counted_as_it_comes() {
        let object = || Ownership { namespace: "shop".into(), ..Ownership::default() };
        let cases = [
            (watcher::Event::Init, false, None),
            (watcher::Event::InitApply(object()), true, None),
            (watcher::Event::InitDone, false, Some((None, Duration::ZERO))),
            (watcher::Event::Apply(object()), false, None),
            (watcher::Event::Apply(object()), true, Some((Some("shop"), GATHER))),
            (watcher::Event::Delete(object()), false, Some((Some("shop"), Duration::ZERO))),
        ];
        for (event, uncharged, expected) in &cases {
            assert_eq!(recounted(event, *uncharged), *expected, "{event:?}");
        }
    }
}
