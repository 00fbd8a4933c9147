//! Laws of patches: what a client finds out as the difference leads from the one object to the other.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::resource::ResourceTable;
use crate::schema::Shape;

fn arbitrary_pod() -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[abc]", "[12]", 0..4);
    let finalizers = proptest::sample::subsequence(vec!["x/a", "x/b", "x/c"], 0..4).prop_shuffle();
    let names = proptest::sample::subsequence(vec!["a", "b", "c", "d"], 0..5).prop_shuffle();
    let parts = proptest::collection::vec(
        (proptest::option::of("[12]"), 0..3_usize, proptest::collection::btree_map("[AB]", "[12]", 0..3)),
        4,
    );
    (labels, finalizers, names, parts).prop_map(|(labels, finalizers, names, parts)| {
        let containers = names.iter().zip(parts).map(|(name, (image, args, env))| {
            let env: Vec<Value> = env.iter().map(|(k, v)| json!({"name": k, "value": v})).collect();
            let mut container = json!({"name": name, "args": vec!["x"; args]});
            if let Some(image) = image {
                container["image"] = image.into();
            }
            if !env.is_empty() {
                container["env"] = env.into();
            }
            container
        });
        json!({"metadata": {"labels": labels, "finalizers": finalizers}, "spec": {"containers": containers.collect::<Value>()}})
    })
}

/// The strategic merge patch that leads from `old` to `new`, as kubectl makes it.
fn difference(shape: Shape, old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new.iter().filter(|(key, value)| old.get(*key) != Some(value)) {
        let field = shape.field(key);
        match (old.get(key), value) {
            (Some(Value::Object(before)), Value::Object(after)) => {
                let inner = shape.member(key).unwrap_or(Shape::Any);
                patch.insert(key.clone(), difference(inner, before, after).into());
            }
            (Some(Value::Array(before)), Value::Array(after)) if field.is_some_and(|f| f.merges()) => {
                lists(field.unwrap(), key, before, after, &mut patch);
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    patch
}

fn lists(
    field: &'static crate::schema::Field,
    key: &str,
    old: &[Value],
    new: &[Value],
    patch: &mut Map<String, Value>,
) {
    let merge_key = field.patch_merge_key;
    let order = |item: &Value| if merge_key.is_empty() { item.clone() } else { json!({merge_key: item[merge_key]}) };
    let same = |a: &Value, b: &Value| order(a) == order(b);
    let mut items = Vec::new();
    for item in new {
        match old.iter().find(|before| same(before, item)) {
            None => items.push(item.clone()),
            Some(before) if before != item => {
                let inner = field.element();
                let mut change = difference(inner, before.as_object().unwrap(), item.as_object().unwrap());
                change.insert(merge_key.into(), item[merge_key].clone());
                items.push(change.into());
            }
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|before| !new.iter().any(|item| same(before, item)));
    if merge_key.is_empty() {
        let gone: Vec<Value> = gone.cloned().collect();
        if !gone.is_empty() {
            patch.insert(format!("$deleteFromPrimitiveList/{key}"), gone.into());
        }
    } else {
        items.extend(gone.map(|item| json!({merge_key: item[merge_key], "$patch": "delete"})));
    }
    patch.insert(format!("$setElementOrder/{key}"), new.iter().map(order).collect());
    if !items.is_empty() {
        patch.insert(key.into(), items.into());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_difference_leads_from_one_object_to_the_other(old in arbitrary_pod(), new in arbitrary_pod()) {
        let pods = ResourceTable::builtin().stored("", "pods").unwrap();
        let patch = Value::from(difference(pods.shape(), old.as_object().unwrap(), new.as_object().unwrap()));
        let patched = strategic_merge_patch(pods.shape(), &old, &patch).unwrap();
        prop_assert_eq!(&patched, &new, "{}", &patch);
        // Once more changes nothing, and so does the difference of what is the same.
        prop_assert_eq!(&strategic_merge_patch(pods.shape(), &patched, &patch).unwrap(), &new);
        prop_assert!(difference(pods.shape(), new.as_object().unwrap(), new.as_object().unwrap()).is_empty());
    }

    #[test]
    fn merge_patches_of_different_members_commute(object in arbitrary_pod(), one in "[12]", other in "[34]") {
        let (a, b) = (json!({"metadata": {"labels": {"a": one}}}), json!({"metadata": {"labels": {"z": other}}, "x": null}));
        let ab = merge_patch(&merge_patch(&object, &a), &b);
        prop_assert_eq!(merge_patch(&merge_patch(&object, &b), &a), ab.clone());
        prop_assert_eq!(merge_patch(&ab, &a), ab);
    }
}
