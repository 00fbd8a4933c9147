//! Acts on the graph: every decision is checked against the server itself first.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use kube::api::{
    Api, DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams, Preconditions, PropagationPolicy,
};
use serde_json::json;

use super::Shared;
use super::graph::{FOREGROUND, Identity, Node, ORPHAN, Work, blocks};
use crate::controller::{SyncError, is_code, unless_gone};
use crate::discovery::Kind;

pub struct Sweeper {
    client: Client,
    shared: Arc<Shared>,
}

/// The owners of an object by what they are to it.
#[derive(Default)]
struct Owners {
    /// There, and staying.
    solid: Vec<OwnerReference>,
    absent: Vec<OwnerReference>,
    /// Being deleted, and waiting for this object to go first.
    waiting: Vec<OwnerReference>,
}

impl Sweeper {
    pub fn new(client: Client, shared: Arc<Shared>) -> Self {
        Self { client, shared }
    }

    /// Deletes an object if all its owners are gone; lets an owner go whose dependents are gone.
    pub async fn examine(&self, uid: &str) -> Result<(), SyncError> {
        let Some(mut node) = self.shared.graph.lock().get(uid) else { return Ok(()) };
        if node.deleting && !node.foreground {
            return Ok(());
        }
        self.resolve(&mut node.identity)?;
        let Some(live) = self.live(&node.identity, uid).await? else {
            self.shared.remove(uid);
            return Ok(());
        };
        if node.foreground {
            return self.finish_foreground(uid, &node, &live).await;
        }
        let owners = self.classify(&node, live.owner_references.as_deref().unwrap_or(&[])).await?;
        if owners.absent.is_empty() && owners.waiting.is_empty() {
            return Ok(());
        }
        if !owners.solid.is_empty() {
            return self.set_owners(&node.identity, &live, &owners.solid).await;
        }
        if owners.waiting.is_empty() || node.dependents.is_empty() {
            return self.delete(&node.identity, &live, policy_of(&live)).await;
        }
        self.unblock_cycle(&node, &live).await?;
        match self.live(&node.identity, uid).await? {
            Some(live) => self.delete(&node.identity, &live, PropagationPolicy::Foreground).await,
            None => Ok(()),
        }
    }

    /// Takes the references to an object off its dependents, then lets it go.
    pub async fn orphan(&self, uid: &str) -> Result<(), SyncError> {
        let Some(node) = self.shared.graph.lock().get(uid) else { return Ok(()) };
        for dependent in &node.dependents {
            let Some(child) = self.shared.graph.lock().get(dependent) else { continue };
            let Some(live) = self.live(&child.identity, dependent).await? else { continue };
            let mut owners = live.owner_references.clone().unwrap_or_default();
            let before = owners.len();
            owners.retain(|o| o.uid != uid);
            if owners.len() != before {
                self.set_owners(&child.identity, &live, &owners).await?;
            }
        }
        match self.live(&node.identity, uid).await? {
            Some(live) => self.remove_finalizer(&node.identity, &live, ORPHAN).await,
            None => Ok(()),
        }
    }

    async fn finish_foreground(&self, uid: &str, node: &Node, live: &ObjectMeta) -> Result<(), SyncError> {
        let blocking = self.shared.graph.lock().blocking(uid);
        if blocking.is_empty() {
            return self.remove_finalizer(&node.identity, live, FOREGROUND).await;
        }
        let idle = blocking.into_iter().filter(|(_, deleting)| !deleting);
        idle.for_each(|(dependent, _)| self.shared.queue.add(Work::Examine(dependent)));
        Ok(())
    }

    async fn classify(&self, node: &Node, references: &[OwnerReference]) -> Result<Owners, SyncError> {
        let mut owners = Owners::default();
        for reference in references {
            let owner = self.owner(node, reference).await?;
            let waits = |meta: &ObjectMeta| {
                meta.deletion_timestamp.is_some() && meta.finalizers.iter().flatten().any(|f| f == FOREGROUND)
            };
            match owner {
                None => owners.absent.push(reference.clone()),
                Some(meta) if waits(&meta) && blocks(reference) => owners.waiting.push(reference.clone()),
                Some(_) => owners.solid.push(reference.clone()),
            }
        }
        Ok(owners)
    }

    /// The server's state of an owner; None if it is gone.
    async fn owner(&self, node: &Node, reference: &OwnerReference) -> Result<Option<ObjectMeta>, SyncError> {
        if self.shared.is_absent(&reference.uid) {
            return Ok(None);
        }
        let kind = self.kind(&reference.api_version, &reference.kind)?;
        if kind.namespaced && node.identity.namespace.is_empty() {
            // Not a valid owner. Nothing is deleted for such a mistake.
            return Ok(Some(ObjectMeta::default()));
        }
        let namespace = if kind.namespaced { Arc::clone(&node.identity.namespace) } else { "".into() };
        let identity = Identity { kind, namespace, name: reference.name.as_str().into() };
        let live = self.live(&identity, &reference.uid).await?;
        if live.is_none() {
            self.shared.remember_absent(&reference.uid);
        }
        Ok(live)
    }

    fn kind(&self, api_version: &str, kind: &str) -> Result<Arc<Kind>, SyncError> {
        let unknown = || SyncError::Invalid(format!("the server does not know the owner's kind {api_version} {kind}"));
        self.shared.kinds.read().find(api_version, kind).cloned().map(Arc::new).ok_or_else(unknown)
    }

    /// Finds the resource of an owner that was heard of before the server had its kind.
    fn resolve(&self, identity: &mut Identity) -> Result<(), SyncError> {
        let resource = &identity.kind.resource;
        if resource.plural.is_empty() {
            identity.kind = self.kind(&resource.api_version, &resource.kind)?;
            if !identity.kind.namespaced {
                identity.namespace = "".into();
            }
        }
        Ok(())
    }

    fn api(&self, identity: &Identity) -> Api<DynamicObject> {
        let resource = &identity.kind.resource;
        if identity.kind.namespaced {
            Api::namespaced_with(self.client.clone(), &identity.namespace, resource)
        } else {
            Api::all_with(self.client.clone(), resource)
        }
    }

    /// The server's state of an object; None if it is gone, or another has its name.
    async fn live(&self, identity: &Identity, uid: &str) -> Result<Option<ObjectMeta>, SyncError> {
        let found: Option<PartialObjectMeta<DynamicObject>> =
            self.api(identity).get_metadata_opt(&identity.name).await?;
        Ok(found.map(|o| o.metadata).filter(|m| m.uid.as_deref() == Some(uid)))
    }

    async fn delete(&self, identity: &Identity, live: &ObjectMeta, policy: PropagationPolicy) -> Result<(), SyncError> {
        let same = Preconditions { uid: live.uid.clone(), resource_version: live.resource_version.clone() };
        let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() }.preconditions(same);
        Ok(unless_gone(self.api(identity).delete(&identity.name, &params).await)?)
    }

    /// Dependents that wait for each other in foreground deletion would wait for ever: references no longer block.
    async fn unblock_cycle(&self, node: &Node, live: &ObjectMeta) -> Result<(), SyncError> {
        let cycle = node.dependents.iter().any(|d| self.shared.graph.lock().get(d).is_some_and(|n| n.foreground));
        if !cycle {
            return Ok(());
        }
        let mut owners = live.owner_references.clone().unwrap_or_default();
        for owner in &mut owners {
            owner.block_owner_deletion = Some(false);
        }
        self.set_owners(&node.identity, live, &owners).await
    }

    async fn set_owners(
        &self,
        identity: &Identity,
        live: &ObjectMeta,
        owners: &[OwnerReference],
    ) -> Result<(), SyncError> {
        self.patch(identity, live, json!({"ownerReferences": owners})).await
    }

    async fn remove_finalizer(&self, identity: &Identity, live: &ObjectMeta, finalizer: &str) -> Result<(), SyncError> {
        let mut finalizers = live.finalizers.clone().unwrap_or_default();
        let before = finalizers.len();
        finalizers.retain(|f| f != finalizer);
        if finalizers.len() == before {
            return Ok(());
        }
        self.patch(identity, live, json!({"finalizers": finalizers})).await
    }

    /// Patches metadata of exactly this state of the object.
    async fn patch(
        &self,
        identity: &Identity,
        live: &ObjectMeta,
        mut metadata: serde_json::Value,
    ) -> Result<(), SyncError> {
        metadata["uid"] = json!(live.uid);
        metadata["resourceVersion"] = json!(live.resource_version);
        let patch = Patch::Merge(json!({"metadata": metadata}));
        match self.api(identity).patch_metadata(&identity.name, &PatchParams::default(), &patch).await {
            Err(error) if is_code(&error, 404) => Ok(()),
            patched => Ok(patched.map(drop)?),
        }
    }
}

/// How the object itself wants its dependents treated.
fn policy_of(meta: &ObjectMeta) -> PropagationPolicy {
    let has = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
    if has(ORPHAN) {
        PropagationPolicy::Orphan
    } else if has(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    }
}
