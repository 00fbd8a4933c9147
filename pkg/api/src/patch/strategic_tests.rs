#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::schema;

fn patched(ty: &str, object: Value, patch: Value) -> Result<Value, Status> {
    strategic_merge_patch(schema::find(ty).unwrap().shape(), &object, &patch)
}

const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";

#[test]
fn lists_merge_by_key_and_null_deletes() {
    let object = json!({"containers": [{"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}],
        "nodeSelector": {"x": "1", "y": "2"}, "hostname": "h"});
    let patch = json!({"containers": [{"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}]}, {"name": "c", "image": null}],
        "nodeSelector": {"x": null, "z": "3"}, "hostname": null});
    assert_eq!(
        patched(POD_SPEC, object, patch).unwrap(),
        json!({"containers": [
            {"name": "a", "image": "a:2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
            {"name": "b"}, {"name": "c"}], "nodeSelector": {"y": "2", "z": "3"}})
    );
}

#[test]
fn directives_of_lists_and_maps() {
    let object = json!({"containers": [{"name": "a"}, {"name": "b"}], "nodeSelector": {"x": "1"}});
    for (patch, expected) in [
        (
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b"}], "nodeSelector": {"x": "1"}}),
        ),
        (
            json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}),
            json!({"containers": [{"name": "z"}], "nodeSelector": {"x": "1"}}),
        ),
        (
            json!({"nodeSelector": {"$patch": "replace", "y": "2"}}),
            json!({"containers": [{"name": "a"}, {"name": "b"}], "nodeSelector": {"y": "2"}}),
        ),
        (
            json!({"nodeSelector": {"$patch": "delete"}}),
            json!({"containers": [{"name": "a"}, {"name": "b"}], "nodeSelector": {}}),
        ),
        (json!({"$patch": "replace", "hostname": "h"}), json!({"hostname": "h"})),
    ] {
        assert_eq!(patched(POD_SPEC, object.clone(), patch.clone()).unwrap(), expected, "{patch}");
    }
}

#[test]
fn scalars_merge_as_a_set() {
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let object = json!({"finalizers": ["a", "b", "c"]});
    let patch = json!({"finalizers": ["b", "d"], "$deleteFromPrimitiveList/finalizers": ["a"]});
    assert_eq!(patched(meta, object.clone(), patch).unwrap(), json!({"finalizers": ["b", "c", "d"]}));
    let patch = json!({"finalizers": ["d"], "$setElementOrder/finalizers": ["d", "c", "b"],
        "$deleteFromPrimitiveList/finalizers": ["a"]});
    assert_eq!(patched(meta, object, patch).unwrap(), json!({"finalizers": ["d", "c", "b"]}));
}

#[test]
fn the_order_of_elements_can_be_set() {
    let object = json!({"containers": [{"name": "s1"}, {"name": "a"}, {"name": "s2"}, {"name": "b"}]});
    let patch = json!({"containers": [{"name": "c"}, {"name": "b", "image": "x"}],
        "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}]});
    let merged = patched(POD_SPEC, object.clone(), patch).unwrap();
    let names: Vec<_> = merged["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["c", "s1", "s2", "b", "a"]);
    let wrong = json!({"containers": [{"name": "b"}, {"name": "a"}], "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]});
    assert_eq!(patched(POD_SPEC, object, wrong).unwrap_err().code(), 500);
}

#[test]
fn unions_retain_only_their_keys() {
    let deployment = "io.k8s.api.apps.v1.DeploymentSpec";
    let object = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
    let patch = json!({"strategy": {"type": "Recreate", "$retainKeys": ["type"]}});
    assert_eq!(patched(deployment, object.clone(), patch).unwrap(), json!({"strategy": {"type": "Recreate"}}));
    let patch = json!({"strategy": {"type": "Recreate", "$retainKeys": ["x"]}});
    assert_eq!(patched(deployment, object.clone(), patch).unwrap_err().code(), 422);
    let patch = json!({"strategy": {"$retainKeys": "type"}});
    assert_eq!(patched(deployment, object, patch).unwrap_err().code(), 400);
}

#[test]
fn patches_that_do_not_fit_fail() {
    let code = |patch: Value| patched(POD_SPEC, json!({"containers": [{"name": "a"}]}), patch).unwrap_err().code();
    assert_eq!(code(json!([])), 400);
    assert_eq!(code(json!({"containers": [{"image": "x"}]})), 500);
    assert_eq!(code(json!({"containers": [{"name": "x", "$patch": "what"}]})), 500);
}
