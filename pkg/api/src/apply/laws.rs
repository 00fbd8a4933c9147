//! Laws that hold for any objects and managers.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{T1, T2, row};
use super::*;

/// Configurations of two managers, over a map, a set and a keyed list.
fn arbitrary_pod() -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[ab]", "[12]", 0..3);
    let finalizers = proptest::collection::btree_set("x/[abc]", 0..3);
    let containers = proptest::collection::btree_map("[abc]", (proptest::option::of("[12]"), any::<bool>()), 0..3);
    (labels, finalizers, containers).prop_map(|(labels, finalizers, containers)| {
        let containers: Vec<Value> = containers
            .into_iter()
            .map(|(name, (image, probe))| {
                let mut container = json!({"name": name, "image": image});
                if probe {
                    container["livenessProbe"] = json!({"exec": {"command": ["x"]}, "periodSeconds": 5});
                }
                container
            })
            .collect();
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels, "finalizers": finalizers},
            "spec": {"containers": containers}})
    })
}

fn without_nulls(value: &Value) -> Value {
    crate::patch::merge_patch(&json!({}), value)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_again_changes_nothing(first in arbitrary_pod(), second in arbitrary_pod()) {
        let pods = row("", "pods");
        let live = apply(&pods, None, &first, "m1", false, "", T1).unwrap();
        let once = apply(&pods, Some(&live), &second, "m2", true, "", T1).unwrap();
        let twice = apply(&pods, Some(&once), &second, "m2", false, "", T2).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn the_only_applier_decides_alone(first in arbitrary_pod(), second in arbitrary_pod()) {
        let pods = row("", "pods");
        let live = apply(&pods, None, &first, "m", false, "", T1).unwrap();
        let mut next = apply(&pods, Some(&live), &second, "m", false, "", T1).unwrap();
        next["metadata"].as_object_mut().unwrap().remove("managedFields");
        let fresh = apply(&pods, None, &second, "m", false, "", T1).unwrap();
        for path in ["/metadata/labels", "/metadata/finalizers", "/spec/containers"] {
            let (left, right) = (next.pointer(path), fresh.pointer(path));
            let empty = |v: Option<&Value>| v.is_none_or(is_empty_container);
            prop_assert!(left == right || (empty(left) && empty(right)), "{}: {:?} {:?}", path, left, right);
        }
    }

    #[test]
    fn an_update_is_owned_by_its_author(first in arbitrary_pod(), second in arbitrary_pod()) {
        let pods = row("", "pods");
        let live = apply(&pods, None, &first, "m1", false, "", T1).unwrap();
        let mut new = without_nulls(&second);
        new["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
        track_update(&pods, Some(&live), &mut new, "m2", "", T2);
        let entries = Entries::of(&new).unwrap();
        // Everything that is there belongs to somebody, and nobody owns what is gone.
        let all = walk::compare(Place::of(&pods, None), &Place::of(&pods, None).zero(), &new).touched;
        for path in entries.0.iter().flat_map(|entry| entry.fields.paths()) {
            prop_assert!(all.paths().contains(&path), "{} is gone", path);
        }
        for entry in &entries.0 {
            let others = entries.0.iter().filter(|other| !other.is(entry));
            let changed = walk::compare(Place::of(&pods, None), &live, &new).touched;
            if entry.manager == "m2" {
                prop_assert!(others.clone().all(|o| o.fields.intersection(&entry.fields).is_empty()));
                prop_assert!(entry.fields.paths().iter().all(|p| changed.paths().contains(p)));
            }
        }
    }

    #[test]
    fn who_applies_nothing_leaves_what_others_own(first in arbitrary_pod(), second in arbitrary_pod()) {
        let pods = row("", "pods");
        let live = apply(&pods, None, &first, "m1", false, "", T1).unwrap();
        let both = apply(&pods, Some(&live), &second, "m2", true, "", T1).unwrap();
        let nothing = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
        let left = apply(&pods, Some(&both), &nothing, "m2", false, "", T2).unwrap();
        let entries = Entries::of(&left).unwrap();
        prop_assert!(entries.0.iter().all(|entry| entry.manager != "m2"));
        // What the other still owns is there, and nothing else of the lists and maps.
        let owned: Vec<String> = entries.0.iter().flat_map(|entry| entry.fields.paths()).collect();
        let there = walk::compare(Place::of(&pods, None), &Place::of(&pods, None).zero(), &left).touched.paths();
        for path in &owned {
            prop_assert!(there.contains(path), "{} is gone", path);
        }
        for path in there.iter().filter(|path| path.contains("labels.") || path.contains("finalizers[")) {
            prop_assert!(owned.contains(path), "{} is nobody's", path);
        }
    }

    #[test]
    fn managers_of_different_fields_commute(first in arbitrary_pod(), label in "[12]", toleration in "[ab]") {
        let pods = row("", "pods");
        let second = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "annotations": {"z": label}},
            "spec": {"nodeSelector": {"t": toleration}}});
        let run = |configs: [(&Value, &str); 2]| {
            let mut live = None;
            for (config, manager) in configs {
                live = Some(apply(&pods, live.as_ref(), config, manager, false, "", T1).unwrap());
            }
            live.unwrap()
        };
        prop_assert_eq!(run([(&first, "m1"), (&second, "m2")]), run([(&second, "m2"), (&first, "m1")]));
    }
}
