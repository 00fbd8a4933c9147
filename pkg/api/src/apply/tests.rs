#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::resource::ResourceTable;

pub(super) const T1: &str = "2026-01-01T00:00:00Z";
pub(super) const T2: &str = "2026-01-01T00:00:01Z";

pub(super) fn row(group: &str, plural: &str) -> Arc<Resource> {
    ResourceTable::builtin().get(group, "v1", plural).unwrap()
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}, "data": data})
}

fn apply_map(live: Option<&Value>, data: Value, manager: &str, force: bool) -> Result<Value, Status> {
    apply(&row("", "configmaps"), live, &config_map(data), manager, force, "", T1)
}

/// manager -> operation, fields
fn owners(object: &Value) -> Vec<(String, String, Value)> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries.map(|e| (text(&e["manager"]), text(&e["operation"]), e["fieldsV1"].clone())).collect()
}

fn owner(object: &Value, manager: &str) -> Value {
    owners(object).into_iter().find(|(m, ..)| m == manager).map_or(Value::Null, |(.., fields)| fields)
}

#[test]
fn a_created_deployment_is_owned_as_clients_expect() {
    let mut new = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n", "labels": {"app": "d"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "d"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "d"}},
                "spec": {"restartPolicy": "Always", "securityContext": {}, "containers": [{"name": "c", "image": "i", "resources": {},
                    "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}}, "status": {}});
    track_update(&row("apps", "deployments"), None, &mut new, "kubectl-create", "", T1);
    assert_eq!(
        new["metadata"]["managedFields"],
        json!([{"apiVersion": "apps/v1", "fieldsType": "FieldsV1", "manager": "kubectl-create", "operation": "Update", "time": T1,
            "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:replicas": {}, "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
                "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {"f:restartPolicy": {}, "f:securityContext": {},
                        "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}, "f:resources": {},
                            "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}":
                                {".": {}, "f:containerPort": {}, "f:protocol": {}}}}}}}}}}])
    );
}

#[test]
fn applying_owns_merges_and_removes() {
    let first = apply_map(None, json!({"a": "1", "b": "1"}), "m1", false).unwrap();
    assert_eq!(owner(&first, "m1"), json!({"f:data": {"f:a": {}, "f:b": {}}}));
    let second = apply_map(Some(&first), json!({"b": "1", "c": "1"}), "m2", false).unwrap();
    assert_eq!(second["data"], json!({"a": "1", "b": "1", "c": "1"}), "equal values are shared");
    let third = apply_map(Some(&second), json!({"a": "1"}), "m1", false).unwrap();
    assert_eq!(third["data"], json!({"a": "1", "b": "1", "c": "1"}), "the other still owns b");
    let fourth = apply_map(Some(&third), json!({"c": "1"}), "m2", false).unwrap();
    assert_eq!(fourth["data"], json!({"a": "1", "c": "1"}), "nobody owns b");
    assert_eq!(fourth["metadata"]["name"], "c");
}

#[test]
fn conflicts_name_their_owner_and_force_takes_over() {
    let first = apply_map(None, json!({"a": "1", "b": "1"}), "m1", false).unwrap();
    let error = apply_map(Some(&first), json!({"a": "2"}), "m2", false).unwrap_err();
    assert_eq!(error.code(), 409);
    assert_eq!(error.message(), "Apply failed with 1 conflict: conflict with \"m1\": .data.a");
    assert_eq!(
        error.to_json()["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"m1\"", "field": ".data.a"}])
    );
    let error = apply_map(Some(&first), json!({"a": "2", "b": "2"}), "m2", false).unwrap_err();
    assert_eq!(error.message(), "Apply failed with 2 conflicts: conflicts with \"m1\":\n- .data.a\n- .data.b");
    let forced = apply_map(Some(&first), json!({"a": "2"}), "m2", true).unwrap();
    assert_eq!(forced["data"]["a"], "2");
    assert_eq!(owner(&forced, "m1"), json!({"f:data": {"f:b": {}}}));
}

#[test]
fn updates_take_what_they_change_and_nothing_else() {
    let maps = row("", "configmaps");
    let applied = apply_map(None, json!({"a": "1", "b": "1"}), "m1", false).unwrap();
    let mut changed = applied.clone();
    changed["data"] = json!({"a": "2", "c": "1"});
    track_update(&maps, Some(&applied), &mut changed, "editor", "", T2);
    assert_eq!(
        owners(&changed),
        [("editor".to_owned(), "Update".to_owned(), json!({"f:data": {"f:a": {}, "f:c": {}}}))]
    );
    let error = apply_map(Some(&changed), json!({"a": "1"}), "m1", false).unwrap_err();
    assert_eq!(error.message(), "Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.a");
    let mut same = changed.clone();
    track_update(&maps, Some(&changed), &mut same, "somebody", "", "2026-01-01T00:00:09Z");
    assert_eq!(same, changed);
}

#[test]
fn an_empty_list_resets_managed_fields() {
    let maps = row("", "configmaps");
    let applied = apply_map(None, json!({"a": "1"}), "m1", false).unwrap();
    for (list, kept) in [(json!([{}]), false), (json!([]), false), (Value::Null, true)] {
        let mut new = applied.clone();
        new["metadata"]["managedFields"] = list.clone();
        track_update(&maps, Some(&applied), &mut new, "m2", "", T2);
        assert_eq!(new["metadata"]["managedFields"].is_array(), kept, "{list}");
    }
    let mut untracked = applied.clone();
    untracked["metadata"].as_object_mut().unwrap().remove("managedFields");
    let next = apply_map(Some(&untracked), json!({"b": "1"}), "m2", false).unwrap();
    assert_eq!(owner(&next, "before-first-apply"), json!({"f:data": {".": {}, "f:a": {}}}));
}

#[test]
fn list_items_merge_by_key_with_defaults() {
    let services = row("", "services");
    let service = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}});
    let apply_service = |live: Option<&Value>, ports: Value, manager: &str| {
        apply(&services, live, &service(ports), manager, false, "", T1)
    };
    let live = apply_service(None, json!([{"port": 80, "protocol": "TCP", "name": "a"}]), "m1").unwrap();
    let both =
        apply_service(Some(&live), json!([{"port": 80, "targetPort": 8080}, {"port": 80, "protocol": "UDP"}]), "m2")
            .unwrap();
    assert_eq!(
        both["spec"]["ports"],
        json!([{"port": 80, "protocol": "TCP", "name": "a", "targetPort": 8080}, {"port": 80, "protocol": "UDP"}])
    );
    let less = apply_service(Some(&both), json!([{"port": 80, "targetPort": 8080}]), "m2").unwrap();
    assert_eq!(less["spec"]["ports"].as_array().unwrap().len(), 1);
    let none = apply_service(Some(&less), json!([]), "m1").unwrap();
    assert_eq!(none["spec"]["ports"], json!([{"port": 80, "targetPort": 8080}]), "the default comes back later");
    let error = apply_service(None, json!([{"port": 1}, {"port": 1}]), "m1").unwrap_err();
    assert_eq!(error.code(), 500);
    assert!(error.message().contains("duplicate entries for key [port=1,protocol=\"TCP\"]"), "{error}");
}

#[test]
fn an_abandoned_struct_goes_with_its_defaults() {
    let pods = row("", "pods");
    let pod = |probe: Option<Value>| {
        let mut container = json!({"name": "c", "image": "i"});
        if let Some(probe) = probe {
            container["livenessProbe"] = probe;
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}})
    };
    let probe = json!({"exec": {"command": ["x"]}});
    let mut live = apply(&pods, None, &pod(Some(probe)), "m", false, "", T1).unwrap();
    live["spec"]["containers"][0]["livenessProbe"]["periodSeconds"] = 10.into();
    let next = apply(&pods, Some(&live), &pod(None), "m", false, "", T1).unwrap();
    assert_eq!(next["spec"]["containers"], json!([{"name": "c", "image": "i"}]));
}

#[test]
fn endpoints_own_only_what_they_change() {
    let deployments = row("apps", "deployments");
    let live = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "uid": "u"},
        "spec": {"replicas": 1}, "status": {"replicas": 0}});
    let mut tracked = live.clone();
    track_update(&deployments, None, &mut tracked, "m", "", T1);
    assert_eq!(owner(&tracked, "m"), json!({"f:spec": {"f:replicas": {}}}));
    let mut status = tracked.clone();
    status["status"]["replicas"] = 1.into();
    status["spec"]["replicas"] = 5.into();
    track_update(&deployments, Some(&tracked), &mut status, "controller", "status", T2);
    assert_eq!(owner(&status, "controller"), json!({"f:status": {"f:replicas": {}}}));
    assert_eq!(owner(&status, "m"), json!({"f:spec": {"f:replicas": {}}}));
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 3}});
    assert_eq!(apply(&deployments, Some(&tracked), &scale, "hpa", false, "scale", T2).unwrap_err().code(), 409);
    let scaled = apply(&deployments, Some(&tracked), &scale, "hpa", true, "scale", T2).unwrap();
    assert_eq!((&scaled["spec"]["replicas"], owner(&scaled, "m")), (&3.into(), Value::Null));
}

#[test]
fn there_are_only_so_many_updaters() {
    let maps = row("", "configmaps");
    let mut object = config_map(json!({}));
    track_update(&maps, None, &mut object, "m", "", T1);
    for number in 0..15 {
        let mut next = object.clone();
        next["data"][format!("k{number}")] = "v".into();
        track_update(
            &maps,
            Some(&object),
            &mut next,
            &format!("m{number}"),
            "",
            &format!("2026-01-01T00:01:{number:02}Z"),
        );
        object = next;
    }
    assert_eq!(owners(&object).len(), 10);
    assert_eq!(owner(&object, "ancient-changes")["f:data"].as_object().unwrap().len(), 7);
}

#[test]
fn kubectl_moves_from_client_side_apply() {
    let maps = row("", "configmaps");
    let mut live = config_map(json!({"a": "1"}));
    live["metadata"]["annotations"] = json!({LAST_APPLIED: config_map(json!({"a": "1"})).to_string()});
    track_update(&maps, None, &mut live, "kubectl-client-side-apply", "", T1);
    assert_eq!(apply_map(Some(&live), json!({"a": "2"}), "other", false).unwrap_err().code(), 409);
    let next = apply_map(Some(&live), json!({"a": "2"}), "kubectl", false).unwrap();
    assert_eq!(next["data"]["a"], "2");
    let annotation = next["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert!(annotation.contains("\"a\":\"2\""), "{annotation}");
}

#[test]
fn defaults_left_out_of_atomic_values_do_not_conflict() {
    let pods = row("", "pods");
    let pod = |reference: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "c", "image": "i", "env": [{"name": "E", "valueFrom": {"fieldRef": reference}}]}]}})
    };
    let mut live = pod(json!({"apiVersion": "v1", "fieldPath": "metadata.name"}));
    crate::default::apply_defaults(&pods, &mut live);
    track_update(&pods, None, &mut live, "creator", "", T1);
    let same = json!({"fieldPath": "metadata.name"});
    assert!(apply(&pods, Some(&live), &pod(same), "m", false, "", T2).is_ok());
    let other = json!({"fieldPath": "metadata.uid"});
    assert_eq!(apply(&pods, Some(&live), &pod(other), "m", false, "", T2).unwrap_err().code(), 409);
}

#[test]
fn custom_resources_follow_their_schema() {
    let schema = crate::structural::parse(
        &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}, "name": {"type": "string"}}}},
            "names": {"type": "array", "items": {"type": "string"}},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}}}),
        &crate::field::FieldPath::default(),
    )
    .unwrap();
    let resource = Resource::from(crate::resource::CustomResource {
        group: "example.com".into(),
        version: "v1".into(),
        kind: "Foo".into(),
        plural: "foos".into(),
        namespaced: true,
        ..Default::default()
    });
    let foo =
        |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "f"}, "spec": spec});
    let manager = |name: &'static str| Manager {
        resource: &resource,
        schema: Some(&schema),
        name,
        subresource: "",
        now: T1,
        versions: &OneVersion,
    };
    let first = foo(
        json!({"ports": [{"port": 1, "name": "a"}], "names": ["x"], "template": {"metadata": {"namespace": "n"}, "any": 1}}),
    );
    let live = manager("m1").apply(None, &first, false).unwrap();
    let both = manager("m2").apply(Some(&live), &foo(json!({"ports": [{"port": 2}]})), false).unwrap();
    assert_eq!(both["spec"]["ports"], json!([{"port": 1, "name": "a"}, {"port": 2}]));
    let conflict = manager("m2").apply(Some(&both), &foo(json!({"names": ["y"]})), false).unwrap_err();
    assert_eq!(conflict.message(), "Apply failed with 1 conflict: conflict with \"m1\": .spec.names");
    let unknown = manager("m1").apply(None, &foo(json!({"other": 1})), false).unwrap_err();
    assert!(unknown.message().ends_with("Kind=Foo): .spec.other: field not declared in schema"), "{unknown}");
}

fn custom(properties: Value) -> Resource {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}});
    let schema = crate::custom::CustomSchema::compile(&schema, &crate::field::FieldPath::new("schema")).unwrap();
    let mut row = Resource::from(crate::resource::CustomResource {
        group: "x.io".into(),
        version: "v1".into(),
        kind: "Thing".into(),
        ..Default::default()
    });
    row.custom_schema = Some(Arc::new(schema));
    row
}

fn thing(spec: Value) -> Value {
    json!({"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec})
}

#[test]
fn what_is_applied_to_custom_objects_has_the_types_of_their_schema() {
    let text = json!({"type": "string"});
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"inner": {"type": "object", "properties": {"a": text}}}});
    let row = custom(json!({"s": text, "when": {"type": "string", "format": "date-time"}, "n": {"type": "integer"},
        "b": {"type": "boolean"}, "m": {"type": "object", "properties": {"a": text}}, "l": {"type": "array", "items": text},
        "either": {"x-kubernetes-int-or-string": true}, "empty": {"type": "object"}, "open": open}));
    let prefix = "failed to create typed patch object (/t; x.io/v1, Kind=Thing): .spec";
    for (spec, expected) in [
        (json!({"s": 5}), ".s: expected string, got &value.valueUnstructured{Value:5}"),
        (json!({"s": ["a"]}), ".s: expected string, got &value.valueUnstructured{Value:[]interface {}{\"a\"}}"),
        (json!({"when": 5}), ""),
        (json!({"when": {"a": 1}}), ".when: expected any scalar, got &{map[a:1]}"),
        (json!({"n": "5"}), ".n: expected numeric (int or float), got string"),
        (json!({"b": "x"}), ".b: expected boolean, got &{x}"),
        (json!({"m": "x"}), ".m: expected map, got &{x}"),
        (json!({"m": {"z": 1}}), ".m.z: field not declared in schema"),
        (json!({"l": {"a": "x"}}), ".l: expected list, got &{map[a:x]}"),
        (json!({"either": [1], "empty": {"a": 1}, "open": {"inner": {"z": 1}}, "m": null}), ""),
    ] {
        let found =
            apply(&row, None, &thing(spec.clone()), "m", false, "", T1).map(drop).map_err(|e| e.message().to_owned());
        let expected = if expected.is_empty() { Ok(()) } else { Err(format!("{prefix}{expected}")) };
        assert_eq!(found, expected, "{spec}");
    }
}

#[test]
fn a_null_is_a_value_where_nothing_merges() {
    let text = json!({"type": "string", "nullable": true});
    let row = custom(json!({"s": text, "m": {"type": "object", "properties": {"a": text}}}));
    let live = apply(&row, None, &thing(json!({"s": "x", "m": {"a": "x"}})), "m1", false, "", T1).unwrap();
    let applied = apply(&row, Some(&live), &thing(json!({"s": null, "m": null})), "m2", true, "", T2).unwrap();
    assert_eq!(applied["spec"], json!({"s": null, "m": {"a": "x"}}));
    let fresh = apply(&row, None, &thing(json!({"m": null})), "m1", false, "", T1).unwrap();
    assert_eq!(fresh["spec"], json!({"m": null}));
}

#[test]
fn metadata_of_embedded_resources_is_owned_by_what_is_in_it() {
    let row = custom(
        json!({"t": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}),
    );
    let template = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"a": 1}});
    let applied = apply(&row, None, &thing(json!({"t": template})), "m", false, "", T1).unwrap();
    let owned = json!({"f:apiVersion": {}, "f:kind": {}, "f:metadata": {"f:name": {}}, "f:spec": {".": {}, "f:a": {}}});
    assert_eq!(owner(&applied, "m"), json!({"f:spec": {"f:t": owned}}));
}

#[test]
fn who_scales_has_no_time() {
    let deployments = row("apps", "deployments");
    let old =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1}});
    let mut old_tracked = old.clone();
    track_update(&deployments, None, &mut old_tracked, "m", "", T1);
    let mut new = old_tracked.clone();
    new["spec"]["replicas"] = 2.into();
    track_update(&deployments, Some(&old_tracked), &mut new, "scaler", "scale", T2);
    let entry =
        new["metadata"]["managedFields"].as_array().unwrap().iter().find(|e| e["subresource"] == "scale").unwrap();
    assert_eq!((entry["manager"].as_str(), entry.get("time")), (Some("scaler"), None));
}
