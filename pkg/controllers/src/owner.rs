//! Ownership: controller references, adoption and release.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::core::{Selector, SelectorExt};
use kube::{Client, Resource};
use kube1_client::{Informer, Keep, ObjectKey};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::cached_pod::CachedPod;
use crate::controller::{SyncError, is_code, namespaced, unless_gone};

/// Index of objects by the UID of their controller.
pub const BY_CONTROLLER: &str = "controller";
/// Index of objects without a controller by namespace.
pub const ORPHANS: &str = "orphans";

type Labels = std::collections::BTreeMap<String, String>;

static NO_LABELS: Labels = Labels::new();

/// What ownership is about of an object in a cache.
pub trait Owned: Keep {
    fn uid(&self) -> &str;

    fn labels(&self) -> &Labels;

    /// The reference to its controller.
    fn controller(&self) -> Option<&OwnerReference>;

    fn is_deleted(&self) -> bool;
}

impl<K> Owned for K
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static,
{
    fn uid(&self) -> &str {
        uid(self.meta())
    }

    fn labels(&self) -> &Labels {
        self.meta().labels.as_ref().unwrap_or(&NO_LABELS)
    }

    fn controller(&self) -> Option<&OwnerReference> {
        controller_of(self.meta())
    }

    fn is_deleted(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }
}

impl Owned for CachedPod {
    fn uid(&self) -> &str {
        &self.uid
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn controller(&self) -> Option<&OwnerReference> {
        self.owner.as_deref()
    }

    fn is_deleted(&self) -> bool {
        self.deleted.is_some()
    }
}

/// The reference to the object's controller.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|o| o.controller == Some(true))
}

/// The key of the object's controller if that is of this kind.
pub fn controller_key<K: Resource<DynamicType = ()>>(object: &impl Owned) -> Option<ObjectKey> {
    let owner = object.controller().filter(|o| is_kind::<K>(o))?;
    Some(ObjectKey::new(object.full_name().0, owner.name.clone()))
}

fn is_kind<K: Resource<DynamicType = ()>>(owner: &OwnerReference) -> bool {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    owner.kind == K::kind(&()) && group == K::group(&())
}

/// A reference that makes `owner` the controller of an object.
pub fn reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// Parses a selector; None selects nothing.
pub fn selector(selector: Option<&LabelSelector>) -> Option<Selector> {
    selector.cloned()?.try_into().ok()
}

/// Parses the selector of an owner of pods. One that selects everything would take what others own: it selects nothing.
pub fn pod_selector(labels: Option<&LabelSelector>) -> Option<Selector> {
    selector(labels).filter(|s| !s.selects_all())
}

pub fn selects(selector: &Selector, object: &impl Owned) -> bool {
    selector.matches(object.labels())
}

/// Adds the indexes that [`claim`] needs.
pub fn index<K: Owned>(informer: &Informer<K>) {
    informer.add_index(BY_CONTROLLER, |object: &K| object.controller().map(|o| o.uid.clone()).into_iter().collect());
    informer.add_index(ORPHANS, |object: &K| match object.controller() {
        None => vec![object.full_name().0.to_owned()],
        Some(_) => Vec::new(),
    });
}

/// The objects that `owner` controls, after adopting orphans that its selector matches and releasing
/// those it no longer matches. Fails with [`SyncError::Superseded`] when an orphan shows that the owner itself is
/// gone: whoever made the orphan one (garbage collection) may be further than our cache.
pub async fn claim<O, K>(
    client: &Client,
    owner: &O,
    selector: &Selector,
    informer: &Informer<K>,
) -> Result<Vec<Arc<K>>, SyncError>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    K: Owned<Object: Resource<Scope = NamespaceResourceScope> + Clone + Debug>,
{
    let meta = owner.meta();
    let deleting = meta.deletion_timestamp.is_some();
    let mut claimed = Vec::new();
    for object in informer.by_index(BY_CONTROLLER, uid(meta)) {
        if selects(selector, &*object) {
            claimed.push(object);
        } else if !deleting {
            release(client, meta, &*object).await?;
        }
    }
    if deleting || selector.selects_all() {
        return Ok(claimed);
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let mut orphans = informer.by_index(ORPHANS, namespace);
    orphans.retain(|o| !o.is_deleted() && selects(selector, &**o));
    if orphans.is_empty() {
        return Ok(claimed);
    }
    if !may_adopt(client, owner).await? {
        return Err(SyncError::Superseded);
    }
    for orphan in orphans {
        if adopt(client, owner, &*orphan).await? {
            claimed.push(orphan);
        }
    }
    Ok(claimed)
}

/// Whether the server itself still shows the owner, and not deleted: the cache may be old.
async fn may_adopt<O>(client: &Client, owner: &O) -> Result<bool, kube::Error>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let key = ObjectKey::of(owner);
    let fresh = namespaced::<O>(client, &key.namespace).get_opt(&key.name).await?;
    Ok(fresh.is_some_and(|f| f.meta().uid == owner.meta().uid && f.meta().deletion_timestamp.is_none()))
}

async fn adopt<O, K>(client: &Client, owner: &O, object: &K) -> Result<bool, kube::Error>
where
    O: Resource<DynamicType = ()>,
    K: Owned<Object: Resource<Scope = NamespaceResourceScope> + Clone + Debug>,
{
    let key = object.key();
    let patch = json!({"metadata": {"ownerReferences": [reference(owner)], "uid": object.uid()}});
    let api = namespaced::<K::Object>(client, &key.namespace);
    match api.patch(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(_) => Ok(true),
        // Gone, or claimed by another in the meantime.
        Err(error) if is_code(&error, 404) || is_code(&error, 422) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn release<K>(client: &Client, owner: &ObjectMeta, object: &K) -> Result<(), kube::Error>
where
    K: Owned<Object: Resource<Scope = NamespaceResourceScope> + Clone + Debug>,
{
    let key = object.key();
    let patch = json!({"metadata": {
        "ownerReferences": [{"$patch": "delete", "uid": uid(owner)}], "uid": object.uid()}});
    let api = namespaced::<K::Object>(client, &key.namespace);
    match api.patch(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Err(error) if is_code(&error, 422) => Ok(()),
        result => unless_gone(result),
    }
}

/// Keys of the owners that a change of an object concerns: its controller, the one it had before, and for an
/// orphan those owners in its namespace that would adopt it.
pub fn concerned<O, K>(
    event: &kube1_client::Event<K>,
    owners: &Informer<O>,
    matches: impl Fn(&O, &K) -> bool,
) -> Vec<ObjectKey>
where
    O: Resource<DynamicType = ()> + Keep,
    K: Owned,
{
    let object = &**event.object();
    let mut keys: Vec<ObjectKey> = controller_key::<O>(object).into_iter().collect();
    if let kube1_client::Event::Updated { old, .. } = event {
        let before = controller_key::<O>(&**old);
        keys.extend(before.filter(|key| !keys.contains(key)));
    }
    let gone = matches!(event, kube1_client::Event::Deleted(_)) || object.is_deleted();
    if object.controller().is_none() && !gone {
        let adopters = owners.list_namespace(object.full_name().0).into_iter().filter(|o| matches(o, object));
        keys.extend(adopters.map(|o| o.key()));
    }
    keys
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use kube1_client::Informers;
    use serde_json::Value;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn replica_set(deleted: bool) -> Value {
        let mut set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u"}});
        if deleted {
            set["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        set
    }

    /// A server with a pod that nobody controls, and with this answer for the set.
    fn server(set: Option<Value>) -> Client {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "namespace": "shop", "uid": "p",
            "labels": {"app": "web"}}, "spec": {"containers": []}});
        Client::new(
            tower::service_fn(move |request: http::Request<kube::client::Body>| {
                let (set, pod) = (set.clone(), pod.clone());
                async move {
                    let path = request.uri().path().to_owned();
                    let answer = match (request.method().as_str(), path.as_str()) {
                        ("GET", "/api/v1/pods") if request.uri().to_string().contains("watch=true") => {
                            futures::future::pending().await
                        }
                        ("GET", "/api/v1/pods") => json!({"apiVersion": "v1", "kind": "PodList",
                            "metadata": {"resourceVersion": "1"}, "items": [pod]}),
                        ("PATCH", "/api/v1/namespaces/shop/pods/web-1") => pod,
                        _ => set.unwrap_or_else(|| json!({"kind": "Status", "code": 404, "reason": "NotFound"})),
                    };
                    let code = answer["code"].as_u64().map_or(200, |code| u16::try_from(code).unwrap());
                    let body = kube::client::Body::from(answer.to_string().into_bytes());
                    Ok::<_, std::io::Error>(http::Response::builder().status(code).body(body).unwrap())
                }
            }),
            "shop",
        )
    }

    #[tokio::test]
    async fn an_owner_that_is_gone_claims_nothing_and_is_not_acted_for() {
        let cached: ReplicaSet = serde_json::from_value(replica_set(false)).unwrap();
        let selector: Selector = [("app".to_owned(), "web".to_owned())].into_iter().collect();
        for (on_server, adopted) in [(Some(replica_set(false)), true), (Some(replica_set(true)), false), (None, false)]
        {
            let (client, stop) = (server(on_server.clone()), CancellationToken::new());
            let pods = Informers::new(client.clone(), stop.clone()).all::<CachedPod>();
            index(&pods);
            pods.synced().await;
            match claim(&client, &cached, &selector, &pods).await {
                Ok(claimed) => assert!(adopted && claimed.len() == 1, "{on_server:?}"),
                Err(SyncError::Superseded) => assert!(!adopted, "{on_server:?}"),
                Err(error) => panic!("{error:?}"),
            }
            stop.cancel();
        }
    }
}
