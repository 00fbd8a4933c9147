use serde_json::json;

use super::*;
use crate::reader::testing::Objects;

impl NodeState for Objects {
    fn pods_on(&self, node: &str) -> Vec<PodStamp> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let pods = self.all("pods").into_iter().filter(|pod| pod["spec"]["nodeName"] == node);
        pods.map(|pod| PodStamp {
            namespace: text(&pod["metadata"]["namespace"]),
            name: text(&pod["metadata"]["name"]),
            uid: text(&pod["metadata"]["uid"]),
            revision: pod["metadata"]["generation"].as_u64().unwrap_or_default(),
        })
        .collect()
    }
}

fn pod(name: &str, node: &str, generation: i64, secret: &str) -> serde_json::Value {
    json!({"metadata": {"namespace": "a", "name": name, "uid": name, "generation": generation},
        "spec": {"nodeName": node, "serviceAccountName": "default", "volumes": [{"secret": {"secretName": secret}},
            {"persistentVolumeClaim": {"claimName": "data"}}, {"persistentVolumeClaim": {"claimName": "stolen"}}]}})
}

fn cluster() -> Arc<Objects> {
    let objects = Arc::new(Objects::default());
    objects.put("pods", pod("p", "n", 1, "mine"));
    objects.put("pods", pod("q", "m", 1, "theirs"));
    objects.put(
        "persistentvolumeclaims",
        json!({"metadata": {"namespace": "a", "name": "data"}, "spec": {"volumeName": "pv"}}),
    );
    let csi = json!({"nodeStageSecretRef": {"namespace": "storage", "name": "key"},
        "controllerPublishSecretRef": {"namespace": "storage", "name": "controllers"}});
    objects.put(
        "persistentvolumes",
        json!({"metadata": {"name": "pv"},
        "spec": {"csi": csi, "claimRef": {"namespace": "a", "name": "data"}}}),
    );
    // A claim that names the volume of another.
    objects.put(
        "persistentvolumeclaims",
        json!({"metadata": {"namespace": "a", "name": "stolen"}, "spec": {"volumeName": "foreign"}}),
    );
    let csi = json!({"nodeStageSecretRef": {"namespace": "storage", "name": "foreign"}});
    objects.put(
        "persistentvolumes",
        json!({"metadata": {"name": "foreign"},
        "spec": {"csi": csi, "claimRef": {"namespace": "b", "name": "stolen"}}}),
    );
    objects.put("volumeattachments", json!({"metadata": {"name": "va"}, "spec": {"nodeName": "n"}}));
    objects
}

/// `verb group/resource[/sub] namespace/name [fieldSelector]`
fn request(text: &str) -> RequestInfo {
    let parts: Vec<&str> = text.split(' ').collect();
    let (group, path) = parts[1].split_once('/').unwrap_or_default();
    let (resource, subresource) = path.split_once('/').unwrap_or((path, ""));
    let (namespace, name) = parts[2].split_once('/').unwrap_or_default();
    RequestInfo {
        is_resource: true,
        verb: parts[0].into(),
        group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        field_selector: parts.get(3).copied().unwrap_or_default().into(),
        ..RequestInfo::default()
    }
}

#[tokio::test]
async fn a_kubelet_reaches_what_its_pods_use() {
    let authorizer = NodeAuthorizer::new(cluster());
    let kubelet = UserInfo::authenticated("system:node:n", &[NODES]);
    for (text, allowed) in [
        ("get /secrets a/mine", true),
        ("watch /secrets a/mine", true),
        ("get /secrets a/theirs", false),
        ("get /secrets b/mine", false),
        ("list /secrets a/", false),
        ("delete /secrets a/mine", false),
        ("get /secrets storage/key", true),
        ("get /secrets storage/controllers", false),
        ("get /secrets storage/foreign", false),
        ("get /persistentvolumes /foreign", false),
        ("get /persistentvolumes /pv", true),
        ("get /persistentvolumes /other", false),
        ("get /persistentvolumeclaims a/data", true),
        ("patch /persistentvolumeclaims/status a/data", true),
        ("patch /persistentvolumeclaims a/data", false),
        ("get storage.k8s.io/volumeattachments /va", true),
        ("create /serviceaccounts/token a/default", true),
        ("create /serviceaccounts/token kube-system/default", false),
        ("get /nodes /n", true),
        ("get /nodes /m", false),
        ("list /nodes /", false),
        ("watch /nodes /n metadata.name=n", true),
        ("patch /nodes/status /n", true),
        ("create /nodes /", true),
        ("update coordination.k8s.io/leases kube-node-lease/n", true),
        ("update coordination.k8s.io/leases kube-node-lease/m", false),
        ("create coordination.k8s.io/leases default/n", false),
        ("get storage.k8s.io/csinodes /n", true),
        ("get storage.k8s.io/csinodes /m", false),
        ("list /pods / spec.nodeName=n", true),
        ("list /pods / spec.nodeName=m", false),
        ("list /pods /", false),
        ("get /pods a/p", true),
        ("get /pods a/q", false),
        ("patch /pods/status a/p", true),
        ("create certificates.k8s.io/certificatesigningrequests /", true),
        ("create /events a/", true),
        ("list /services /", true),
        ("delete /services a/x", false),
    ] {
        let decision = authorizer.authorize(&kubelet, &request(text)).await;
        assert_eq!(decision == Decision::Allow, allowed, "{text}: {decision:?}");
    }
    let other = UserInfo::authenticated("system:node:n", &[]);
    assert_eq!(authorizer.authorize(&other, &request("get /secrets a/mine")).await, Decision::NoOpinion(String::new()));
}

#[tokio::test]
async fn permissions_follow_the_pods() {
    let objects = cluster();
    let authorizer = NodeAuthorizer::new(objects.clone());
    let kubelet = UserInfo::authenticated("system:node:n", &[NODES]);
    let may = async |text: &str| authorizer.authorize(&kubelet, &request(text)).await == Decision::Allow;
    assert!(may("get /secrets a/mine").await);
    objects.put("pods", pod("p", "n", 2, "new"));
    assert!(may("get /secrets a/new").await && !may("get /secrets a/mine").await);
    objects.remove("pods", "a", "p");
    assert!(!may("get /secrets a/new").await);
    assert!(authorizer.known.lock().is_empty(), "nothing is kept for a node without pods");
}
