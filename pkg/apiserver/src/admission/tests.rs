use kube1_api::resource::ResourceTable;
use kube1_store::EmbeddedStore;
use serde_json::{Value, json};

use super::*;
use crate::authz::Decision;
use crate::request_info::RequestInfo;
use crate::user::UserInfo;

/// A server's storage with plugins over it.
pub(super) struct World {
    pub table: ResourceTable,
    pub storage: Storage,
    pub reader: Arc<StorageReader>,
    _dir: tempfile::TempDir,
}

/// Lets alice approve for one signer.
struct Alice;

#[async_trait]
impl Authorizer for Alice {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        let allowed = user.name == "alice" && request.verb == "approve" && request.name == "example.com/*";
        if allowed { Decision::Allow } else { Decision::NoOpinion(String::new()) }
    }
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(&dir.path().join("db")).unwrap());
        let table = ResourceTable::builtin();
        let storage = Storage::open(store, &table, None).await.unwrap();
        let reader = Arc::new(StorageReader::new(&storage, &table));
        let world = Self { table, storage, reader, _dir: dir };
        world.put("", "namespaces", json!({"metadata": {"name": "ns"}, "status": {"phase": "Active"}})).await;
        world.put("", "serviceaccounts", json!({"metadata": {"namespace": "ns", "name": "default"}})).await;
        world
    }

    pub async fn put(&self, group: &str, plural: &str, mut object: Value) {
        let row = self.table.stored(group, plural).unwrap();
        object["apiVersion"] = row.api_version().into();
        object["kind"] = row.kind.clone().into();
        self.storage.collection(&row).create(object).await.unwrap();
    }

    pub fn request(&self, operation: Operation, group: &str, plural: &str, object: Value) -> Attributes {
        let row = self.table.stored(group, plural).unwrap();
        let namespace = if row.namespaced { "ns" } else { "" };
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let user = UserInfo::authenticated("alice", &[]);
        Attributes { object: Some(object), ..Attributes::new(user, row, operation, namespace, &name) }
    }

    pub fn create(&self, group: &str, plural: &str, object: Value) -> Attributes {
        self.request(Operation::Create, group, plural, object)
    }

    pub fn configured(&self) -> Configured {
        let table = Arc::new(ArcSwap::from_pointee(self.table.clone()));
        let resolver = Resolver::new(&self.storage, &self.table).unwrap();
        let (reader, storage) = (self.reader.clone(), self.storage.clone());
        let metrics = crate::metrics::AdmissionMetrics::new(&mut crate::metrics::Registrar::default());
        let credentials = Default::default();
        Configured { reader, storage, table, resolver, authorizer: Arc::new(Alice), metrics, credentials }
    }

    fn admission(&self) -> Admission {
        let authorizer: Arc<dyn Authorizer> = Arc::new(Alice);
        Admission::new(default_plugins(&self.reader, &authorizer, &PluginConfig::default()))
    }

    /// The object after admission, or the refusal.
    pub async fn admit(&self, attributes: Attributes) -> Result<Value, Status> {
        self.admit_by(&self.admission(), attributes).await
    }

    /// The same with plugins of one's choice.
    pub async fn admit_by(&self, admission: &Admission, mut attributes: Attributes) -> Result<Value, Status> {
        admission.mutate(&mut attributes).await?;
        admission.validate(&mut attributes).await?;
        Ok(attributes.object.unwrap_or_default())
    }
}

#[tokio::test]
async fn namespaces_must_exist_and_stay() {
    let world = World::new().await;
    world.put("", "namespaces", json!({"metadata": {"name": "going"}, "status": {"phase": "Terminating"}})).await;
    let in_namespace = |operation, namespace: &str| Attributes {
        namespace: namespace.into(),
        ..world.request(operation, "", "configmaps", json!({"metadata": {"name": "a"}}))
    };
    for (operation, namespace, code, message) in [
        (Operation::Create, "none", 404, "namespaces \"none\" not found"),
        (
            Operation::Create,
            "going",
            403,
            "configmaps \"a\" is forbidden: unable to create new content in namespace going because it is being terminated",
        ),
        (Operation::Update, "none", 404, "namespaces \"none\" not found"),
    ] {
        let error = world.admit(in_namespace(operation, namespace)).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (code, message));
    }
    for (operation, namespace) in [(Operation::Create, "ns"), (Operation::Update, "going"), (Operation::Delete, "none")]
    {
        world.admit(in_namespace(operation, namespace)).await.unwrap();
    }
    let delete = world.request(Operation::Delete, "", "namespaces", json!({"metadata": {"name": "kube-system"}}));
    assert_eq!(world.admit(delete).await.unwrap_err().code(), 403);
}

#[tokio::test]
async fn pods_are_completed() {
    let world = World::new().await;
    let class = |name: &str, value: i64, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default, "preemptionPolicy": "Never"});
    world.put("scheduling.k8s.io", "priorityclasses", class("high", 100, false)).await;
    let pod = world.admit(world.create("", "pods", json!({"metadata": {"name": "p"}, "spec": {}}))).await.unwrap();
    assert_eq!(
        (&pod["spec"]["priority"], &pod["spec"]["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
    world.put("scheduling.k8s.io", "priorityclasses", class("usual", 7, true)).await;
    world
        .put(
            "node.k8s.io",
            "runtimeclasses",
            json!({"metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "1"}},
                "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}}),
        )
        .await;
    world.put("", "nodes", json!({"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}}})).await;
    let body = json!({"metadata": {"name": "p"}, "spec": {"runtimeClassName": "vm", "nodeName": "n",
        "serviceAccount": "default", "serviceAccountName": "default", "tolerations": [{"operator": "Exists"}]}});
    let pod = world.admit(world.create("", "pods", body)).await.unwrap();
    assert_eq!(
        pod,
        json!({"metadata": {"name": "p", "labels": {"topology.kubernetes.io/zone": "z"}},
            "spec": {"runtimeClassName": "vm", "nodeName": "n", "serviceAccount": "default",
                "serviceAccountName": "default", "priorityClassName": "usual", "priority": 7,
                "preemptionPolicy": "Never", "overhead": {"cpu": "1"}, "nodeSelector": {"vm": "yes"},
                "tolerations": [{"operator": "Exists"}]}})
    );
    for (spec, part) in [
        (json!({"priorityClassName": "none"}), "no PriorityClass with name none was found"),
        (json!({"priorityClassName": "high", "priority": 5}), "priority (5) must not be provided"),
        (json!({"runtimeClassName": "none"}), "RuntimeClass \"none\" not found"),
        (json!({"overhead": {"cpu": "1"}}), "overhead set without corresponding RuntimeClass"),
        (json!({"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}}), "conflict: runtimeClass"),
    ] {
        let request = world.create("", "pods", json!({"metadata": {"name": "p"}, "spec": spec}));
        let error = world.admit(request).await.unwrap_err();
        assert!(error.code() == 403 && error.message().to_lowercase().contains(&part.to_lowercase()), "{error}");
    }
    let second = world.create("scheduling.k8s.io", "priorityclasses", class("other", 1, true));
    assert!(world.admit(second).await.unwrap_err().message().contains("usual is already marked as default"));
    let node = world.admit(world.create("", "nodes", json!({"metadata": {"name": "m"}}))).await.unwrap();
    assert_eq!(node["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
}

#[tokio::test]
async fn claims_get_the_newest_default_class_and_grow_only_by_it() {
    let world = World::new().await;
    for (name, created, grows) in [("old", "2026-01-01T00:00:00Z", false), ("new", "2026-02-01T00:00:00Z", true)] {
        let annotations = json!({"storageclass.kubernetes.io/is-default-class": "true"});
        let class = json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": annotations},
            "allowVolumeExpansion": grows});
        world.put("storage.k8s.io", "storageclasses", class).await;
    }
    let claim = |class: Value, size: &str| {
        json!({"metadata": {"name": "c"}, "status": {"phase": "Bound"},
            "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}})
    };
    let made = world.create("", "persistentvolumeclaims", json!({"metadata": {"name": "c"}, "spec": {}}));
    let made = world.admit(made).await.unwrap();
    assert_eq!(made["spec"]["storageClassName"], "new");
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let chosen = world.admit(world.create("", "persistentvolumeclaims", claim("".into(), "1Gi"))).await.unwrap();
    assert_eq!(chosen["spec"]["storageClassName"], "");
    for (class, size, allowed) in [("new", "2Gi", true), ("old", "2Gi", false), ("old", "1024Mi", true)] {
        let update = world.request(Operation::Update, "", "persistentvolumeclaims", claim(class.into(), size));
        let update = Attributes { old: Some(claim(class.into(), "1Gi")), ..update };
        assert_eq!(world.admit(update).await.is_ok(), allowed, "{class} {size}");
    }
}

#[tokio::test]
async fn signers_are_guarded() {
    let world = World::new().await;
    let requests = "certificatesigningrequests";
    let request = |signer: &str| json!({"metadata": {"name": "c"}, "spec": {"signerName": signer}});
    for (subresource, signer, allowed) in
        [("approval", "example.com/x", true), ("approval", "other.com/x", false), ("status", "example.com/x", false)]
    {
        let mut signed = request(signer);
        signed["status"]["certificate"] = "Zm9v".into();
        let update = world.request(Operation::Update, "certificates.k8s.io", requests, signed);
        let update = Attributes { subresource: subresource.into(), old: Some(request(signer)), ..update };
        assert_eq!(world.admit(update).await.is_ok(), allowed, "{subresource} {signer}");
    }
}

#[test]
fn plugins_come_in_upstreams_order() {
    let plugins: Vec<Arc<dyn Plugin>> = vec![
        Arc::new(CertificateSubjectRestriction),
        Arc::new(DefaultTolerationSeconds),
        Arc::new(TaintNodesByCondition),
    ];
    let names: Vec<&str> = in_order(plugins).iter().map(|p| p.name()).collect();
    assert_eq!(names, ["TaintNodesByCondition", "DefaultTolerationSeconds", "CertificateSubjectRestriction"]);
}

#[tokio::test]
async fn pods_get_an_account_and_its_token() {
    let world = World::new().await;
    let account = json!({"metadata": {"namespace": "ns", "name": "robot"}, "imagePullSecrets": [{"name": "pull"}]});
    world.put("", "serviceaccounts", account).await;
    let quiet = json!({"metadata": {"namespace": "ns", "name": "quiet"}, "automountServiceAccountToken": false});
    world.put("", "serviceaccounts", quiet).await;
    let pod = |account: &str| {
        let own = json!([{"name": "x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
        let containers = json!([{"name": "a"}, {"name": "b", "volumeMounts": own}]);
        world.create(
            "",
            "pods",
            json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": account, "containers": containers}}),
        )
    };
    let made = world.admit(pod("robot")).await.unwrap();
    let volume = made["spec"]["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21);
    assert_eq!(made["spec"]["containers"][0]["volumeMounts"][0]["name"], volume);
    assert_eq!(made["spec"]["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    let again = Attributes { object: Some(made.clone()), ..pod("robot") };
    assert_eq!(world.admit(again).await.unwrap(), made, "a second look changes nothing");
    assert!(world.admit(pod("quiet")).await.unwrap()["spec"].get("volumes").is_none());
    assert_eq!(world.admit(pod("")).await.unwrap()["spec"]["serviceAccountName"], "default");
    let error = world.admit(pod("nobody")).await.unwrap_err();
    assert!(error.message().contains("error looking up service account ns/nobody"), "{error}");
    let mut mirror = pod("robot");
    mirror.object.as_mut().unwrap()["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x".into();
    assert!(
        world.admit(mirror).await.unwrap_err().message().contains("a mirror pod may not reference service accounts")
    );
}

#[tokio::test]
async fn namespaces_choose_how_safe_pods_must_be() {
    let world = World::new().await;
    for level in ["baseline", "restricted"] {
        let labels =
            json!({"pod-security.kubernetes.io/enforce": level, "pod-security.kubernetes.io/warn": "restricted"});
        world.put("", "namespaces", json!({"metadata": {"name": level, "labels": labels}})).await;
        world.put("", "serviceaccounts", json!({"metadata": {"namespace": level, "name": "default"}})).await;
    }
    let pod = |namespace: &str, spec: Value| Attributes {
        namespace: namespace.into(),
        ..world.create("", "pods", json!({"metadata": {"name": "p"}, "spec": spec}))
    };
    let plain = json!({"containers": [{"name": "c"}], "automountServiceAccountToken": false});
    let error = world.admit(pod("restricted", plain.clone())).await.unwrap_err();
    assert_eq!(
        error.message(),
        "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"c\" \
         must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
         securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
         securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type \
         to \"RuntimeDefault\" or \"Localhost\")"
    );
    let safe = json!({"containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}}]});
    world.admit(pod("restricted", safe)).await.unwrap();
    world.admit(pod("ns", json!({"hostNetwork": true, "containers": [{"name": "c"}]}))).await.unwrap();
    for (spec, text) in [
        (json!({"hostPID": true, "containers": []}), "host namespaces (hostPID=true)"),
        (json!({"volumes": [{"name": "v", "hostPath": {}}]}), "hostPath volumes (volume \"v\")"),
        (
            json!({"containers": [{"name": "c", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]}),
            "non-default capabilities (container \"c\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            json!({"containers": [{"name": "c", "ports": [{"hostPort": 80}]}]}),
            "hostPort (container \"c\" uses hostPort 80)",
        ),
        (json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}), "forbidden sysctls (kernel.msgmax)"),
        (json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}), "seccompProfile (pod must not set"),
        (
            json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}]}),
            "privileged (container \"c\" must not",
        ),
    ] {
        let error = world.admit(pod("baseline", spec)).await.unwrap_err();
        assert!(error.message().contains(text), "{error}");
    }
    let mut warned = pod("baseline", plain);
    world.admission().validate(&mut warned).await.unwrap();
    assert!(
        warned.warnings[0].starts_with("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation")
    );
    let labels = json!({"pod-security.kubernetes.io/enforce": "strict"});
    let namespace = world.create("", "namespaces", json!({"metadata": {"name": "x", "labels": labels}}));
    assert_eq!(world.admit(namespace).await.unwrap_err().code(), 422);
}

#[tokio::test]
async fn quotas_are_charged_and_hold() {
    let world = World::new().await;
    let status =
        |used: &str| json!({"hard": {"pods": "2", "requests.cpu": "1"}, "used": {"pods": "0", "requests.cpu": used}});
    let quota = |name: &str, spec: Value| json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec, "status": status("0")});
    let hard = json!({"pods": "2", "requests.cpu": "1"});
    world.put("", "resourcequotas", quota("q", json!({"hard": hard}))).await;
    world.put("", "resourcequotas", quota("scoped", json!({"hard": hard, "scopes": ["BestEffort"]}))).await;
    let pod = |cpu: Value| {
        let containers = json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
        world.create("", "pods", json!({"metadata": {"name": "p"}, "spec": {"containers": containers}}))
    };
    let used = |name: &str| {
        let quotas = world.reader.collection("", "resourcequotas").unwrap();
        quotas.get("ns", name).unwrap().value()["status"]["used"].clone()
    };
    world.admit(Attributes { dry_run: true, ..pod("600m".into()) }).await.unwrap();
    world.admit(pod("600m".into())).await.unwrap();
    assert_eq!(used("q"), json!({"pods": "1", "requests.cpu": "600m"}));
    assert_eq!(used("scoped")["pods"], "0");
    let error = world.admit(pod("500m".into())).await.unwrap_err();
    assert_eq!(
        error.message(),
        "pods \"p\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"
    );
    assert_eq!(used("q")["pods"], "1", "a refusal charges nothing");
    let error = world.admit(pod(Value::Null)).await.unwrap_err();
    assert!(error.message().contains("failed quota: q: must specify requests.cpu for: c"), "{error}");
    let map = || world.create("", "configmaps", json!({"metadata": {"name": "m"}}));
    let hard = json!({"count/configmaps": "1", "configmaps": "1", "pods": "0"});
    let uncounted = |name: &str, status: Value| json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"hard": hard}, "status": status});
    world.put("", "resourcequotas", uncounted("new", json!({}))).await;
    world.admit(map()).await.unwrap();
    world.put("", "resourcequotas", uncounted("half", json!({"hard": hard, "used": {"configmaps": "0"}}))).await;
    assert_eq!(
        world.admit(map()).await.unwrap_err().message(),
        "configmaps \"m\" is forbidden: status unknown for quota: half, resources: configmaps,count/configmaps"
    );
}

#[tokio::test]
async fn quotas_count_what_changes() {
    let world = World::new().await;
    let quota = |name: &str, key: &str, spec: Value| {
        json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec,
            "status": {"hard": {key: "4"}, "used": {key: "1"}}})
    };
    let gold = json!({"scopeSelector": {"matchExpressions": [
        {"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["gold"]}]}});
    world.put("", "resourcequotas", quota("gold", "requests.storage", gold)).await;
    world.put("", "resourcequotas", quota("devices", "gpu.deviceclass.resource.k8s.io/devices", json!({}))).await;
    world.put("", "resourcequotas", quota("ports", "services.nodeports", json!({}))).await;
    let used = |name: &str| {
        let quotas = world.reader.collection("", "resourcequotas").unwrap();
        let used = quotas.get("ns", name).unwrap().value()["status"]["used"].clone();
        used.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    };
    let claim = |class: &str, size: &str| {
        json!({"metadata": {"name": "c"}, "spec": {"volumeAttributesClassName": class,
            "resources": {"requests": {"storage": size}}}, "status": {"phase": "Bound"}})
    };
    let service =
        |ty: &str| json!({"metadata": {"name": "s"}, "spec": {"type": ty, "ports": [{"port": 1}, {"port": 2}]}});
    let devices = |alternatives: Value| json!({"metadata": {"name": "d"}, "spec": {"devices": {"requests": [{"firstAvailable": alternatives}]}}});
    let update = |plural: &str, old: Value, new: Value| Attributes {
        old: Some(old),
        ..world.request(Operation::Update, "", plural, new)
    };
    let claims = "persistentvolumeclaims";
    let two_or_three = json!([{"deviceClassName": "gpu", "count": 2}, {"deviceClassName": "gpu", "count": 3}]);
    for (request, quota, expected) in [
        // Into the scope: all of it; within it: what it grows by.
        (update(claims, claim("silver", "2"), claim("gold", "2")), "gold", Ok("3")),
        (update(claims, claim("gold", "2"), claim("gold", "2")), "gold", Ok("3")),
        (
            world.create("", claims, claim("gold", "2")),
            "gold",
            Err("requested: requests.storage=2, used: requests.storage=3, limited: requests.storage=4"),
        ),
        (world.create("", claims, claim("silver", "9")), "gold", Ok("3")),
        (update("services", service("ClusterIP"), service("NodePort")), "ports", Ok("3")),
        (update("services", service("NodePort"), service("ClusterIP")), "ports", Ok("1")),
        (world.create("resource.k8s.io", "resourceclaims", devices(two_or_three.clone())), "devices", Ok("4")),
        (
            world.create(
                "resource.k8s.io",
                "resourceclaims",
                devices(json!([{"deviceClassName": "gpu", "allocationMode": "All"}])),
            ),
            "devices",
            Err(
                "requested: gpu.deviceclass.resource.k8s.io/devices=32, used: gpu.deviceclass.resource.k8s.io/devices=4, \
                limited: gpu.deviceclass.resource.k8s.io/devices=4",
            ),
        ),
    ] {
        let result = world.admit(request).await;
        match expected {
            Ok(amount) => {
                result.unwrap();
                assert_eq!(used(quota), amount, "{quota}");
            }
            Err(why) => assert!(result.unwrap_err().message().ends_with(why), "{quota}"),
        }
    }
}

#[tokio::test]
async fn limit_ranges_complete_and_bound_pods() {
    let world = World::new().await;
    let limits =
        json!([{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}, "max": {"cpu": "1"}}]);
    world
        .put("", "limitranges", json!({"metadata": {"namespace": "ns", "name": "l"}, "spec": {"limits": limits}}))
        .await;
    let pod = |resources: Value| {
        world.create(
            "",
            "pods",
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}}),
        )
    };
    let made = world.admit(pod(json!({}))).await.unwrap();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let error = world.admit(pod(json!({"limits": {"cpu": "2"}}))).await.unwrap_err();
    assert_eq!(error.message(), "pods \"p\" is forbidden: maximum cpu usage per Container is 1, but limit is 2");
}

#[tokio::test]
async fn policies_judge_and_change() {
    let world = World::new().await;
    let group = "admissionregistration.k8s.io";
    let constraints = json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"],
        "resources": ["deployments"]}]});
    let policy = json!({"metadata": {"name": "limit"}, "spec": {"matchConstraints": constraints,
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [{"name": "most", "expression": "int(params.data.most)"}],
        "validations": [{"expression": "object.spec.replicas <= variables.most", "reason": "Forbidden",
            "messageExpression": "'at most ' + string(variables.most)"}]}});
    world.put(group, "validatingadmissionpolicies", policy).await;
    world
        .put("", "configmaps", json!({"metadata": {"namespace": "ns", "name": "params"}, "data": {"most": "3"}}))
        .await;
    let bound = |name: &str, policy: &str, more: Value| {
        let mut binding = json!({"metadata": {"name": name}, "spec": {"policyName": policy}});
        binding["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        binding
    };
    let binding = bound(
        "b",
        "limit",
        json!({"validationActions": ["Deny", "Audit"],
        "paramRef": {"name": "params", "parameterNotFoundAction": "Deny"}}),
    );
    world.put(group, "validatingadmissionpolicybindings", binding).await;
    let mutating = json!({"metadata": {"name": "label"}, "spec": {"matchConstraints": constraints, "failurePolicy": "Fail",
        "matchConditions": [{"name": "small", "expression": "object.spec.replicas < 3"}],
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{labels: {'by': 'policy'}}, spec: Object.spec{replicas: object.spec.replicas + 1}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'add', path: '/metadata/labels/more', value: string(object.spec.replicas)}]"}}]}});
    world.put(group, "mutatingadmissionpolicies", mutating).await;
    world.put(group, "mutatingadmissionpolicybindings", bound("m", "label", json!({}))).await;

    let admission = Admission::new(world.configured().plugins(&PluginConfig::default()));
    let admit = async |replicas: i64| {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": replicas}});
        let mut attributes = world.create("apps", "deployments", object);
        admission.mutate(&mut attributes).await?;
        let result = admission.validate(&mut attributes).await;
        result.map(|()| attributes.object.unwrap())
    };
    let changed = admit(1).await.unwrap();
    assert_eq!(changed["spec"]["replicas"], 2);
    assert_eq!(changed["metadata"]["labels"], json!({"by": "policy", "more": "2"}));
    assert!(admit(3).await.unwrap()["metadata"].get("labels").is_none(), "the condition does not hold");
    let refused = admit(4).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.reason(), refused.message()),
        (
            403,
            "Forbidden",
            "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'limit' with binding 'b' denied request: at most 3"
        )
    );
}

#[tokio::test]
async fn pods_grow_only_as_far_as_their_node() {
    let world = World::new().await;
    let node = json!({"metadata": {"name": "n", "labels": {"kubernetes.io/os": "linux"}}, "status": {"allocatable": {"cpu": "2"}}});
    world.put("", "nodes", node).await;
    for (cpu, allowed) in [("2", true), ("2001m", false)] {
        let containers = json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": containers}});
        let resize = world.request(Operation::Update, "", "pods", pod.clone());
        let resize = Attributes { subresource: "resize".into(), old: Some(pod), ..resize };
        assert_eq!(world.admit(resize).await.is_ok(), allowed, "{cpu}");
    }
}
