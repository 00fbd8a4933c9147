#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use crate::patch::merge_patch;
use crate::resource::{Resource, ResourceTable};
use crate::validate::{validate_create, validate_update};

fn pods() -> std::sync::Arc<Resource> {
    ResourceTable::builtin().get("", "v1", "pods").unwrap()
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "uid": "u", "resourceVersion": "1"},
        "spec": {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
            "volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {},
            "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
                "resources": {}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}})
}

fn errors(patch: &Value) -> Vec<String> {
    validate_create(&pods(), &merge_patch(&pod(), patch)).iter().map(ToString::to_string).collect()
}

fn container(extra: Value) -> Value {
    let base = pod()["spec"]["containers"][0].clone();
    json!({"spec": {"containers": [merge_patch(&base, &extra)]}})
}

#[test]
fn a_good_pod_passes() {
    assert_eq!(errors(&json!({})), Vec::<String>::new());
}

#[test]
fn bad_pods_are_told_what_is_wrong() {
    for (patch, expected) in [
        (json!({"spec": {"containers": null}}), "spec.containers: Required value"),
        (
            json!({"spec": {"restartPolicy": "Sometimes"}}),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (container(json!({"image": null})), "spec.containers[0].image: Required value"),
        (
            container(json!({"volumeMounts": [{"name": "x", "mountPath": "/x"}]})),
            "spec.containers[0].volumeMounts[0].name: Not found: \"x\"",
        ),
        (
            container(json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]})),
            "spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value",
        ),
        (
            container(json!({"env": [{"name": "A", "valueFrom": {"fileKeyRef":
                {"volumeName": "x", "path": "../a", "key": "A"}}}]})),
            "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found: \"x\"",
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "secret": {"secretName": "s"}}], "containers": [{"name": "c", "image": "i",
                "imagePullPolicy": "Always", "terminationMessagePolicy": "File", "env": [{"name": "A", "valueFrom":
                {"fileKeyRef": {"volumeName": "v", "path": "a", "key": "A"}}}]}]}}),
            "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Invalid value: \"v\": referenced volume must be of type emptyDir",
        ),
        (
            container(json!({"ports": [{"containerPort": 70000, "protocol": "TCP"}]})),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            container(json!({"livenessProbe": {}})),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]}}),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            json!({"spec": {"tolerations": [{"operator": "Equal"}]}}),
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ),
        (
            json!({"spec": {"nodeSelector": {"a b": "c"}}}),
            "spec.nodeSelector: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
        (json!({"metadata": {"name": null}}), "metadata.name: Required value: name or generateName is required"),
    ] {
        let found = errors(&patch);
        assert!(found.iter().any(|e| e == expected), "{expected}\nnot in {found:#?}");
        assert!(found.len() <= 2, "{found:#?}");
    }
}

fn change_errors(patch: &Value, subresource: &str) -> Vec<String> {
    let new = merge_patch(&pod(), patch);
    validate_update(&pods(), &new, &pod(), subresource).iter().map(ToString::to_string).collect()
}

#[test]
fn little_of_a_pod_may_change() {
    for patch in [
        json!({}),
        json!({"metadata": {"labels": {"a": "b"}}}),
        json!({"spec": {"activeDeadlineSeconds": 5}}),
        json!({"spec": {"tolerations": [{"key": "k", "operator": "Exists"}]}}),
        container(json!({"image": "other"})),
    ] {
        assert_eq!(change_errors(&patch, ""), Vec::<String>::new(), "{patch}");
    }
    for patch in [
        json!({"spec": {"hostNetwork": true}}),
        json!({"spec": {"terminationGracePeriodSeconds": 1}}),
        container(json!({"command": ["x"]})),
    ] {
        let found = change_errors(&patch, "");
        assert!(found[0].starts_with("spec: Forbidden: pod updates may not change fields other than "), "{found:?}");
    }
    let two = json!({"spec": {"containers": [pod()["spec"]["containers"][0], pod()["spec"]["containers"][0]]}});
    assert!(
        change_errors(&two, "")
            .contains(&"spec.containers: Forbidden: pod updates may not add or remove containers".to_owned())
    );
}

#[test]
fn resizing_keeps_the_quality_of_service() {
    let found = change_errors(&container(json!({"resources": {"requests": {"cpu": "1"}}})), "resize");
    assert_eq!(found, ["spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing"]);
}
