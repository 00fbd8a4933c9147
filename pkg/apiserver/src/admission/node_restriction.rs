//! NodeRestriction: a kubelet writes only what is its own.

use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::status::Status;
use serde_json::Value;

use super::node_token;
use super::{Attributes, Operation, Plugin};
use crate::authz::{Authorizer, NODES, node_name, references};
use crate::reader::{Reader, StorageReader};

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels of a group of Kubernetes' own that a kubelet may set.
const LABELS: [&str; 10] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
];
/// Groups of labels, with what is below them, that are a kubelet's.
const LABEL_GROUPS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const RESTRICTED_GROUP: &str = "node-restriction.kubernetes.io";

pub struct NodeRestriction {
    reader: Arc<StorageReader>,
    authorizer: Arc<dyn Authorizer>,
}

type Verdict = Result<(), String>;

impl NodeRestriction {
    pub fn new(reader: Arc<StorageReader>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { reader, authorizer }
    }

    fn pod(&self, attributes: &Attributes, node: &str) -> Verdict {
        let mine = |pod: Option<&Value>| pod.is_some_and(|pod| pod["spec"]["nodeName"] == node);
        let only = |what: &str| Err(format!("node {node:?} can only {what} with spec.nodeName set to itself"));
        match (attributes.subresource.as_str(), attributes.operation) {
            ("", Operation::Create) => self.mirror_pod(attributes.object.as_ref().unwrap_or(&Value::Null), node),
            ("", Operation::Delete) if mine(attributes.old.as_ref()) => Ok(()),
            ("", Operation::Delete) => only("delete pods"),
            ("status", Operation::Update) => {
                let (new, old) = pair(attributes);
                if !mine(Some(old)) {
                    return only("update pod status for pods");
                }
                unless(new["metadata"]["labels"] != old["metadata"]["labels"], || {
                    format!("node {node:?} cannot update labels through pod status")
                })?;
                unless(new["status"]["resourceClaimStatuses"] != old["status"]["resourceClaimStatuses"], || {
                    format!("node {node:?} cannot update resource claim statuses")
                })
            }
            ("eviction", Operation::Create) => {
                let pod = self.reader.get("", "pods", &attributes.namespace, &attributes.name);
                if mine(pod.as_ref()) { Ok(()) } else { only("evict pods") }
            }
            (sub @ ("" | "status" | "eviction"), operation) => {
                Err(format!("unexpected operation {:?} on pods {sub}", operation.as_str()))
            }
            (sub, _) => Err(format!("unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed")),
        }
    }

    /// A kubelet makes pods only to show those that it runs from its own manifests.
    fn mirror_pod(&self, pod: &Value, node: &str) -> Verdict {
        let is_mirror = !pod["metadata"]["annotations"][MIRROR].is_null();
        unless(!is_mirror, || {
            format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods")
        })?;
        unless(pod["spec"]["nodeName"] != node, || {
            format!("node {node:?} can only create pods with spec.nodeName set to itself")
        })?;
        let owners = pod["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
        let own_uid = self.reader.get("", "nodes", "", node).map(|n| n["metadata"]["uid"].clone()).unwrap_or_default();
        unless(owners.len() > 1, || {
            format!("node {node:?} can only create pods with a single owner reference set to itself")
        })?;
        let owner = owners.first().unwrap_or(&Value::Null);
        let is_itself = owner["apiVersion"] == "v1" && owner["kind"] == "Node" && owner["name"] == node;
        unless(!is_itself, || format!("node {node:?} can only create pods with an owner reference set to itself"))?;
        unless(owner["controller"] != true, || {
            format!("node {node:?} can only create pods with a controller owner reference set to itself")
        })?;
        unless(owner["blockOwnerDeletion"] == true, || {
            format!("node {node:?} must not set blockOwnerDeletion on an owner reference")
        })?;
        unless(owner["uid"] != own_uid, || {
            let text = |uid: &Value| uid.as_str().unwrap_or_default().to_owned();
            format!("node {node} UID mismatch: expected {} got {}", text(&owner["uid"]), text(&own_uid))
        })?;
        let mut without_mark = pod.clone();
        without_mark["metadata"]["annotations"] = Value::Null;
        match references(&without_mark).first() {
            None => Ok(()),
            Some(found) => {
                let what = if found.plural == "serviceaccounts" { "a service account" } else { found.plural };
                Err(format!("node {node:?} can not create pods that reference {what}"))
            }
        }
    }

    fn own_node(&self, attributes: &Attributes, node: &str) -> Verdict {
        let name = attributes.object_name();
        unless(name != node, || format!("node {node:?} is not allowed to modify node {name:?}"))?;
        if attributes.operation == Operation::Delete {
            return Ok(());
        }
        let (new, old) = pair(attributes);
        let labels = forbidden_labels(&new["metadata"]["labels"], &old["metadata"]["labels"]).join(", ");
        let source = &new["spec"]["configSource"];
        if attributes.operation == Operation::Create {
            unless(!source.is_null(), || {
                format!("node {node:?} is not allowed to create pods with a non-nil configSource")
            })?;
            unless(!labels.is_empty(), || {
                format!("node {node:?} is not allowed to set the following labels: {labels}")
            })?;
        }
        if attributes.operation == Operation::Update {
            unless(!source.is_null() && *source != old["spec"]["configSource"], || {
                format!("node {node:?} is not allowed to update configSource to a new non-nil configSource")
            })?;
            unless(!same(&new["spec"]["taints"], &old["spec"]["taints"]), || {
                format!("node {node:?} is not allowed to modify taints")
            })?;
            unless(!labels.is_empty(), || format!("is not allowed to modify labels: {labels}"))?;
            unless(!same(&new["metadata"]["ownerReferences"], &old["metadata"]["ownerReferences"]), || {
                format!("node {node:?} is not allowed to modify ownerReferences")
            })?;
        }
        Ok(())
    }

    async fn judge(&self, attributes: &Attributes, node: &str) -> Verdict {
        let row = &attributes.resource;
        let object = attributes.object.as_ref().unwrap_or(&Value::Null);
        match (row.group.as_str(), row.plural.as_str(), attributes.subresource.as_str()) {
            ("", "pods", _) => self.pod(attributes, node),
            ("", "nodes", _) => self.own_node(attributes, node),
            ("", "persistentvolumeclaims", "status") => claim_status(attributes, node),
            ("", "persistentvolumeclaims", _) => Err("may only update PVC status".into()),
            ("", "serviceaccounts", "token") => {
                node_token::check(&*self.reader, &*self.authorizer, attributes, node).await
            }
            ("coordination.k8s.io", "leases", "") => {
                unless(attributes.namespace != "kube-node-lease", || {
                    "can only access leases in the \"kube-node-lease\" system namespace".into()
                })?;
                unless(attributes.object_name() != node, || {
                    "can only access node lease with the same name as the requesting node".into()
                })
            }
            ("storage.k8s.io", "csinodes", "") => unless(attributes.object_name() != node, || {
                "can only access CSINode with the same name as the requesting node".into()
            }),
            ("resource.k8s.io", "resourceslices", "") if attributes.operation != Operation::Delete => {
                unless(object["spec"]["nodeName"] != node, || {
                    "can only create ResourceSlice with the same NodeName as the requesting node".into()
                })
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.user.in_group(NODES)
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let verdict = match node_name(&attributes.user) {
            Some(node) => self.judge(attributes, node).await,
            None => Err(format!("could not determine node from user {:?}", attributes.user.name)),
        };
        verdict.map_err(|why| attributes.forbidden(why))
    }
}

fn unless(bad: bool, why: impl FnOnce() -> String) -> Verdict {
    if bad { Err(why()) } else { Ok(()) }
}

/// New and old object; null where there is none.
fn pair(attributes: &Attributes) -> (&Value, &Value) {
    (attributes.object.as_ref().unwrap_or(&Value::Null), attributes.old.as_ref().unwrap_or(&Value::Null))
}

/// Equal, where nothing is the same as an empty list.
fn same(a: &Value, b: &Value) -> bool {
    let empty = |v: &Value| v.is_null() || v.as_array().is_some_and(Vec::is_empty);
    a == b || empty(a) && empty(b)
}

/// Keys of labels that differ and that are not a kubelet's to set.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let keys = |labels: &Value| labels.as_object().map(|l| l.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let mut changed = keys(new);
    changed.extend(keys(old));
    changed.sort();
    changed.dedup();
    changed.retain(|key| new[key.as_str()] != old[key.as_str()] && !may_set(key));
    changed
}

fn may_set(label: &str) -> bool {
    let Some((group, _)) = label.split_once('/') else { return true };
    let below = |parent: &str| group.strip_suffix(parent).is_some_and(|head| head.is_empty() || head.ends_with('.'));
    if below(RESTRICTED_GROUP) {
        return false;
    }
    let reserved = below("kubernetes.io") || below("k8s.io");
    !reserved || LABELS.contains(&label) || LABEL_GROUPS.iter().any(|group| below(group))
}

fn claim_status(attributes: &Attributes, node: &str) -> Verdict {
    let strip = |claim: &Value| {
        let mut claim = claim.clone();
        if let Some(metadata) = claim["metadata"].as_object_mut() {
            metadata.remove("managedFields");
            metadata.remove("resourceVersion");
        }
        if let Some(status) = claim["status"].as_object_mut() {
            for key in ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"] {
                status.remove(key);
            }
        }
        claim
    };
    let (new, old) = pair(attributes);
    unless(attributes.operation != Operation::Update || strip(new) != strip(old), || {
        format!(
            "node {node:?} is not allowed to update fields other than status.capacity, status.conditions and the progress of a resize"
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
