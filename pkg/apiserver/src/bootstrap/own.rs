//! Start objects that are this program's own: what its nodes need beyond upstream's.

use serde_json::json;

use super::objects::{BootObject, binding, mark_rbac, rule};

const RBAC: &str = "rbac.authorization.k8s.io";
/// Group of the tokens that nodes join with.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers:kube1:default-node-token";

/// What the proxy, network and DNS parts of a node read with the node's own identity.
const NODE_RULES: [&str; 6] = [
    ";services,endpoints,nodes,namespaces;get,list,watch",
    "discovery.k8s.io;endpointslices;get,list,watch",
    // Network policies select pods of every node.
    ";pods;get,list,watch",
    "networking.k8s.io;networkpolicies;get,list,watch",
    "networking.k8s.io;servicecidrs;list,watch",
    ",events.k8s.io;events;create,patch,update",
];

pub(super) fn own_objects() -> Vec<BootObject> {
    let nodes = "Group:system:nodes";
    let joining = format!("Group:{BOOTSTRAPPERS}");
    let signing = |what: &str| format!("ClusterRole/system:certificates.k8s.io:certificatesigningrequests:{what}");
    vec![
        role("kube1:node", &NODE_RULES),
        role("kube1:public-info-viewer", &["/cacerts;get"]),
        aggregated(role("system:aggregated-metrics-reader", &["metrics.k8s.io;pods,nodes;get,list,watch"])),
        bind("kube1:node", "ClusterRole/kube1:node", &[nodes]),
        bind(
            "kube1:public-info-viewer",
            "ClusterRole/kube1:public-info-viewer",
            &["Group:system:authenticated", "Group:system:unauthenticated"],
        ),
        bind("kube1:node-bootstrapper", "ClusterRole/system:node-bootstrapper", &[&joining]),
        bind("kube1:node-autoapprove-bootstrap", &signing("nodeclient"), &[&joining]),
        bind("kube1:node-autoapprove-certificate-rotation", &signing("selfnodeclient"), &[nodes]),
        // Upstream leaves serving certificates to an administrator; here they are approved when the names fit the node.
        role("kube1:kubelet-serving-approver", &["certificates.k8s.io;signers;approve;kubernetes.io/kubelet-serving"]),
        bind(
            "kube1:kubelet-serving-approver",
            "ClusterRole/kube1:kubelet-serving-approver",
            &["ServiceAccount:kube-system/certificate-controller"],
        ),
    ]
}

fn role(name: &str, rules: &[&str]) -> BootObject {
    let mut object = json!({"apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": {"name": name}});
    mark_rbac(&mut object);
    object["rules"] = rules.iter().map(|text| rule(text)).collect();
    BootObject::new((RBAC, "clusterroles"), object)
}

/// Gives the role's rules to everybody who may view, edit or administer a namespace.
fn aggregated(mut role: BootObject) -> BootObject {
    for to in ["view", "edit", "admin"] {
        role.object["metadata"]["labels"][format!("{RBAC}/aggregate-to-{to}")] = "true".into();
    }
    role
}

fn bind(name: &str, role_ref: &str, subjects: &[&str]) -> BootObject {
    let mut object =
        json!({"apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name}});
    binding(&mut object, role_ref, subjects);
    BootObject::new((RBAC, "clusterrolebindings"), object)
}
