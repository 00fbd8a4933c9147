//! Quotas, budgets, volumes, tokens, certificates and nodes against a real API server.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota, Secret, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube1_pki::{PrivateKey, Subject, create_csr};
use serde_json::{Value, json};
use support::Cluster;

fn pod(name: &str, extra: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "100m"}}}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"metadata": {"name": name, "labels": {"app": "x"}}, "spec": spec})
}

async fn started(nodes: usize) -> Cluster {
    let cluster = Cluster::start(nodes).await;
    cluster.until_one::<ServiceAccount>("default", "default", |_| true).await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_counts_what_comes_and_goes() {
    let cluster = started(1).await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1", "requests.cpu": "1",
        "count/configmaps": "10", "services": "2"}}});
    cluster.create::<ResourceQuota>("default", quota).await;
    let used = |pods: &str, cpu: &str, maps: &str| {
        let wanted = json!({"pods": pods, "requests.cpu": cpu, "count/configmaps": maps, "services": "1"});
        move |q: &ResourceQuota| json!(q.status.as_ref().and_then(|s| s.used.clone())) == wanted
    };
    cluster.until_one::<ResourceQuota>("default", "q", used("0", "0", "1")).await;
    cluster.create::<Pod>("default", pod("a", json!({}))).await;
    cluster.create::<ConfigMap>("default", json!({"metadata": {"name": "m"}})).await;
    cluster.until_one::<ResourceQuota>("default", "q", used("1", "100m", "2")).await;
    let second = serde_json::from_value(pod("b", json!({}))).unwrap();
    let error = cluster.api::<Pod>("default").create(&PostParams::default(), &second).await.unwrap_err();
    assert!(error.to_string().contains("exceeded quota"), "{error}");
    cluster.api::<Pod>("default").delete("a", &DeleteParams::default()).await.unwrap();
    cluster.api::<ConfigMap>("default").delete("m", &DeleteParams::default()).await.unwrap();
    cluster.until_one::<ResourceQuota>("default", "q", used("0", "0", "1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_says_how_many_may_go() {
    let cluster = started(1).await;
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    cluster.create::<PodDisruptionBudget>("default", budget).await;
    let allowed = |n: i32| {
        move |b: &PodDisruptionBudget| {
            b.status.as_ref().is_some_and(|s| s.disruptions_allowed == Some(n) && s.current_healthy == Some(n + 1))
        }
    };
    for name in ["a", "b", "c"] {
        cluster.create::<Pod>("default", pod(name, json!({}))).await;
    }
    cluster.until_one::<PodDisruptionBudget>("default", "b", allowed(2)).await;
    cluster.api::<Pod>("default").delete("a", &DeleteParams::default()).await.unwrap();
    cluster.until_one::<PodDisruptionBudget>("default", "b", allowed(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_find_volumes_and_keep_them_while_used() {
    let cluster = started(1).await;
    let volumes = Api::<PersistentVolume>::all(cluster.client.clone());
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "", "hostPath": {"path": "/x"}}});
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "resources": {"requests": {"storage": "1Gi"}}}});
    cluster.create::<PersistentVolumeClaim>("default", claim).await;
    let mount = json!({"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]});
    cluster.create::<Pod>("default", pod("user", mount)).await;
    let phase = |p: &'static str| {
        move |c: &PersistentVolumeClaim| c.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(p)
    };
    cluster.until_one::<PersistentVolumeClaim>("default", "c", phase("Bound")).await;
    let running = |p: &Pod| p.status.as_ref().unwrap().phase.as_deref() == Some("Running");
    cluster.until_one::<Pod>("default", "user", running).await;
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    cluster.until_one::<PersistentVolumeClaim>("default", "c", |c| c.metadata.deletion_timestamp.is_some()).await;
    cluster.api::<Pod>("default").delete("user", &DeleteParams::default()).await.unwrap();
    cluster.until_gone::<PersistentVolumeClaim>("default", "c").await;
    wait(|| async { volumes.get("v").await.unwrap().status.unwrap().phase.as_deref() == Some("Released") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attribute_classes_stay_while_a_claim_wants_them() {
    let cluster = started(0).await;
    let classes = Api::<VolumeAttributesClass>::all(cluster.client.clone());
    for name in ["used", "unused"] {
        let class = json!({"metadata": {"name": name}, "driverName": "d", "parameters": {"iops": "1"}});
        classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    }
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "volumeAttributesClassName": "used", "resources": {"requests": {"storage": "1Gi"}}}});
    cluster.create::<PersistentVolumeClaim>("default", claim).await;
    let gone = |name: &'static str| {
        let classes = classes.clone();
        move || {
            let classes = classes.clone();
            async move { classes.get_opt(name).await.unwrap().is_none() }
        }
    };
    classes.delete("used", &DeleteParams::default()).await.unwrap();
    classes.delete("unused", &DeleteParams::default()).await.unwrap();
    wait(gone("unused")).await;
    assert!(!gone("used")().await);
    cluster.api::<PersistentVolumeClaim>("default").delete("c", &DeleteParams::default()).await.unwrap();
    wait(gone("used")).await;
}

async fn wait<Fut: Future<Output = bool>>(test: impl Fn() -> Fut) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !test().await {
        assert!(tokio::time::Instant::now() < deadline, "not reached");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_told_what_their_expressions_get_wrong() {
    let cluster = started(0).await;
    let api: Api<ValidatingAdmissionPolicy> = Api::all(cluster.client.clone());
    let rules =
        json!([{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}]);
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "object.spec.replicas > 1 && object.spec.template.spec.containers.all(c, c.image != '')"},
            {"expression": "object.spec.nope == 1"}]}});
    api.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
    let status = async || json!(api.get("p").await.unwrap().status);
    wait(async || status().await["observedGeneration"] == 1).await;
    let warning = "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'nope'\n | object.spec.nope == 1\n | ...........^\n";
    let expected = json!({"expressionWarnings": [{"fieldRef": "spec.validations[1].expression", "warning": warning}]});
    assert_eq!(status().await["typeChecking"], expected);
    let right = json!({"spec": {"validations": [{"expression": "object.spec.replicas > 1"}]}});
    api.patch("p", &PatchParams::default(), &Patch::Merge(right)).await.unwrap();
    wait(async || status().await["observedGeneration"] == 2).await;
    assert_eq!(status().await["typeChecking"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_kept_by_others_are_mirrored() {
    let cluster = started(0).await;
    cluster.create::<Service>("default", json!({"metadata": {"name": "ext"}, "spec": {"ports": [{"port": 80}]}})).await;
    let endpoints = json!({"metadata": {"name": "ext"}, "subsets": [{"addresses": [{"ip": "192.0.2.1"}],
        "ports": [{"port": 80}]}]});
    cluster.create::<Endpoints>("default", endpoints).await;
    let addresses = |want: &'static str| {
        move |slices: &[EndpointSlice]| {
            slices.len() == 1 && slices[0].endpoints.iter().flatten().any(|e| e.addresses == [want])
        }
    };
    let label = "kubernetes.io/service-name=ext";
    cluster.until::<EndpointSlice>("default", label, addresses("192.0.2.1")).await;
    let patch = json!({"subsets": [{"addresses": [{"ip": "192.0.2.2"}], "ports": [{"port": 80}]}]});
    let api = cluster.api::<Endpoints>("default");
    api.patch("ext", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    cluster.until::<EndpointSlice>("default", label, addresses("192.0.2.2")).await;
    api.delete("ext", &DeleteParams::default()).await.unwrap();
    cluster.until::<EndpointSlice>("default", label, |slices| slices.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_secrets_are_filled_and_go_with_their_account() {
    let cluster = started(0).await;
    cluster.create::<ServiceAccount>("default", json!({"metadata": {"name": "robot"}})).await;
    let secret = json!({"metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token"});
    cluster.create::<Secret>("default", secret).await;
    let full = |s: &Secret| s.data.as_ref().is_some_and(|d| d.contains_key("token") && d.contains_key("ca.crt"));
    cluster.until_one::<Secret>("default", "t", full).await;
    cluster.api::<ServiceAccount>("default").delete("robot", &DeleteParams::default()).await.unwrap();
    cluster.until_gone::<Secret>("default", "t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_get_ranges_certificates_and_lose_their_pods() {
    let cluster = started(2).await;
    let nodes = Api::<Node>::all(cluster.client.clone());
    wait(|| async { nodes.get("node-1").await.unwrap().spec.and_then(|s| s.pod_cidr).is_some() }).await;

    let key = PrivateKey::generate().unwrap();
    let pem = create_csr(&Subject::new("system:node:node-1", &["system:nodes"]), &[], &key).unwrap();
    let request = json!({"metadata": {"name": "renewal"}, "spec": {"request": k8s_openapi::ByteString(pem.into_bytes()),
        "signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": ["digital signature", "client auth"]}});
    let requests = cluster.as_node::<CertificateSigningRequest>("node-1");
    requests.create(&PostParams::default(), &serde_json::from_value(request).unwrap()).await.unwrap();
    wait(|| async { requests.get("renewal").await.unwrap().status.is_some_and(|s| s.certificate.is_some()) }).await;

    let impatient = json!({"tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists",
        "effect": "NoExecute", "tolerationSeconds": 0}], "nodeName": "node-1"});
    cluster.create::<Pod>("default", pod("victim", impatient)).await;
    let running = |p: &Pod| p.status.as_ref().unwrap().phase.as_deref() == Some("Running");
    cluster.until_one::<Pod>("default", "victim", running).await;
    let silent = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    nodes.patch_status("node-1", &PatchParams::default(), &Patch::Strategic(silent)).await.unwrap();
    cluster.until_gone::<Pod>("default", "victim").await;
    let taints = nodes.get("node-1").await.unwrap().spec.unwrap().taints.unwrap();
    assert!(taints.iter().any(|t| t.key == "node.kubernetes.io/unreachable" && t.effect == "NoExecute"));
}
