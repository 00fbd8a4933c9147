//! The patch formats: JSON patch, merge patch, strategic merge patch.

#[cfg(test)]
mod laws;
mod strategic;

use json_patch::PatchOperation;
use serde_json::{Map, Value};

use crate::codec::{DEPTH_MAX, is_deeper, too_deep};
use crate::status::Status;

pub use strategic::strategic_merge_patch;

const MAX_OPERATIONS: usize = 10_000;
/// Bytes that the copy operations of one patch may add.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// Applies an RFC 6902 patch. A malformed patch answers 400, one that does not fit the object 422.
pub fn json_patch(object: &Value, patch: &Value) -> Result<Value, Status> {
    let operations = patch.as_array().ok_or_else(|| Status::bad_request("a JSON patch is a list of operations"))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(Status::too_large(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let operations: Vec<Value> = operations.iter().map(with_value).collect();
    let patch: json_patch::Patch = serde_json::from_value(operations.into())
        .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    let mut patched = object.clone();
    let mut copied = 0;
    for operation in &patch.0 {
        check_operation(&patched, operation, &mut copied)?;
        json_patch::patch_unsafe(&mut patched, std::slice::from_ref(operation))
            .map_err(|e| Status::unprocessable(e.to_string()))?;
    }
    Ok(patched)
}

/// An operation without a value has null for it: clients leave empty values out.
fn with_value(operation: &Value) -> Value {
    let mut operation = operation.clone();
    if let Value::Object(members) = &mut operation
        && matches!(members.get("op").and_then(Value::as_str), Some("add" | "replace" | "test"))
    {
        members.entry("value").or_insert(Value::Null);
    }
    operation
}

/// Refuses operations that would make the object grow or nest beyond what can be read again.
fn check_operation(object: &Value, operation: &PatchOperation, copied: &mut usize) -> Result<(), Status> {
    let levels = |path: &str| path.matches('/').count();
    let is_too_deep =
        |path: &str, value: &Value| DEPTH_MAX.checked_sub(levels(path)).is_none_or(|left| is_deeper(value, left));
    let (path, value) = match operation {
        PatchOperation::Add(add) => (add.path.as_str(), Some(&add.value)),
        PatchOperation::Replace(replace) => (replace.path.as_str(), Some(&replace.value)),
        PatchOperation::Copy(copy) => (copy.path.as_str(), object.pointer(copy.from.as_str())),
        // Up or aside nothing gets deeper.
        PatchOperation::Move(to) if levels(to.path.as_str()) > levels(to.from.as_str()) => {
            (to.path.as_str(), object.pointer(to.from.as_str()))
        }
        _ => return Ok(()),
    };
    if let (PatchOperation::Copy(_) | PatchOperation::Move(_), Some(value)) = (operation, value) {
        *copied += value.to_string().len();
        if *copied > MAX_COPIED_BYTES {
            return Err(Status::unprocessable("the patch copies too much"));
        }
    }
    if value.is_some_and(|value| is_too_deep(path, value)) { Err(Status::unprocessable(too_deep())) } else { Ok(()) }
}

/// Applies an RFC 7386 patch: null deletes, objects merge, everything else replaces.
pub fn merge_patch(object: &Value, patch: &Value) -> Value {
    let mut merged = object.clone();
    merge(&mut merged, patch);
    merged
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else { return };
    for (key, change) in changes {
        if change.is_null() {
            members.remove(key);
        } else {
            merge(members.entry(key.as_str()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_patches_tell_bad_ones_from_unfitting_ones() {
        let object = json!({"spec": {"replicas": 1, "list": [1, 2]}});
        let patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 3}, {"op": "add", "path": "/spec/list/-", "value": 3}]);
        assert_eq!(json_patch(&object, &patch).unwrap(), json!({"spec": {"replicas": 3, "list": [1, 2, 3]}}));
        let empty = json!([{"op": "add", "path": "/spec/empty"}, {"op": "test", "path": "/spec/empty"}]);
        assert_eq!(json_patch(&object, &empty).unwrap()["spec"].get("empty"), Some(&Value::Null));
        let code = |patch: Value| json_patch(&object, &patch).unwrap_err().code();
        assert_eq!(code(json!([{"op": "test", "path": "/spec/replicas", "value": 2}])), 422);
        assert_eq!(code(json!([{"op": "remove", "path": "/nothing/here"}])), 422);
        assert_eq!(code(json!([{"op": "what", "path": "/spec"}])), 400);
        assert_eq!(code(json!({"spec": {}})), 400);
    }

    #[test]
    fn json_patches_cannot_nest_without_end() {
        let object = json!({"a": {}});
        let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"a": inner}));
        let add = |levels: usize| json!([{"op": "add", "path": "/a/a", "value": deep(levels)}]);
        let code = |patch: Value| json_patch(&object, &patch).map_or_else(|e| e.code(), |_| 200);
        assert_eq!((code(add(98)), code(add(99))), (200, 422));
        let nest = |op: &str| json!({"op": op, "from": "/a", "path": "/a/a"});
        assert_eq!(code(vec![nest("copy"); 98].into()), 200);
        assert_eq!(code(vec![nest("copy"); 10_000].into()), 422);
        let down =
            json!([{"op": "add", "path": "/b", "value": deep(99)}, {"op": "move", "from": "/b", "path": "/a/b"}]);
        assert_eq!(code(down), 422);
    }

    #[test]
    fn merge_patches_delete_by_null() {
        let object = json!({"a": {"b": 1, "c": 2}, "list": [1, 2]});
        let patch = json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "list": [3]});
        assert_eq!(merge_patch(&object, &patch), json!({"a": {"c": 2, "d": {"f": 1}}, "list": [3]}));
    }
}
