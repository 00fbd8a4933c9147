use super::*;

fn definition(plural: &str, kind: &str, uid: &str) -> Value {
    json!({
        "metadata": {"name": format!("{plural}.example.com"), "uid": uid, "generation": 1},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": ["w"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                    "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}},
                 "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
                 "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                 "selectableFields": [{"jsonPath": ".spec.size"}]},
                {"name": "v0", "served": true, "storage": false, "deprecated": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v00", "served": false, "storage": false}
            ]
        }
    })
}

#[test]
fn a_new_definition_is_established_and_makes_a_row_per_served_version() {
    let mut widgets = definition("widgets", "Widget", "1");
    widgets["status"] = status(&widgets, &[], "2026-01-01T00:00:00Z");
    assert!(is_established(&widgets));
    assert_eq!(widgets["status"]["storedVersions"], json!(["v1"]));
    let rows = rows(&widgets);
    assert_eq!(rows.iter().map(|r| r.version.as_str()).collect::<Vec<_>>(), ["v1", "v0"]);
    assert!(rows[0].has_status() && rows[0].subresource("scale").is_some() && rows[0].custom_schema.is_some());
    assert_eq!(rows[0].selectable_fields, ["spec.size"]);
    assert_eq!(
        (&*rows[0].storage_hash, &*rows[1].storage_hash),
        ("gIwvi5rymmg=", "gIwvi5rymmg="),
        "of the stored version in each"
    );
    assert_eq!(
        rows[1].deprecation_warning.as_deref(),
        Some("example.com/v0 Widget is deprecated; use example.com/v1 Widget")
    );
    let again = status(&widgets, &[], "2027-01-01T00:00:00Z");
    assert_eq!(again, widgets["status"], "nothing changes without a reason");
}

#[test]
fn names_of_others_are_refused_until_they_are_free() {
    let mut first = definition("widgets", "Widget", "1");
    first["status"] = status(&first, &[], "t");
    let second = definition("gadgets", "Widget", "2");
    let refused = status(&second, &[&first], "t");
    let accepted = find_condition(&refused, "NamesAccepted").unwrap();
    assert_eq!((&accepted["status"], &accepted["reason"]), (&json!("False"), &json!("ListKindConflict")));
    assert_eq!(find_condition(&refused, "Established").unwrap()["status"], "False");
    assert_eq!(find_condition(&status(&second, &[], "t"), "Established").unwrap()["status"], "True");
}

#[test]
fn schemas_and_protected_groups_are_judged() {
    let mut bad = definition("widgets", "Widget", "1");
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] = json!({});
    bad["spec"]["group"] = "x.k8s.io".into();
    let status = status(&bad, &[], "t");
    let schema = find_condition(&status, "NonStructuralSchema").unwrap();
    assert!(schema["message"].as_str().unwrap().contains("properties[size].type: Required value"), "{schema}");
    assert_eq!(
        find_condition(&status, "KubernetesAPIApprovalPolicyConformant").unwrap()["reason"],
        "MissingAnnotation"
    );
}

#[tokio::test]
async fn a_definition_is_served_while_it_exists_and_its_objects_go_with_it() {
    use std::sync::Arc;
    use std::time::Duration;

    use arc_swap::ArcSwap;
    use kube1_api::resource::ResourceTable;
    use tokio_util::sync::CancellationToken;

    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(kube1_store::EmbeddedStore::open(dir.path()).unwrap());
    let builtin = ResourceTable::builtin();
    let storage = crate::storage::Storage::open(store, &builtin, None).await.unwrap();
    let definitions = storage.collection(&builtin.stored("apiextensions.k8s.io", "customresourcedefinitions").unwrap());
    let table = Arc::new(ArcSwap::from_pointee(builtin));
    let controller = DefinitionController::new(storage.clone(), table.clone()).unwrap();
    let cancel = CancellationToken::new();
    let running = tokio::spawn({
        let cancel = cancel.clone();
        async move { controller.run(cancel).await }
    });
    let wait = |what: &'static str, done: Box<dyn Fn() -> bool>| async move {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(std::time::Instant::now() < deadline, "{what}");
            tokio::task::yield_now().await;
        }
    };

    let mut widgets = definition("widgets", "Widget", "1");
    widgets["apiVersion"] = "apiextensions.k8s.io/v1".into();
    widgets["kind"] = "CustomResourceDefinition".into();
    definitions.create(widgets).await.unwrap();
    let served = table.clone();
    wait("served", Box::new(move || served.load().get("example.com", "v1", "widgets").is_some())).await;

    let row = table.load().get("example.com", "v1", "widgets").unwrap();
    let widgets = storage.collection(&row);
    let mut watch = widgets.watch(None, &crate::options::ListOptions::default()).await.unwrap();
    for (name, finalizers) in [("a", json!([])), ("held", json!(["example.com/f"]))] {
        let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget",
            "metadata": {"name": name, "namespace": "n", "finalizers": finalizers}});
        widgets.create(widget).await.unwrap();
    }
    // Its status is written until it stands still.
    loop {
        let stored = definitions.get("", "widgets.example.com").unwrap();
        let mut dying = stored.value();
        dying["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        dying["metadata"]["finalizers"] = json!([CLEANUP_FINALIZER]);
        if definitions.update(dying, stored.revision()).await.is_ok() {
            break;
        }
    }
    let held = definitions.clone();
    let told = move || is_terminating(&held.get("", "widgets.example.com").unwrap().value());
    wait("told that objects are left", Box::new(told)).await;
    let served = table.clone();
    let closing = move || served.load().get("example.com", "v1", "widgets").is_some_and(|row| row.terminating);
    wait("takes no more", Box::new(closing)).await;
    let left = widgets.clone();
    wait("deleted as far as it may be", Box::new(move || left.len() == 1)).await;
    let mut object = widgets.get("n", "held").unwrap();
    while !object.is_deleting() {
        tokio::task::yield_now().await;
        object = widgets.get("n", "held").unwrap();
    }
    widgets.delete("n", "held", object.revision()).await.unwrap();
    let gone = definitions.clone();
    wait("removed", Box::new(move || gone.is_empty())).await;
    assert!(storage.collection(&row).is_empty());
    let served = table.clone();
    wait("no longer served", Box::new(move || served.load().get("example.com", "v1", "widgets").is_none())).await;
    use futures::StreamExt;
    while watch.next().await.is_some() {}
    cancel.cancel();
    running.await.unwrap();
}

#[test]
fn what_is_stored_is_read_by_the_schema_of_its_version() {
    let schema = |properties: Value| json!({"openAPIV3Schema": {"type": "object", "properties": properties}});
    let text = json!({"type": "string"});
    let mut widgets = definition("widgets", "Widget", "1");
    widgets["spec"]["versions"] = json!([
        {"name": "v1", "served": true, "storage": true,
            "schema": schema(json!({"a": text, "d": {"type": "string", "default": "x"}, "e": text}))},
        {"name": "v2", "served": true, "storage": false,
            "schema": schema(json!({"a": text, "f": {"type": "string", "default": "y"}}))}]);
    widgets["status"] = status(&widgets, &[], "t");
    let rows = rows(&widgets);
    let shown = |row: usize, version: &str| {
        let mut object =
            json!({"apiVersion": format!("example.com/{version}"), "kind": "Widget", "a": "1", "e": "2", "z": 1});
        crate::convert::shown(&rows[row], &mut object);
        object
    };
    let widget = |version: &str, rest: Value| {
        kube1_api::patch::merge_patch(&json!({"apiVersion": format!("example.com/{version}"), "kind": "Widget"}), &rest)
    };
    assert_eq!(shown(0, "v1"), widget("v1", json!({"a": "1", "d": "x", "e": "2"})));
    assert_eq!(shown(1, "v1"), widget("v2", json!({"a": "1", "d": "x", "e": "2"})), "changed in name only");
    assert_eq!(shown(1, "v2"), widget("v2", json!({"a": "1"})), "through the version that is stored");
}
