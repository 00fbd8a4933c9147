//! Plugins that are off by default, each switched on as a user does.

use serde_json::{Value, json};

use super::tests::World;
use super::*;

/// The plugins with this one switched on and configured.
fn with(world: &World, name: &str, configuration: Value) -> Admission {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admission.json");
    let mut plugin = json!({"name": name});
    if !configuration.is_null() {
        plugin["configuration"] = configuration;
    }
    let file =
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": [plugin]});
    std::fs::write(&path, file.to_string()).unwrap();
    let options = AdmissionOptions { config_file: Some(path), enabled: vec![name.into()], disabled: vec![] };
    let config = PluginConfig::read(&options).unwrap();
    let configured = world.configured();
    let mut plugins = default_plugins(&world.reader, &configured.authorizer, &config);
    plugins.extend(configured.plugins(&config));
    assert!(plugins.iter().any(|plugin| plugin.name() == name));
    Admission::new(plugins)
}

fn pod(spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "a"}]}});
    spec.as_object().unwrap().iter().for_each(|(key, value)| pod["spec"][key] = value.clone());
    pod
}

#[tokio::test]
async fn what_is_off_refuses_nothing_until_it_is_on() {
    let world = World::new().await;
    let anti = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": "kubernetes.io/hostname"}, {"topologyKey": "zone"}]}}});
    let service = json!({"metadata": {"name": "s"}, "spec": {"externalIPs": ["192.0.2.1"]}});
    for (name, plural, object, said) in [
        (
            "AlwaysDeny",
            "configmaps",
            json!({"metadata": {"name": "a"}}),
            "configmaps \"a\" is forbidden: admission control is denying all modifications",
        ),
        (
            "DenyServiceExternalIPs",
            "services",
            service,
            "services \"s\" is forbidden: Use of external IPs is denied by admission control",
        ),
        (
            "LimitPodHardAntiAffinityTopology",
            "pods",
            pod(anti),
            "pods \"p\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key \
             kubernetes.io/hostname is allowed",
        ),
    ] {
        world.admit(world.create("", plural, object.clone())).await.unwrap();
        let admission = with(&world, name, Value::Null);
        let error = world.admit_by(&admission, world.create("", plural, object)).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (403, said), "{name}");
    }
    let kept = json!({"metadata": {"name": "s"}, "spec": {"externalIPs": ["192.0.2.1"]}});
    let update = world.request(Operation::Update, "", "services", kept.clone());
    let update = Attributes { old: Some(kept), ..update };
    world.admit_by(&with(&world, "DenyServiceExternalIPs", Value::Null), update).await.unwrap();
}

#[tokio::test]
async fn namespaces_are_made_or_must_be_there() {
    let world = World::new().await;
    let into = |operation, namespace: &str, dry_run| Attributes {
        namespace: namespace.into(),
        dry_run,
        ..world.request(operation, "", "configmaps", json!({"metadata": {"name": "a"}}))
    };
    let provision = with(&world, "NamespaceAutoProvision", Value::Null);
    world.admit_by(&provision, into(Operation::Create, "dry", true)).await.unwrap_err();
    world.admit_by(&provision, into(Operation::Create, "new", false)).await.unwrap();
    let made = world.reader.collection("", "namespaces").unwrap().get("", "new").unwrap().value();
    assert_eq!(made["status"]["phase"], "Active");
    assert!(made["metadata"]["uid"].is_string());
    let exists = with(&world, "NamespaceExists", Value::Null);
    world.admit(into(Operation::Delete, "none", false)).await.unwrap();
    let error = world.admit_by(&exists, into(Operation::Delete, "none", false)).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (404, "namespaces \"none\" not found"));
}

#[tokio::test]
async fn images_are_always_pulled() {
    let world = World::new().await;
    let admission = with(&world, "AlwaysPullImages", Value::Null);
    let given = pod(json!({"initContainers": [{"name": "i", "image": "b", "imagePullPolicy": "Never"}],
        "volumes": [{"name": "v", "image": {"reference": "c"}}, {"name": "w", "emptyDir": {}}]}));
    let made = world.admit_by(&admission, world.create("", "pods", given.clone())).await.unwrap();
    for path in ["containers/0/imagePullPolicy", "initContainers/0/imagePullPolicy", "volumes/0/image/pullPolicy"] {
        assert_eq!(made.pointer(&format!("/spec/{path}")).unwrap(), "Always", "{path}");
    }
    let update = world.request(Operation::Update, "", "pods", given.clone());
    let update = Attributes { old: Some(given.clone()), ..update };
    assert_eq!(
        world.admit_by(&admission, update).await.unwrap()["spec"]["initContainers"][0]["imagePullPolicy"],
        "Never"
    );
    let mut request = world.create("", "pods", given);
    let error = admission.validate(&mut request).await.unwrap_err();
    assert!(error.message().contains("imagePullPolicy: Unsupported value: \"Never\": supported values: \"Always\""));
}

#[tokio::test]
async fn devices_are_tolerated() {
    let world = World::new().await;
    let admission = with(&world, "ExtendedResourceToleration", Value::Null);
    let requests = json!({"example.com/gpu": "1", "cpu": "1", "kubernetes.io/x": "1"});
    let given = pod(json!({"containers": [{"name": "c", "image": "a", "resources": {"requests": requests}}]}));
    let made = world.admit_by(&admission, world.create("", "pods", given)).await.unwrap();
    let tolerations = made["spec"]["tolerations"].as_array().unwrap();
    let added = json!({"key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule"});
    assert_eq!(tolerations.iter().filter(|t| t["effect"] == "NoSchedule").collect::<Vec<_>>(), [&added]);
}

#[tokio::test]
async fn pods_go_where_their_namespace_says() {
    let world = World::new().await;
    let annotations = json!({"scheduler.alpha.kubernetes.io/node-selector": "env=test,disk=ssd",
        "scheduler.alpha.kubernetes.io/defaultTolerations": r#"[{"key":"team","operator":"Exists"}]"#,
        "scheduler.alpha.kubernetes.io/tolerationsWhitelist": r#"[{"key":"team","operator":"Exists"},
            {"key":"node.kubernetes.io/not-ready","operator":"Exists"},{"key":"node.kubernetes.io/unreachable","operator":"Exists"}]"#});
    let namespace = json!({"metadata": {"name": "own", "annotations": annotations}, "status": {"phase": "Active"}});
    world.put("", "namespaces", namespace).await;
    world.put("", "serviceaccounts", json!({"metadata": {"namespace": "own", "name": "default"}})).await;
    let create = |namespace: &str, spec: Value| Attributes {
        namespace: namespace.into(),
        ..world.create("", "pods", pod(spec))
    };
    let selectors =
        json!({"podNodeSelectorPluginConfig": {"clusterDefaultNodeSelector": "zone=a", "ns": "zone=a,env=x"}});
    let admission = with(&world, "PodNodeSelector", selectors);
    for (namespace, own, expected) in [
        ("own", json!({}), Ok(json!({"env": "test", "disk": "ssd"}))),
        ("own", json!({"nodeSelector": {"more": "1"}}), Ok(json!({"env": "test", "disk": "ssd", "more": "1"}))),
        ("own", json!({"nodeSelector": {"env": "x"}}), Err("conflicts with its namespace node label selector")),
        ("ns", json!({}), Ok(json!({"zone": "a"}))),
        ("ns", json!({"nodeSelector": {"more": "1"}}), Err("conflict with its namespace whitelist")),
    ] {
        let made = world.admit_by(&admission, create(namespace, own)).await;
        let made = made.map(|pod| pod["spec"]["nodeSelector"].clone()).map_err(|error| error.message().to_owned());
        match (made, expected) {
            (Ok(made), Ok(expected)) => assert_eq!(made, expected),
            (Err(made), Err(expected)) => assert!(made.contains(expected), "{made}"),
            (made, expected) => panic!("{made:?} is not {expected:?}"),
        }
    }
    let admission = with(&world, "PodTolerationRestriction", Value::Null);
    let made = world.admit_by(&admission, create("own", json!({}))).await.unwrap();
    assert!(made["spec"]["tolerations"].as_array().unwrap().iter().any(|t| t["key"] == "team"));
    let other = json!({"tolerations": [{"key": "other", "operator": "Exists"}]});
    let error = world.admit_by(&admission, create("own", other)).await.unwrap_err();
    assert!(error.message().ends_with("conflict with its namespace whitelist"), "{error:?}");
}

#[tokio::test]
async fn owners_are_named_by_those_who_may_delete() {
    let world = World::new().await;
    let admission = with(&world, "OwnerReferencesPermissionEnforcement", Value::Null);
    let owned = |block: bool, api_version: &str| {
        let owner = json!({"apiVersion": api_version, "kind": "Deployment", "name": "d", "uid": "1", "blockOwnerDeletion": block});
        json!({"metadata": {"name": "a", "ownerReferences": [owner]}})
    };
    world.admit_by(&admission, world.create("", "configmaps", owned(false, "apps/v1"))).await.unwrap();
    for (operation, object, said) in [
        (Operation::Update, owned(false, "apps/v1"), "cannot set an ownerRef on a resource you can't delete: "),
        (Operation::Create, owned(true, "apps/v1"), "refers to a resource you can't set finalizers on: "),
        (Operation::Create, owned(true, "none/v1"), "no matches for kind \"Deployment\" in version \"none/v1\""),
    ] {
        let old = (operation == Operation::Update).then(|| json!({"metadata": {"name": "a"}}));
        let request = Attributes { old, ..world.request(operation, "", "configmaps", object) };
        let error = world.admit_by(&admission, request).await.unwrap_err();
        assert!(error.code() == 403 && error.message().contains(said), "{error:?}");
    }
}

#[tokio::test]
async fn a_node_must_know_how_to_do_what_is_changed() {
    let world = World::new().await;
    for (name, features) in [("old", json!([])), ("new", json!(["InPlacePodLevelResourcesVerticalScaling"]))] {
        world
            .put(
                "",
                "nodes",
                json!({"metadata": {"name": name}, "status": {"declaredFeatures": features,
            "allocatable": {"cpu": "8"}}}),
            )
            .await;
    }
    let with_cpu = |node: &str, cpu: &str, init: &str| {
        let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let inits = json!([{"name": "i", "image": "a", "resources": resources(init)},
            {"name": "s", "image": "a", "restartPolicy": "Always", "resources": resources(cpu)}]);
        pod(json!({"nodeName": node, "resources": resources(cpu), "initContainers": inits}))
    };
    for (old, new, said) in [
        (with_cpu("new", "1", "1"), with_cpu("new", "2", "1"), ""),
        (with_cpu("old", "1", "1"), with_cpu("old", "1000m", "1"), ""),
        (
            with_cpu("old", "1", "1"),
            with_cpu("old", "2", "1"),
            "pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node \"old\"",
        ),
        (
            with_cpu("old", "1", "1"),
            with_cpu("old", "2", "2"),
            "features InPlacePodLevelResourcesVerticalScaling, InPlacePodVerticalScalingInitContainers which",
        ),
        (with_cpu("none", "1", "1"), with_cpu("none", "2", "1"), "node \"none\" not found"),
    ] {
        let request = world.request(Operation::Update, "", "pods", new);
        let request = Attributes { old: Some(old), subresource: "resize".into(), ..request };
        match world.admit(request).await {
            Ok(_) => assert_eq!(said, ""),
            Err(error) => assert!(!said.is_empty() && error.message().contains(said), "{error:?}"),
        }
    }
}

#[tokio::test]
async fn trust_in_a_signer_is_attested_by_those_who_may() {
    let world = World::new().await;
    let plugin = ClusterTrustBundleAttest::new(world.configured().authorizer);
    let bundle = |signer: &str| json!({"metadata": {"name": "b"}, "spec": {"signerName": signer, "trustBundle": "x"}});
    let mut row = (*world.table.stored("certificates.k8s.io", "certificatesigningrequests").unwrap()).clone();
    row.plural = "clustertrustbundles".into();
    let create = |signer: &str| Attributes {
        object: Some(bundle(signer)),
        ..Attributes::new(crate::user::UserInfo::default(), Arc::new(row.clone()), Operation::Create, "", "b")
    };
    assert!(plugin.handles(&create("")));
    plugin.validate(&mut create("")).await.unwrap();
    let error = plugin.validate(&mut create("example.com/s")).await.unwrap_err();
    assert!(error.message().ends_with("user not permitted to attest for signerName \"example.com/s\""), "{error:?}");
    let update = create("example.com/s");
    let mut update = Attributes { operation: Operation::Update, old: update.object.clone(), ..update };
    plugin.validate(&mut update).await.unwrap();
}
