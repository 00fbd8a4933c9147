use kube1_api::resource::ResourceTable;

use super::*;
use crate::options::{DeleteOptions, Propagation};

fn row(group: &str, version: &str, plural: &str) -> std::sync::Arc<Resource> {
    ResourceTable::builtin().get(group, version, plural).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOW: &str = "2026-01-02T03:04:05Z";

fn created(group: &str, version: &str, plural: &str, mut object: Value) -> Value {
    let user = UserInfo::authenticated("alice", &["devs"]);
    prepare_create(&row(group, version, plural), &mut object, &Context { now: at(NOW), user: &user });
    object
}

fn updated(group: &str, version: &str, plural: &str, subresource: &str, mut new: Value, old: &Value) -> Value {
    let user = UserInfo::default();
    prepare_update(&row(group, version, plural), subresource, &mut new, old, &Context { now: at(NOW), user: &user });
    new
}

#[test]
fn creating_sets_what_is_the_servers() {
    let deployment =
        created("apps", "v1", "deployments", json!({"metadata": {"name": "a"}, "spec": {}, "status": {"replicas": 9}}));
    assert_eq!(deployment, json!({"metadata": {"name": "a", "generation": 1}, "spec": {}, "status": {}}));
    let attachment = created("storage.k8s.io", "v1", "volumeattachments", json!({"metadata": {}, "spec": {}}));
    assert_eq!(attachment["status"], json!({"attached": false}));
    let status = json!({"capacity": {"cpu": "4"}});
    let node = created("", "v1", "nodes", json!({"metadata": {"name": "n"}, "status": status}));
    assert_eq!(node["status"], status);
    let map = created("", "v1", "configmaps", json!({"metadata": {"name": "a", "generation": 4}, "data": {}}));
    assert_eq!(map, json!({"metadata": {"name": "a"}, "data": {}}));
    let namespace = created("", "v1", "namespaces", json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["x"]}}));
    assert_eq!(
        namespace,
        json!({"metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "n"}},
            "spec": {"finalizers": ["x", "kubernetes"]}, "status": {"phase": "Active"}})
    );
    let job = created(
        "batch",
        "v1",
        "jobs",
        json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {}}}}),
    );
    assert_eq!(job["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
    assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
    let request = created(
        "certificates.k8s.io",
        "v1",
        "certificatesigningrequests",
        json!({"metadata": {}, "spec": {"username": "root"}}),
    );
    assert_eq!(request["spec"], json!({"username": "alice", "groups": ["devs", "system:authenticated"]}));
}

#[test]
fn pods_get_a_status_and_selectors() {
    let pod = json!({"metadata": {"labels": {"v": "1"}}, "spec": {"containers": [{"name": "c"}], "schedulingGates": [{"name": "g"}],
        "topologySpreadConstraints": [{"matchLabelKeys": ["v", "w"], "labelSelector": {}}]}});
    let pod = created("", "v1", "pods", pod);
    assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
    assert_eq!(
        pod["spec"],
        json!({"containers": [{"name": "c"}], "schedulingGates": [{"name": "g"}], "topologySpreadConstraints": [{"matchLabelKeys": ["v", "w"],
            "labelSelector": {"matchExpressions": [{"key": "v", "operator": "In", "values": ["1"]}]}}]})
    );
    let both = json!({"cpu": "1", "memory": "1Gi"});
    for (containers, class) in [
        (json!([{}]), "BestEffort"),
        (json!([{"resources": {"requests": {"cpu": "1"}}}]), "Burstable"),
        (json!([{"resources": {"limits": both}}]), "Guaranteed"),
        (json!([{"resources": {"limits": both, "requests": {"cpu": "1000m", "memory": "1Gi"}}}]), "Guaranteed"),
        (json!([{"resources": {"limits": both, "requests": {"memory": "1073741824"}}}]), "Guaranteed"),
        (json!([{"resources": {"limits": both}}, {}]), "Burstable"),
        (json!([{"resources": {"limits": both, "requests": {"cpu": "500m"}}}]), "Burstable"),
    ] {
        assert_eq!(qos_class(&json!({"spec": {"containers": containers}})), class, "{containers}");
    }
}

#[test]
fn updating_takes_only_what_the_request_may_write() {
    let old = json!({"metadata": {"name": "a", "uid": "u", "generation": 3, "labels": {"x": "1"}}, "spec": {"replicas": 1}, "status": {"n": 1}});
    let new = json!({"metadata": {"name": "a", "labels": {"x": "2"}}, "spec": {"replicas": 2}, "status": {"n": 2}});
    let main = updated("apps", "v1", "deployments", "", new.clone(), &old);
    assert_eq!(
        main,
        json!({"metadata": {"name": "a", "uid": "u", "generation": 4, "labels": {"x": "2"}}, "spec": {"replicas": 2}, "status": {"n": 1}})
    );
    let status = updated("apps", "v1", "deployments", "status", new.clone(), &old);
    assert_eq!(
        status,
        json!({"metadata": {"name": "a", "uid": "u", "generation": 3, "labels": {"x": "1"}}, "spec": {"replicas": 1}, "status": {"n": 2}})
    );
    let status = updated("apps", "v1", "replicasets", "status", new.clone(), &old);
    assert_eq!(status["metadata"]["labels"]["x"], "2");
    let status = updated("flowcontrol.apiserver.k8s.io", "v1", "flowschemas", "status", new, &old);
    assert_eq!(status["metadata"], old["metadata"]);
    let annotated = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"replicas": 1}});
    assert_eq!(updated("apps", "v1", "deployments", "", annotated.clone(), &old)["metadata"]["generation"], 4);
    assert_eq!(updated("apps", "v1", "statefulsets", "", annotated, &old)["metadata"]["generation"], 3);
    let namespace =
        json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"}});
    let emptied = json!({"metadata": {"name": "n"}, "spec": {"finalizers": []}});
    let finalized = updated("", "v1", "namespaces", "finalize", emptied, &namespace);
    assert_eq!(finalized["spec"]["finalizers"], json!([]));
    assert_eq!(finalized["status"]["phase"], "Terminating");
    let pod = json!({"metadata": {"generation": 1}, "spec": {"containers": [{"name": "a", "image": "x", "resources": {"limits": {"cpu": "1"}}}]}, "status": {}});
    let wanted = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "y", "resources": {"limits": {"cpu": "2"}}}]}});
    let resized = updated("", "v1", "pods", "resize", wanted, &pod);
    assert_eq!(
        resized,
        json!({"metadata": {"generation": 2}, "status": {},
            "spec": {"containers": [{"name": "a", "image": "x", "resources": {"limits": {"cpu": "2"}}}]}})
    );
}

#[test]
fn app_armor_annotations_become_fields() {
    let annotation = |name: &str, text: &str| {
        let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
        json!({"metadata": {"annotations": {key: text}}, "spec": {"containers": [{"name": "c"}]}})
    };
    let mut whole = annotation("c", "unconfined");
    whole["spec"]["securityContext"] = json!({"appArmorProfile": {"type": "Unconfined"}});
    let mut windows = annotation("c", "unconfined");
    windows["spec"]["os"] = json!({"name": "windows"});
    for (mut pod, profile, warned) in [
        (annotation("c", "unconfined"), json!({"type": "Unconfined"}), true),
        (annotation("c", "runtime/default"), json!({"type": "RuntimeDefault"}), true),
        (annotation("c", "localhost/a"), json!({"type": "Localhost", "localhostProfile": "a"}), true),
        (annotation("c", "localhost/"), json!(null), true),
        (annotation("other", "unconfined"), json!(null), false),
        (whole, json!(null), false),
        (windows, json!(null), false),
    ] {
        let warnings = carry_app_armor(&mut pod);
        assert_eq!(pod["spec"]["containers"][0]["securityContext"]["appArmorProfile"], profile);
        assert_eq!(warnings.len(), usize::from(warned), "{pod}");
    }
}

#[test]
fn services_keep_what_was_allocated() {
    let old = json!({"metadata": {}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack", "ports": [{"name": "a", "port": 80, "nodePort": 30001}]}, "status": {"loadBalancer": {}}});
    let new = json!({"metadata": {}, "spec": {"type": "NodePort", "ports": [{"name": "b", "port": 81}, {"name": "a", "port": 8080}]}});
    let kept = updated("", "v1", "services", "", new, &old);
    assert_eq!(kept["spec"]["clusterIPs"], json!(["10.0.0.1"]));
    assert_eq!(
        kept["spec"]["ports"],
        json!([{"name": "b", "port": 81}, {"name": "a", "port": 8080, "nodePort": 30001}])
    );
    // An address is kept where none is named, and what knows only the single one may name another.
    for (address, list, expected) in [
        (json!(""), json!(["10.0.0.2"]), (json!("10.0.0.1"), json!(["10.0.0.2"]))),
        (json!("10.0.0.2"), json!(["10.0.0.1"]), (json!("10.0.0.2"), json!(["10.0.0.2"]))),
        (json!("10.0.0.2"), json!(null), (json!("10.0.0.2"), json!(null))),
    ] {
        let mut new = old.clone();
        new["spec"]["clusterIP"] = address;
        new["spec"]["clusterIPs"] = list;
        let spec = updated("", "v1", "services", "", new, &old)["spec"].take();
        assert_eq!((spec["clusterIP"].clone(), spec["clusterIPs"].clone()), expected);
    }
    let mut new = old.clone();
    new["spec"]["clusterIP"] = "10.0.0.2".into();
    let moved = updated("", "v1", "services", "", new, &old);
    assert_eq!(moved["spec"]["clusterIPs"], json!(["10.0.0.2"]), "for validation to refuse");
    let mut new = old.clone();
    new["spec"]["type"] = "ClusterIP".into();
    let cluster = updated("", "v1", "services", "", new.clone(), &old);
    assert_eq!(cluster["spec"]["ports"], json!([{"name": "a", "port": 80}]));
    new["spec"]["type"] = "ExternalName".into();
    let external = updated("", "v1", "services", "", new, &old);
    assert!(external["spec"]["clusterIP"].is_null() && external["spec"]["ipFamilies"].is_null());
}

#[test]
fn old_clients_change_cluster_ips_by_the_one_member_they_know() {
    let one = |kind: &str, ip: Value, ips: Value| json!({"metadata": {}, "spec": {"type": kind, "clusterIP": ip, "clusterIPs": ips}});
    let old = |ip: Value, ips: Value| {
        let mut old = one("ClusterIP", ip, ips);
        old["spec"]["ipFamilies"] = json!(["IPv4"]);
        old
    };
    let (a, b) = (json!("10.0.0.1"), json!("10.0.0.2"));
    let (ips_a, ips_b) = (json!(["10.0.0.1"]), json!(["10.0.0.2"]));
    let none = Value::Null;
    for (before, after, ip, ips) in [
        ((&a, &ips_a), ("ClusterIP", &none, &none), &a, &ips_a),
        ((&a, &ips_a), ("ClusterIP", &a, &none), &a, &ips_a),
        ((&a, &ips_a), ("ClusterIP", &b, &ips_a), &b, &ips_b),
        // What does not go together is validation's to refuse.
        ((&a, &ips_a), ("ClusterIP", &none, &ips_b), &a, &ips_b),
        ((&a, &ips_a), ("ClusterIP", &b, &none), &b, &none),
        ((&none, &none), ("ClusterIP", &b, &none), &b, &ips_b),
        ((&a, &ips_a), ("ExternalName", &json!(""), &ips_a), &json!(""), &none),
        ((&a, &ips_a), ("ExternalName", &a, &ips_a), &none, &none),
        ((&a, &ips_a), ("ExternalName", &a, &ips_b), &a, &ips_b),
    ] {
        let old = old(before.0.clone(), before.1.clone());
        let mut new = one(after.0, after.1.clone(), after.2.clone());
        new["spec"]["ipFamilies"] = json!(["IPv4"]);
        let kept = updated("", "v1", "services", "", new, &old);
        assert_eq!((&kept["spec"]["clusterIP"], &kept["spec"]["clusterIPs"]), (ip, ips), "{before:?} {after:?}");
        assert_eq!(kept["spec"]["ipFamilies"].is_null(), after.0 == "ExternalName", "{after:?}");
    }
}

fn plan(plural: &str, object: &Value, options: DeleteOptions) -> DeletePlan {
    let row = ["", "apps", "batch"].iter().find_map(|g| ResourceTable::builtin().get(g, "v1", plural)).unwrap();
    delete_plan(&row, object, &options, at(NOW))
}

#[test]
fn deletion_waits_for_finalizers_and_grace() {
    let options =
        |grace, propagation| DeleteOptions { grace_period_seconds: grace, propagation, ..DeleteOptions::default() };
    let plain = json!({"metadata": {"name": "a", "generation": 1}});
    assert_eq!(plan("configmaps", &plain, options(None, None)), DeletePlan::Remove);
    let marked = |finalizers: Value, generation: i64| {
        DeletePlan::Mark(json!({"metadata": {"name": "a", "generation": generation, "finalizers": finalizers,
            "deletionTimestamp": NOW, "deletionGracePeriodSeconds": 0}}))
    };
    assert_eq!(
        plan("deployments", &plain, options(None, Some(Propagation::Foreground))),
        marked(json!(["foregroundDeletion"]), 2)
    );
    assert_eq!(plan("jobs", &plain, options(None, None)), marked(json!(["orphan"]), 2));
    assert_eq!(plan("jobs", &plain, options(None, Some(Propagation::Background))), DeletePlan::Remove);
    let DeletePlan::Mark(held) = marked(json!(["x"]), 2) else { unreachable!() };
    assert_eq!(plan("configmaps", &held, options(None, None)), DeletePlan::Pending);
    assert!(!is_released(&row("", "v1", "configmaps"), &held));

    let pod = json!({"metadata": {"generation": 1}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}, "status": {"phase": "Running"}});
    let DeletePlan::Mark(graceful) = plan("pods", &pod, options(None, None)) else { panic!("not marked") };
    assert_eq!(
        graceful["metadata"],
        json!({"generation": 2, "deletionTimestamp": "2026-01-02T03:04:10Z", "deletionGracePeriodSeconds": 5})
    );
    assert_eq!(plan("pods", &graceful, options(None, None)), DeletePlan::Pending);
    assert_eq!(plan("pods", &graceful, options(Some(9), None)), DeletePlan::Pending);
    let DeletePlan::Mark(shorter) = plan("pods", &graceful, options(Some(2), None)) else { panic!("not marked") };
    assert_eq!(shorter["metadata"]["deletionTimestamp"], "2026-01-02T03:04:07Z");
    assert_eq!(plan("pods", &graceful, options(Some(0), None)), DeletePlan::Remove);
    let DeletePlan::Mark(endless) = plan("pods", &pod, options(Some(i64::MAX), None)) else { panic!("not marked") };
    assert_eq!(endless["metadata"]["deletionTimestamp"], "9999-12-30T22:00:00Z");
    let DeletePlan::Mark(shorter) = plan("pods", &endless, options(Some(2), None)) else { panic!("not marked") };
    assert_eq!(shorter["metadata"]["deletionTimestamp"], "2026-01-02T03:04:07Z");
    for unscheduled in [
        json!({"metadata": {}, "spec": {}}),
        json!({"metadata": {}, "spec": {"nodeName": "n"}, "status": {"phase": "Failed"}}),
    ] {
        assert_eq!(plan("pods", &unscheduled, options(None, None)), DeletePlan::Remove);
    }

    let namespace =
        json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    let DeletePlan::Mark(mut terminating) = plan("namespaces", &namespace, options(None, None)) else {
        panic!("not marked")
    };
    assert_eq!(
        (terminating["status"]["phase"].as_str(), terminating["metadata"]["deletionTimestamp"].as_str()),
        (Some("Terminating"), Some(NOW))
    );
    assert_eq!(plan("namespaces", &terminating, options(None, None)), DeletePlan::Pending);
    terminating["spec"]["finalizers"] = json!([]);
    assert!(is_released(&row("", "v1", "namespaces"), &terminating));
    assert_eq!(plan("namespaces", &terminating, options(None, None)), DeletePlan::Remove);
}

#[test]
fn claims_say_where_they_come_from_in_both_ways() {
    let source = json!({"kind": "PersistentVolumeClaim", "name": "a"});
    let old = created("", "v1", "persistentvolumeclaims", json!({"metadata": {}, "spec": {"dataSource": source}}));
    assert_eq!(old["spec"]["dataSourceRef"], source);
    let new = json!({"metadata": {}, "spec": {"dataSource": source}});
    let mut stored = old.clone();
    stored["status"] = json!({"phase": "Bound"});
    assert_eq!(updated("", "v1", "persistentvolumeclaims", "", new, &stored), stored, "an older client leaves it out");
    let other = json!({"apiGroup": "example.com", "kind": "Image", "name": "a"});
    let claim =
        |member: &str| created("", "v1", "persistentvolumeclaims", json!({"metadata": {}, "spec": {member: other}}));
    assert_eq!(claim("dataSource")["spec"], json!({}), "only the newer one can say this");
    assert_eq!(claim("dataSourceRef")["spec"], json!({"dataSourceRef": other}));
}

#[test]
fn deletion_times_are_the_servers() {
    for (given, before, after) in [
        (json!(null), json!("old"), json!("old")),
        (json!("new"), json!("old"), json!("old")),
        // Refused, once it is compared with the old object.
        (json!("new"), json!(null), json!("new")),
    ] {
        let object = |time: &Value| {
            let metadata = if time.is_null() { json!({}) } else { json!({"deletionTimestamp": time}) };
            json!({"metadata": metadata, "data": {}})
        };
        let new = updated("", "v1", "configmaps", "", object(&given), &object(&before));
        assert_eq!(new["metadata"]["deletionTimestamp"], after);
    }
}

#[test]
fn preconditions_and_names() {
    let object = json!({"metadata": {"name": "a", "uid": "u1", "resourceVersion": "5"}});
    let options = DeleteOptions { uid: Some("u2".into()), ..DeleteOptions::default() };
    let error = check_preconditions(&row("", "v1", "pods"), &object, &options).unwrap_err();
    assert_eq!(
        error.message(),
        "Operation cannot be fulfilled on Pod \"a\": the UID in the precondition (u2) does not match the UID in record (u1). The object might have been deleted and then recreated"
    );
    let mut object = json!({"metadata": {"generateName": "x".repeat(70), "uid": "mine", "deletionTimestamp": "y"}});
    wipe_system_fields(&mut object);
    fill_system_fields(&mut object, at(NOW));
    let metadata = &object["metadata"];
    assert_eq!((metadata["name"].as_str().unwrap().len(), metadata["creationTimestamp"].as_str()), (63, Some(NOW)));
    assert!(metadata["uid"].as_str().unwrap().len() == 36 && metadata["deletionTimestamp"].is_null());
    let warned = warnings(
        &row("", "v1", "pods"),
        &json!({"metadata": {"name": "a.b"}, "spec": {"containers": [{"env": [{"name": "A"}, {"name": "A"}]}]}}),
        None,
    );
    assert_eq!(warned.len(), 2);
}

#[test]
fn a_definition_waits_for_its_objects() {
    let row = row("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let definition = json!({"metadata": {"name": "a.example.com", "finalizers": ["x/y"]}});
    let DeletePlan::Mark(marked) = delete_plan(&row, &definition, &DeleteOptions::default(), at(NOW)) else {
        panic!("it is not gone at once")
    };
    assert_eq!(marked["metadata"]["finalizers"], json!(["x/y", crate::custom::CLEANUP_FINALIZER]));
    assert_eq!(marked["metadata"]["deletionTimestamp"], NOW);
    assert!(crate::custom::is_terminating(&marked));
    assert_eq!(marked["status"]["conditions"][0]["reason"], "InstanceDeletionPending");
}
