#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

#[test]
fn a_body_that_is_no_object_is_told_of_in_gos_words() {
    let row = crate::resource::ResourceTable::builtin().get("", "v1", "configmaps").unwrap();
    let check = |body: Value| check_value(&row, body, FieldValidation::Ignore);
    assert_eq!(check(Value::Null).unwrap().value["kind"], "ConfigMap");
    for (version, code) in [("v1", 200), ("", 200), ("/v1", 200), ("//v1", 400), ("/v2", 400), ("core/v1", 400)] {
        let told = check(json!({"apiVersion": version})).map(|decoded| decoded.value["apiVersion"].clone());
        assert_eq!(told.map_or_else(|e| e.code(), |v| if v == "v1" { 200 } else { 0 }), code, "{version:?}");
    }
    let message = check(json!("x")).unwrap_err().message().to_owned();
    assert_eq!(
        message,
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal string into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" } (227822)"
    );
}

#[test]
fn nulls_are_absent_members_and_zero_elements() {
    let cases = [
        ("ConfigMap", json!({"data": {"a": null, "b": "c"}}), json!({"data": {"a": "", "b": "c"}})),
        ("ConfigMap", json!({"data": null}), json!({})),
        ("Secret", json!({"data": {"a": null}}), json!({"data": {"a": ""}})),
        ("Namespace", json!({"metadata": {"labels": {"a": null}}}), json!({"metadata": {"labels": {"a": ""}}})),
        ("Namespace", json!({"spec": {"finalizers": [null]}}), json!({"spec": {"finalizers": [""]}})),
        ("ResourceQuota", json!({"spec": {"hard": {"pods": null}}}), json!({"spec": {"hard": {"pods": "0"}}})),
        ("Pod", json!({"spec": {"containers": [null]}}), json!({"spec": {"containers": [{}]}})),
    ];
    for (kind, given, expected) in cases {
        let ty = crate::schema::find(&format!("io.k8s.api.core.v1.{kind}")).unwrap();
        let (mut value, mut walk) = (given.clone(), Walk::default());
        walk.value(ty.shape(), &mut value).unwrap();
        assert_eq!(value, expected, "{kind} {given}");
    }
}

#[test]
fn custom_objects_say_what_they_are() {
    let row: Resource = crate::resource::CustomResource {
        group: "g.example.com".into(),
        version: "v1".into(),
        storage_version: "v1".into(),
        plural: "widgets".into(),
        kind: "Widget".into(),
        ..Default::default()
    }
    .into();
    for (body, code) in [
        (json!({"apiVersion": "g.example.com/v1", "kind": "Widget"}), 200),
        (json!({"apiVersion": "g.example.com/v1"}), 400),
        (json!({"kind": "Widget"}), 400),
        (json!({"apiVersion": "g.example.com/v1", "kind": "Gadget"}), 422),
        (json!({"apiVersion": "g.example.com/v2", "kind": "Widget"}), 400),
    ] {
        let found = check_value(&row, body.clone(), FieldValidation::Warn).map_or_else(|e| e.code(), |_| 200);
        assert_eq!(found, code, "{body}");
    }
}
