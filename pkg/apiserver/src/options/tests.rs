#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn list_options_are_checked_as_upstream_does() {
    for (query, watch, code) in [
        ("limit=5&resourceVersion=0", false, 200),
        ("resourceVersionMatch=Exact", false, 422),
        ("resourceVersionMatch=Exact&resourceVersion=0", false, 422),
        ("resourceVersionMatch=Exact&resourceVersion=7", false, 200),
        ("resourceVersionMatch=Other&resourceVersion=7", false, 422),
        ("sendInitialEvents=true", false, 422),
        ("sendInitialEvents=true", true, 422),
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true, 200),
        ("resourceVersionMatch=NotOlderThan", true, 422),
        ("resourceVersion=x", true, 400),
        ("resourceVersion=x", false, 400),
        ("resourceVersionMatch=Other&resourceVersion=x", false, 422),
        ("resourceVersionMatch=Exact&resourceVersion=x&continue=y", false, 422),
        ("limit=x", false, 400),
        ("labelSelector=a b", false, 400),
    ] {
        let found = ListOptions::parse(&Query::parse(query), watch).map_or_else(|e| e.code(), |_| 200);
        assert_eq!(found, code, "{query}");
    }
}

#[test]
fn delete_options_come_from_the_body_or_the_query() {
    let query = Query::parse("gracePeriodSeconds=-1&propagationPolicy=Orphan");
    let options = DeleteOptions::parse(&query, None).unwrap();
    assert_eq!((options.grace_period_seconds, options.propagation), (Some(1), Some(Propagation::Orphan)));
    let body = json!({"orphanDependents": false, "preconditions": {"uid": "u"}});
    let options = DeleteOptions::parse(&query, Some(&body)).unwrap();
    assert_eq!((options.propagation, options.uid.as_deref()), (Some(Propagation::Background), Some("u")));
    let both = json!({"orphanDependents": true, "propagationPolicy": "Orphan"});
    assert_eq!(DeleteOptions::parse(&query, Some(&both)).unwrap_err().code(), 422);
    let dry = json!({"dryRun": ["None"]});
    assert_eq!(DeleteOptions::parse(&query, Some(&dry)).unwrap_err().code(), 422);
}

#[test]
fn delete_options_of_other_types_are_refused() {
    for (body, fits) in [
        (json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "dryRun": ["All"]}), true),
        (json!({"kind": "", "preconditions": {"uid": null}, "orphanDependents": null}), true),
        (json!({"kind": "Pod"}), false),
        (json!([]), false),
        (json!({"gracePeriodSeconds": "soon"}), false),
        (json!({"gracePeriodSeconds": 1.5}), false),
        (json!({"preconditions": {"uid": 7}}), false),
        (json!({"preconditions": "x"}), false),
        (json!({"dryRun": "All"}), false),
    ] {
        let found = DeleteOptions::parse(&Query::default(), Some(&body)).map_or_else(|e| e.code(), |_| 200);
        assert_eq!(found, if fits { 200 } else { 400 }, "{body}");
    }
}

#[test]
fn the_field_manager_falls_back_to_the_user_agent() {
    let options = WriteOptions::parse(&Query::parse("dryRun=All"), "kubectl/v1.36", "CreateOptions").unwrap();
    assert!(options.dry_run && options.field_manager == "kubectl" && !options.manager_given);
    assert!(WriteOptions::parse(&Query::parse("dryRun=x"), "", "CreateOptions").is_err());
}
