//! Who owns whom, by UID.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use kube::core::{ApiResource, GroupVersionKind};
use kube1_client::{Ownership, Pool};

use crate::discovery::Kind;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// Where an object is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub kind: Arc<Kind>,
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// An object, or an owner that was only heard of.
#[derive(Clone, Debug)]
pub struct Node {
    pub identity: Identity,
    pub owners: Arc<[OwnerReference]>,
    pub dependents: BTreeSet<Arc<str>>,
    pub deleting: bool,
    /// Waits for its dependents to be deleted.
    pub foreground: bool,
    /// Not seen itself.
    pub heard_of: bool,
}

/// What a change calls for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// See whether the object must be deleted.
    Examine(Arc<str>),
    /// Free the object's dependents.
    Orphan(Arc<str>),
}

/// There is a node for every object of the cluster: what many of them have in common is kept once.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<Arc<str>, Box<Node>>,
    namespaces: Pool<str>,
    owners: Pool<[OwnerReference]>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<Node> {
        self.nodes.get(uid).map(|node| Node::clone(node))
    }

    /// UIDs of all seen objects of a kind.
    pub fn of_kind(&self, kind: &Kind) -> Vec<Arc<str>> {
        let of_kind = |node: &Node| !node.heard_of && node.identity.kind.resource == kind.resource;
        self.nodes.iter().filter(|(_, node)| of_kind(node)).map(|(uid, _)| Arc::clone(uid)).collect()
    }

    /// Takes in the newest state of an object. `kind_of` finds the kind of owners that are not known yet.
    pub fn observe(
        &mut self,
        kind: &Arc<Kind>,
        object: Ownership,
        kind_of: impl Fn(&OwnerReference) -> Option<Arc<Kind>>,
    ) -> Vec<Work> {
        if object.uid.is_empty() {
            return Vec::new();
        }
        let finalizer = |name: &str| object.finalizers.iter().any(|f| f == name);
        let deleting = object.deletion_timestamp.is_some();
        let (foreground, orphans) = (deleting && finalizer(FOREGROUND), deleting && finalizer(ORPHAN));
        let (uid, old) = match self.nodes.remove_entry(&*object.uid) {
            Some((uid, old)) => (uid, Some(old)),
            None => (object.uid.into(), None),
        };
        let owners = self.owners.share(object.owner_references);
        let namespace = self.namespaces.share(object.namespace);
        let before = old.as_ref().map(|n| Arc::clone(&n.owners)).unwrap_or_default();
        let was_seen = old.as_ref().is_some_and(|n| !n.heard_of);
        let was_foreground = old.as_ref().is_some_and(|n| n.foreground);
        let dependents = old.map(|n| n.dependents).unwrap_or_default();
        let mut work = Vec::new();
        for owner in before.iter().filter(|b| !owners.iter().any(|o| o.uid == b.uid)) {
            self.unlink(&uid, &owner.uid, &mut work);
        }
        for owner in &*owners {
            self.link(&uid, owner, &namespace, &kind_of, &mut work);
            // A reference that no longer blocks may let its owner go.
            let blocked = |list: &[OwnerReference]| list.iter().any(|o| o.uid == owner.uid && blocks(o));
            if blocked(&before) && !blocks(owner) {
                work.push(Work::Examine(owner.uid.as_str().into()));
            }
        }
        if was_seen && before != owners || !was_seen && self.has_doubtful_owner(&owners) {
            work.push(Work::Examine(Arc::clone(&uid)));
        }
        if orphans {
            work.push(Work::Orphan(Arc::clone(&uid)));
        }
        if foreground && !was_foreground {
            work.extend(dependents.iter().cloned().map(Work::Examine));
            work.push(Work::Examine(Arc::clone(&uid)));
        }
        let identity = Identity { kind: Arc::clone(kind), namespace, name: object.name.into() };
        self.nodes.insert(uid, Box::new(Node { identity, owners, dependents, deleting, foreground, heard_of: false }));
        work
    }

    /// Takes out an object that is gone.
    pub fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut work: Vec<Work> = node.dependents.iter().cloned().map(Work::Examine).collect();
        for owner in &*node.owners {
            self.unlink(uid, &owner.uid, &mut work);
        }
        work
    }

    fn link(
        &mut self,
        uid: &Arc<str>,
        owner: &OwnerReference,
        namespace: &Arc<str>,
        kind_of: &impl Fn(&OwnerReference) -> Option<Arc<Kind>>,
        work: &mut Vec<Work>,
    ) {
        if let Some(node) = self.nodes.get_mut(owner.uid.as_str()) {
            node.dependents.insert(Arc::clone(uid));
            return;
        }
        let kind = kind_of(owner).unwrap_or_else(|| unknown_kind(owner));
        let namespace = if kind.namespaced { Arc::clone(namespace) } else { "".into() };
        let node = Node {
            identity: Identity { kind, namespace, name: owner.name.as_str().into() },
            owners: Arc::default(),
            dependents: BTreeSet::from([Arc::clone(uid)]),
            deleting: false,
            foreground: false,
            heard_of: true,
        };
        let owner: Arc<str> = owner.uid.as_str().into();
        self.nodes.insert(Arc::clone(&owner), Box::new(node));
        work.push(Work::Examine(owner));
    }

    fn unlink(&mut self, uid: &str, owner: &str, work: &mut Vec<Work>) {
        let Some(node) = self.nodes.get_mut(owner) else { return };
        node.dependents.remove(uid);
        if node.foreground {
            work.push(Work::Examine(owner.into()));
        }
        if node.heard_of && node.dependents.is_empty() {
            self.nodes.remove(owner);
        }
    }

    fn has_doubtful_owner(&self, owners: &[OwnerReference]) -> bool {
        owners.iter().any(|o| self.nodes.get(o.uid.as_str()).is_none_or(|n| n.foreground))
    }

    /// Dependents that keep the owner from going: their reference blocks it.
    pub fn blocking(&self, uid: &str) -> Vec<(Arc<str>, bool)> {
        let Some(node) = self.nodes.get(uid) else { return Vec::new() };
        let blocking = |dependent: &Node| dependent.owners.iter().any(|o| o.uid == uid && blocks(o));
        let found = node.dependents.iter().filter_map(|d| Some((d, self.nodes.get(d)?)));
        found.filter(|(_, n)| blocking(n)).map(|(uid, n)| (Arc::clone(uid), n.deleting)).collect()
    }
}

/// A kind that the server does not have, or not yet: without a plural name.
fn unknown_kind(owner: &OwnerReference) -> Arc<Kind> {
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    let gvk = GroupVersionKind::gvk(group, version, &owner.kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, "");
    Arc::new(Kind { resource, namespaced: true, verbs: Vec::new() })
}

pub fn blocks(owner: &OwnerReference) -> bool {
    owner.block_owner_deletion == Some(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn kind() -> Arc<Kind> {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "ConfigMap"), "configmaps");
        Arc::new(Kind { resource, namespaced: true, verbs: Vec::new() })
    }

    fn observe(graph: &mut Graph, uid: &str, owner: Option<(&str, bool)>, extra: Value) -> Vec<Work> {
        let mut meta = extra;
        (meta["uid"], meta["name"], meta["namespace"]) = (json!(uid), json!(uid), json!("n"));
        if let Some((owner, blocks)) = owner {
            meta["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": owner,
                "blockOwnerDeletion": blocks}]);
        }
        let mut work = graph.observe(&kind(), serde_json::from_value(meta).unwrap(), |_| Some(kind()));
        work.sort();
        work
    }

    fn examine(uids: &[&str]) -> Vec<Work> {
        uids.iter().map(|u| Work::Examine((*u).into())).collect()
    }

    #[test]
    fn dependents_of_a_gone_owner_are_examined() {
        let mut graph = Graph::default();
        assert_eq!(observe(&mut graph, "owner", None, json!({})), []);
        assert_eq!(observe(&mut graph, "child", Some(("owner", false)), json!({})), []);
        assert_eq!(graph.remove("owner"), examine(&["child"]));
    }

    #[test]
    fn an_owner_that_was_never_seen_is_examined() {
        let mut graph = Graph::default();
        assert_eq!(observe(&mut graph, "child", Some(("owner", false)), json!({})), examine(&["owner"]));
        assert_eq!(observe(&mut graph, "owner", None, json!({})), []);
        assert_eq!(graph.get("owner").unwrap().dependents.len(), 1);
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependents() {
        let mut graph = Graph::default();
        observe(&mut graph, "owner", None, json!({}));
        observe(&mut graph, "blocking", Some(("owner", true)), json!({}));
        observe(&mut graph, "other", Some(("owner", false)), json!({}));
        let deleting = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOREGROUND]});
        assert_eq!(observe(&mut graph, "owner", None, deleting), examine(&["blocking", "other", "owner"]));
        assert_eq!(graph.blocking("owner"), [("blocking".into(), false)]);
        assert_eq!(graph.remove("blocking"), examine(&["owner"]));
        let orphaning = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [ORPHAN]});
        assert_eq!(observe(&mut graph, "o", None, orphaning), [Work::Orphan("o".into())]);
    }
}
