//! What a kubelet may do: its own objects, and what its pods make use of.

mod references;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::selector::FieldSelector;
use parking_lot::Mutex;
use references::volume_secrets;
pub use references::{Reference, references};

use super::{Authorizer, Decision, Rule, Rules};
use crate::reader::Reader;
use crate::request_info::RequestInfo;
use crate::user::UserInfo;

/// Group of all nodes.
pub const NODES: &str = "system:nodes";
const USER_PREFIX: &str = "system:node:";

/// The node whose kubelet `user` is; none unless it is in group `system:nodes`.
pub fn node_name(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix(USER_PREFIX).filter(|name| !name.is_empty() && user.in_group(NODES))
}

/// A pod and which state of it this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodStamp {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub revision: u64,
}

/// What the node authorizer looks at.
pub trait NodeState: Reader {
    /// The pods bound to a node.
    fn pods_on(&self, node: &str) -> Vec<PodStamp>;
}

/// Pods' references by the pod's uid, with the revision they were read at.
type Known = HashMap<String, (u64, Arc<[Reference]>)>;

/// Authorizes kubelets. Follows references from the node's pods at the time of the request, so that a kubelet that was
/// just told of a pod is never ahead of its permissions.
pub struct NodeAuthorizer {
    state: Arc<dyn NodeState>,
    /// The rules of role `system:node`.
    rules: Vec<Rule>,
    known: Mutex<HashMap<String, Known>>,
}

impl NodeAuthorizer {
    pub fn new(state: Arc<dyn NodeState>) -> Self {
        let objects = crate::bootstrap::objects();
        let role = objects.iter().find(|o| o.resource.resource == "clusterroles" && o.name() == "system:node");
        let rules = role.map(|role| super::rules_of(&role.object)).unwrap_or_default();
        Self { state, rules, known: Mutex::default() }
    }

    fn decide(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        if !user.in_group(NODES) {
            return no("");
        }
        let Some(node) = node_name(user) else { return no(format!("unknown node for user {:?}", user.name)) };
        if request.is_resource
            && let Some(decision) = self.by_relation(node, request)
        {
            return decision;
        }
        if self.rules.iter().any(|rule| rule.allows(request)) { Decision::Allow } else { no("") }
    }

    /// The decision on resources for which the node's relation to the object counts.
    fn by_relation(&self, node: &str, request: &RequestInfo) -> Option<Decision> {
        let verb = request.verb.as_str();
        let sub = request.subresource.as_str();
        let reads = matches!(verb, "get" | "list" | "watch");
        Some(match (request.group.as_str(), request.resource.as_str()) {
            ("", "secrets" | "configmaps") => self.related_if(node, request, reads && sub.is_empty()),
            ("", "persistentvolumeclaims") if sub == "status" => {
                self.related_if(node, request, matches!(verb, "get" | "update" | "patch"))
            }
            ("", "persistentvolumeclaims" | "persistentvolumes") | ("storage.k8s.io", "volumeattachments") => {
                self.related_if(node, request, verb == "get" && sub.is_empty())
            }
            ("resource.k8s.io", "resourceclaims") => self.related_if(node, request, verb == "get" && sub.is_empty()),
            ("", "serviceaccounts") => {
                self.related_if(node, request, (verb, sub) == ("get", "") || (verb, sub) == ("create", "token"))
            }
            ("coordination.k8s.io", "leases") => own_lease(node, request),
            ("storage.k8s.io", "csinodes") => own(node, request, &["get", "create", "update", "patch", "delete"]),
            ("resource.k8s.io", "resourceslices") => self.resource_slice(node, request),
            ("", "nodes") if reads && sub.is_empty() => own(node, request, &["get", "list", "watch"]),
            ("", "pods") if reads && sub.is_empty() => self.read_pods(node, request),
            _ => return None,
        })
    }

    fn related_if(&self, node: &str, request: &RequestInfo, permitted: bool) -> Decision {
        if !permitted {
            return no(format!("a node may not {} {}", request.verb, request.resource));
        }
        if request.name.is_empty() {
            return no("a node may only read single objects of this kind");
        }
        if self.is_related(node, request) {
            return Decision::Allow;
        }
        no(format!("no relationship found between node '{node}' and this object"))
    }

    fn is_related(&self, node: &str, request: &RequestInfo) -> bool {
        let (namespace, name) = (request.namespace.as_str(), request.name.as_str());
        match request.resource.as_str() {
            "persistentvolumes" => {
                let Some(volume) = self.state.get("", "persistentvolumes", "", name) else { return false };
                let claim = |key: &str| volume["spec"]["claimRef"][key].as_str().unwrap_or_default();
                self.pods_use(node, claim("namespace"), "persistentvolumeclaims", claim("name"))
            }
            "volumeattachments" => {
                let found = self.state.get("storage.k8s.io", "volumeattachments", "", name);
                found.is_some_and(|attachment| attachment["spec"]["nodeName"] == node)
            }
            "secrets" => self.pods_use(node, namespace, "secrets", name) || self.volumes_use(node, namespace, name),
            plural => self.pods_use(node, namespace, plural, name),
        }
    }

    fn pods_use(&self, node: &str, namespace: &str, plural: &str, name: &str) -> bool {
        self.references_on(node)
            .iter()
            .any(|(home, refs)| home == namespace && refs.iter().any(|r| r.plural == plural && r.name == name))
    }

    /// Whether a persistent volume that a pod of the node claims needs the Secret. The volume, too, must name the claim:
    /// whoever makes a claim may name any volume in it.
    fn volumes_use(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.references_on(node).iter().any(|(home, refs)| {
            refs.iter().filter(|r| r.plural == "persistentvolumeclaims").any(|claim| {
                let bound = |volume: &serde_json::Value| {
                    let claimed = &volume["spec"]["claimRef"];
                    claimed["namespace"] == home.as_str() && claimed["name"] == claim.name.as_str()
                };
                let volume = self
                    .state
                    .get("", "persistentvolumeclaims", home, &claim.name)
                    .and_then(|claim| claim["spec"]["volumeName"].as_str().map(str::to_owned))
                    .and_then(|volume| self.state.get("", "persistentvolumes", "", &volume))
                    .filter(bound);
                volume.is_some_and(|v| volume_secrets(&v).iter().any(|(ns, n)| ns == namespace && n == name))
            })
        })
    }

    /// Namespace and references of every pod on the node; pods are only parsed when they are new or changed.
    fn references_on(&self, node: &str) -> Vec<(String, Arc<[Reference]>)> {
        let stamps = self.state.pods_on(node);
        let mut known = self.known.lock();
        let mut before = known.remove(node).unwrap_or_default();
        let mut now = Known::new();
        let mut found = Vec::with_capacity(stamps.len());
        for stamp in stamps {
            let refs = match before.remove(&stamp.uid) {
                Some((revision, refs)) if revision == stamp.revision => refs,
                _ => {
                    let pod = self.state.get("", "pods", &stamp.namespace, &stamp.name).unwrap_or_default();
                    references(&pod).into()
                }
            };
            now.insert(stamp.uid, (stamp.revision, refs.clone()));
            found.push((stamp.namespace, refs));
        }
        if !now.is_empty() {
            known.insert(node.to_owned(), now);
        }
        found
    }

    fn read_pods(&self, node: &str, request: &RequestInfo) -> Decision {
        if request.verb == "get" {
            let pod = self.state.get("", "pods", &request.namespace, &request.name);
            // A kubelet also asks for pods that are gone, and is to learn that they are.
            let mine = pod.is_none_or(|pod| pod["spec"]["nodeName"] == node);
            return if mine { Decision::Allow } else { no("a node may only read its own pods") };
        }
        match selected(request, "spec.nodeName") {
            Some(value) if value == node => Decision::Allow,
            _ => no(format!("a node may only {} pods with field selector spec.nodeName={node}", request.verb)),
        }
    }

    fn resource_slice(&self, node: &str, request: &RequestInfo) -> Decision {
        let owned = || {
            let slice = self.state.get("resource.k8s.io", "resourceslices", "", &request.name);
            slice.is_some_and(|s| s["spec"]["nodeName"] == node)
        };
        let permitted = request.subresource.is_empty()
            && match request.verb.as_str() {
                "create" => true,
                "get" | "update" | "patch" | "delete" => owned(),
                "list" | "watch" | "deletecollection" => {
                    selected(request, "spec.nodeName").is_some_and(|value| value == node)
                }
                _ => false,
            };
        if permitted { Decision::Allow } else { no("a node may only access its own resource slices") }
    }
}

fn no(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion(reason.into())
}

fn selected(request: &RequestInfo, field: &str) -> Option<String> {
    FieldSelector::parse(&request.field_selector).ok()?.exact(field).map(str::to_owned)
}

/// An object that is named like the node; creation may leave the name to the body, which admission checks.
fn own(node: &str, request: &RequestInfo, verbs: &[&str]) -> Decision {
    if !verbs.contains(&request.verb.as_str()) || !request.subresource.is_empty() {
        return no(format!("a node may not {} {}", request.verb, request.resource));
    }
    if request.name == node || request.name.is_empty() && request.verb == "create" {
        return Decision::Allow;
    }
    no(format!("a node may only access the {} with its own name", request.resource))
}

fn own_lease(node: &str, request: &RequestInfo) -> Decision {
    if request.namespace != "kube-node-lease" {
        return no("a node may only access leases in the namespace kube-node-lease");
    }
    own(node, request, &["get", "create", "update", "patch", "delete"])
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        self.decide(user, request)
    }

    fn authorize_now(&self, user: &UserInfo, request: &RequestInfo) -> Option<Decision> {
        Some(self.decide(user, request))
    }

    async fn rules(&self, user: &UserInfo, _namespace: &str) -> Rules {
        if !user.in_group(NODES) {
            return Rules::default();
        }
        let errors = vec!["node authorizer does not support user rule resolution".into()];
        Rules { incomplete: true, errors, ..Rules::default() }
    }
}

#[cfg(test)]
mod tests;
