use serde_json::json;

use super::super::tests::World;
use super::*;
use crate::authz::Decision;
use crate::request_info::RequestInfo;
use crate::user::UserInfo;

/// Allows nothing.
struct Nobody;

#[async_trait]
impl Authorizer for Nobody {
    async fn authorize(&self, _: &UserInfo, _: &RequestInfo) -> Decision {
        Decision::NoOpinion(String::new())
    }
}

async fn judge(world: &World, mut attributes: Attributes) -> Result<(), String> {
    let plugin = NodeRestriction::new(world.reader.clone(), Arc::new(Nobody));
    attributes.user = UserInfo::authenticated("system:node:n", &[NODES]).into();
    plugin.mutate(&mut attributes).await.map_err(|status| status.message().to_owned())
}

fn update(world: &World, plural: &str, sub: &str, old: Value, new: Value) -> Attributes {
    let attributes = world.request(Operation::Update, "", plural, new);
    Attributes { old: Some(old), subresource: sub.into(), ..attributes }
}

#[tokio::test]
async fn a_node_writes_itself_but_not_its_taints_or_foreign_labels() {
    let world = World::new().await;
    let node = |name: &str, labels: Value, taints: Value| json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}});
    let plain = node("n", json!({"kubernetes.io/os": "linux", "own": "1"}), json!(null));
    judge(&world, world.create("", "nodes", plain.clone())).await.unwrap();
    for (new, expected) in [
        (node("m", json!({}), json!(null)), "is not allowed to modify node \"m\""),
        (
            node("n", json!({"node-role.kubernetes.io/master": ""}), json!(null)),
            "labels: node-role.kubernetes.io/master",
        ),
        (node("n", json!({"a.node-restriction.kubernetes.io/x": "1"}), json!(null)), "node-restriction"),
    ] {
        let why = judge(&world, world.create("", "nodes", new)).await.unwrap_err();
        assert!(why.contains(expected), "{why}");
    }
    let mut told = plain.clone();
    told["spec"]["configSource"] = json!({"configMap": {"name": "c"}});
    let why = judge(&world, world.create("", "nodes", told.clone())).await.unwrap_err();
    assert!(why.contains("non-nil configSource"), "{why}");
    let why = judge(&world, update(&world, "nodes", "", plain.clone(), told.clone())).await.unwrap_err();
    assert!(why.contains("to a new non-nil configSource"), "{why}");
    judge(&world, update(&world, "nodes", "status", told.clone(), told)).await.unwrap();
    let same = update(&world, "nodes", "status", plain.clone(), plain.clone());
    judge(&world, same).await.unwrap();
    let tainted = node("n", json!({"kubernetes.io/os": "linux", "own": "2"}), json!([{"key": "x"}]));
    let why = judge(&world, update(&world, "nodes", "", plain, tainted)).await.unwrap_err();
    assert!(why.contains("not allowed to modify taints"), "{why}");
}

#[tokio::test]
async fn pods_are_the_nodes_own_or_mirrors() {
    let world = World::new().await;
    let pod = |node: &str| json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"nodeName": node}});
    world.put("", "nodes", json!({"metadata": {"name": "n", "uid": "u"}})).await;
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true});
    let owned = |owners: Value, spec: Value| {
        let metadata = json!({"name": "p", "annotations": {MIRROR: "x"}, "ownerReferences": owners});
        json!({"metadata": metadata, "spec": spec})
    };
    let owned_by = |key: &str, value: Value| {
        let mut owner = owner.clone();
        owner[key] = value;
        owned(json!([owner]), json!({"nodeName": "n"}))
    };
    let mirror = |spec: Value| owned(json!([owner]), spec);
    judge(&world, world.create("", "pods", mirror(json!({"nodeName": "n"})))).await.unwrap();
    for (object, expected) in [
        (pod("n"), "can only create mirror pods"),
        (mirror(json!({"nodeName": "m"})), "with spec.nodeName set to itself"),
        (mirror(json!({"nodeName": "n", "serviceAccountName": "x"})), "reference a service account"),
        (mirror(json!({"nodeName": "n", "volumes": [{"secret": {"secretName": "s"}}]})), "reference secrets"),
        (owned(json!(null), json!({"nodeName": "n"})), "with an owner reference set to itself"),
        (owned(json!([owner, owner]), json!({"nodeName": "n"})), "a single owner reference"),
        (owned_by("name", "m".into()), "with an owner reference set to itself"),
        (owned_by("uid", "old".into()), "node n UID mismatch: expected old got u"),
        (owned_by("controller", false.into()), "a controller owner reference"),
        (owned_by("blockOwnerDeletion", true.into()), "must not set blockOwnerDeletion"),
    ] {
        let why = judge(&world, world.create("", "pods", object)).await.unwrap_err();
        assert!(why.contains(expected), "{why}");
    }
    judge(&world, update(&world, "pods", "status", pod("n"), pod("n"))).await.unwrap();
    judge(&world, update(&world, "pods", "status", pod("m"), pod("m"))).await.unwrap_err();
    judge(&world, update(&world, "pods", "", pod("n"), pod("n"))).await.unwrap_err();
    let delete =
        |node: &str| Attributes { old: Some(pod(node)), ..world.request(Operation::Delete, "", "pods", pod(node)) };
    judge(&world, delete("n")).await.unwrap();
    judge(&world, delete("m")).await.unwrap_err();
    let why = judge(&world, world.create("", "persistentvolumeclaims", json!({}))).await.unwrap_err();
    assert!(why.ends_with("may only update PVC status"), "{why}");
}

#[tokio::test]
async fn tokens_are_for_pods_of_the_node() {
    let world = World::new().await;
    let sources = json!([{"serviceAccountToken": {"audience": "vault", "path": "t"}}]);
    for (name, node) in [("p", "n"), ("q", "m")] {
        let spec = json!({"nodeName": node, "serviceAccountName": "default", "volumes": [{"projected": {"sources": sources}}]});
        world.put("", "pods", json!({"metadata": {"namespace": "ns", "name": name, "uid": name}, "spec": spec})).await;
    }
    let ask = |spec: Value| Attributes {
        subresource: "token".into(),
        name: "default".into(),
        ..world.create("", "serviceaccounts", json!({ "spec": spec }))
    };
    let bound = |name: &str, uid: &str, audiences: Value| json!({"audiences": audiences, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}});
    judge(&world, ask(bound("p", "p", json!([])))).await.unwrap();
    judge(&world, ask(bound("p", "p", json!(["vault"])))).await.unwrap();
    for (spec, expected) in [
        (json!({}), "not bound to a pod"),
        (bound("p", "", json!([])), "without a uid"),
        (bound("p", "old", json!([])), "does not match the UID in record"),
        (bound("q", "q", json!([])), "scheduled on a different node"),
        (bound("p", "p", json!(["other"])), "audience \"other\" not found"),
    ] {
        let why = judge(&world, ask(spec)).await.unwrap_err();
        assert!(why.contains(expected), "{why}");
    }
}

#[tokio::test]
async fn leases_and_csi_nodes_have_the_nodes_name() {
    let world = World::new().await;
    let lease = |namespace: &str, name: &str| Attributes {
        namespace: namespace.into(),
        ..world.create("coordination.k8s.io", "leases", json!({"metadata": {"name": name}}))
    };
    judge(&world, lease("kube-node-lease", "n")).await.unwrap();
    judge(&world, lease("kube-node-lease", "m")).await.unwrap_err();
    judge(&world, lease("default", "n")).await.unwrap_err();
    let csi = |name: &str| world.create("storage.k8s.io", "csinodes", json!({"metadata": {"name": name}}));
    judge(&world, csi("n")).await.unwrap();
    judge(&world, csi("m")).await.unwrap_err();
}
