#![allow(clippy::unwrap_used)]

mod batch;
mod core;
mod devices;
mod extensions;
mod networking;
mod storage;
mod workloads;

use serde_json::{Value, json};

use super::*;
use crate::codec::{FieldValidation, check_value};
use crate::default::apply_defaults;
use crate::patch::merge_patch;
use crate::resource::ResourceTable;

/// An object as it comes to validation, with its row.
fn prepared(object: Value) -> (std::sync::Arc<Resource>, Value) {
    let (group, version) = crate::name::split_api_version(object["apiVersion"].as_str().unwrap());
    let row = ResourceTable::builtin().by_kind(group, version, object["kind"].as_str().unwrap()).unwrap();
    let mut object = merge_patch(&json!({"metadata": {"name": "n", "uid": "u", "resourceVersion": "1"}}), &object);
    if row.namespaced {
        object["metadata"]["namespace"] = "ns".into();
    }
    apply_defaults(&row, &mut object);
    let object = check_value(&row, object, FieldValidation::Strict).unwrap().value;
    (row, object)
}

fn create(object: &Value) -> Vec<String> {
    let (row, object) = prepared(object.clone());
    validate_create(&row, &object).iter().map(ToString::to_string).collect()
}

fn update(old: &Value, patch: &Value) -> Vec<String> {
    let (row, new) = prepared(merge_patch(old, patch));
    let (_, old) = prepared(old.clone());
    validate_update(&row, &new, &old, "").iter().map(ToString::to_string).collect()
}

fn update_status(old: &Value, patch: &Value) -> Vec<String> {
    let (row, old) = prepared(old.clone());
    let new = merge_patch(&old, patch);
    validate_update(&row, &new, &old, "status").iter().map(ToString::to_string).collect()
}

/// Every patch of the object is refused with exactly these errors.
fn refused(base: &Value, cases: &[(Value, &[&str])]) {
    for (patch, expected) in cases {
        assert_eq!(create(&merge_patch(base, patch)), *expected, "{patch}");
    }
}

/// The same for changes of an object that exists.
fn change_refused(base: &Value, cases: &[(Value, &[&str])]) {
    for (patch, expected) in cases {
        assert_eq!(update(base, patch), *expected, "{patch}");
    }
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn stateful_set() -> Value {
    let mut object = deployment();
    object["kind"] = "StatefulSet".into();
    object["spec"]["serviceName"] = "s".into();
    object["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/d"}]);
    object["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": claim()["spec"]}]);
    object
}

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}], "selector": {"a": "b"},
        "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}})
}

fn cron_job() -> Value {
    json!({"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"schedule": "* * * * *", "timeZone": "Europe/Berlin",
        "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}})
}

fn claim() -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
}

fn ingress() -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "spec": {"rules": [{"host": "*.example.com",
        "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}})
}

fn role_binding() -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "ns"}]})
}

fn definition() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "foos.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
}

#[test]
fn good_objects_pass() {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "aGk="}});
    for object in
        [deployment(), stateful_set(), service(), cron_job(), claim(), ingress(), role_binding(), definition(), secret]
    {
        assert_eq!(create(&object), Vec::<String>::new(), "{object}");
        assert_eq!(update(&object, &json!({"metadata": {"labels": {"x": "y"}}})), Vec::<String>::new(), "{object}");
    }
}

#[test]
fn bad_objects_are_told_what_is_wrong() {
    let mismatch =
        "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`";
    for (object, patch, expected) in [
        (deployment(), json!({"spec": {"selector": {"matchLabels": {"a": "c"}}}}), mismatch),
        (deployment(), json!({"spec": {"selector": null}}), "spec.selector: Required value"),
        (
            deployment(),
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            cron_job(),
            json!({"spec": {"schedule": "* * *"}}),
            "spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]",
        ),
        (
            cron_job(),
            json!({"spec": {"timeZone": "Mars/Base"}}),
            "spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base",
        ),
        (service(), json!({"spec": {"ports": null}}), "spec.ports: Required value"),
        (
            service(),
            json!({"spec": {"ports": [{"port": 80}, {"port": 81, "name": "b"}]}}),
            "spec.ports[0].name: Required value",
        ),
        (
            service(),
            json!({"metadata": {"name": "a.b"}}),
            "metadata.name: Invalid value: \"a.b\": must not contain dots",
        ),
        (
            claim(),
            json!({"spec": {"accessModes": null}}),
            "spec.accessModes: Required value: at least 1 access mode is required",
        ),
        (
            ingress(),
            json!({"spec": {"rules": null}}),
            "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified",
        ),
        (
            role_binding(),
            json!({"subjects": [{"kind": "Robot", "name": "r"}]}),
            "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
        ),
        (
            definition(),
            json!({"metadata": {"name": "bars.example.com"}}),
            "metadata.name: Invalid value: \"bars.example.com\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Secret"}),
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            "data[tls.key]: Required value",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap"}),
            json!({"data": {"a/b": "c"}}),
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ),
        (
            json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1}),
            json!({"value": 2_000_000_000}),
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
        ),
    ] {
        let found = create(&merge_patch(&object, &patch));
        assert!(found.iter().any(|e| e == expected), "{expected}\nnot in {found:#?}");
        assert!(found.len() <= 2, "{found:#?}");
    }
}

#[test]
fn expressions_must_compile() {
    let hooks = |expression: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "webhooks": [{
            "name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://x/y"},
            "matchConditions": [{"name": "m", "expression": expression}]}]})
    };
    assert_eq!(create(&hooks("object.metadata.name == 'x'")), Vec::<String>::new());
    let found = create(&hooks("... [] bad expression"));
    assert!(
        found[0].starts_with("webhooks[0].matchConditions[0].expression: Invalid value: ")
            && found[0].contains("compilation failed"),
        "{found:?}"
    );
}

#[test]
fn what_is_immutable_stays() {
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "immutable": true, "data": {"a": "b"}});
    let forbidden = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    for (old, patch, expected) in [
        (stateful_set(), json!({"spec": {"serviceName": "t"}}), format!("spec: Forbidden: {forbidden}")),
        (config.clone(), json!({"data": {"a": "c"}}), "data: Forbidden: field is immutable when `immutable` is set".into()),
        (config, json!({"immutable": null}), "immutable: Forbidden: field is immutable when `immutable` is set".into()),
        (service(), json!({"spec": {"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"]}}), "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set".into()),
        (role_binding(), json!({"roleRef": {"name": "x"}}), "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"x\"}: cannot change roleRef".into()),
        (claim(), json!({"spec": {"accessModes": ["ReadWriteMany"]}}), "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims".into()),
        (deployment(), json!({"metadata": {"name": "other"}}), "metadata.name: Invalid value: \"other\": field is immutable".into()),
    ] {
        let found = update(&old, &patch);
        // What changed follows on further lines.
        assert_eq!(found.iter().map(|error| error.lines().next().unwrap_or_default()).collect::<Vec<_>>(), [expected]);
    }
    assert_eq!(update(&stateful_set(), &json!({"spec": {"replicas": 5}})), Vec::<String>::new());
}

#[test]
fn unchanged_parts_are_not_checked_again() {
    let mut old = deployment();
    old["metadata"] = json!({"labels": {"bad key": "v"}});
    old["spec"]["template"]["spec"]["containers"][0]["name"] = "Bad".into();
    assert_eq!(create(&old).len(), 2);
    assert_eq!(update(&old, &json!({"spec": {"replicas": 3}})), Vec::<String>::new());
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "Bad", "image": "other"}]}}}});
    assert_eq!(update(&old, &image), Vec::<String>::new(), "the name was bad before");
}

fn new_event() -> Value {
    json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "regarding": {"namespace": "other"}, "note": "it ran",
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "k.io/c", "reportingInstance": "c-1",
        "action": "Run", "reason": "Ran", "type": "Normal"})
}

#[test]
fn events_of_the_new_kind_only_grow_a_series() {
    assert_eq!(create(&new_event()), [""; 0], "an event with a time of its own may be about another namespace");
    for (patch, expected) in [
        (json!({"eventTime": null}), "eventTime: Required value"),
        (json!({"type": "Loud"}), "type: Invalid value: \"\": has invalid value: Loud"),
        (json!({"deprecatedCount": 3}), "count: Invalid value: \"\": needs to be unset"),
        (
            json!({"series": {"count": 1, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}}),
            "series.count: Invalid value",
        ),
        (json!({"regarding": {"namespace": null}}), "involvedObject.namespace: Invalid value"),
    ] {
        let errors = create(&merge_patch(&new_event(), &patch));
        assert!(errors.iter().any(|e| e.starts_with(expected)), "{patch}: {errors:?}");
    }
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}});
    assert_eq!(update(&new_event(), &series), [""; 0]);
    assert_eq!(update(&new_event(), &json!({"note": "it fell"})).len(), 1, "each field is complained of once");
    let old_kind = json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"namespace": "ns"}, "message": "a"});
    assert_eq!(create(&old_kind), [""; 0]);
    assert_eq!(update(&old_kind, &json!({"message": "b", "series": {"count": 1}})), [""; 0]);
    assert_eq!(create(&merge_patch(&old_kind, &json!({"involvedObject": {"namespace": "other"}}))).len(), 1);
}

#[test]
fn a_lease_can_be_given_back() {
    let lease = |spec: Value| create(&json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}));
    // Go's leader election writes an empty holder when it stops.
    assert_eq!(lease(json!({"holderIdentity": "", "leaseDurationSeconds": 1})), Vec::<String>::new());
    assert_eq!(lease(json!({"leaseDurationSeconds": 0})).len(), 1);
}
