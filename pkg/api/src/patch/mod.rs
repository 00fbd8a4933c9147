//! The patch formats: JSON patch, merge patch, strategic merge patch.

#[cfg(test)]
mod laws;
mod operations;
mod restore;
mod strategic;

use serde_json::{Map, Value};

use crate::status::Status;

pub use restore::{shown, unfit};
pub use strategic::strategic_merge_patch;

const MAX_OPERATIONS: usize = 10_000;

/// Why a JSON patch cannot be applied.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JsonPatchError {
    /// Not a list of operations, in the words of upstream's decoder.
    #[error("json: cannot unmarshal {what} into Go value of type jsonpatch.{into}")]
    Malformed { what: &'static str, into: &'static str },
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooMany(usize),
    /// An operation does not fit the object.
    #[error("{0}")]
    Failed(String),
}

impl From<JsonPatchError> for Status {
    fn from(error: JsonPatchError) -> Self {
        match error {
            JsonPatchError::Malformed { .. } => Self::bad_request(error.to_string()),
            JsonPatchError::TooMany(_) => Self::too_large(error.to_string()),
            JsonPatchError::Failed(_) => Self::unprocessable(),
        }
    }
}

/// Applies an RFC 6902 patch. As a Status, a malformed patch is a 400, one that does not fit the object a 422.
pub fn json_patch(object: &Value, patch: &Value) -> Result<Value, JsonPatchError> {
    let malformed = |value: &Value, into| JsonPatchError::Malformed { what: restore::json_kind(value), into };
    let list = patch.as_array().ok_or_else(|| malformed(patch, "Patch"))?;
    if let Some(other) = list.iter().find(|operation| !operation.is_object()) {
        return Err(malformed(other, "Operation"));
    }
    if list.len() > MAX_OPERATIONS {
        return Err(JsonPatchError::TooMany(list.len()));
    }
    let (mut patched, mut copied) = (object.clone(), 0);
    for operation in list {
        operations::apply(&mut patched, operation, &mut copied)?;
    }
    Ok(patched)
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
        let code = |patch: Value| Status::from(json_patch(&object, &patch).unwrap_err()).code();
        assert_eq!(code(json!([{"op": "test", "path": "/spec/replicas", "value": 2}])), 422);
        assert_eq!(code(json!([{"op": "remove", "path": "/nothing/here"}])), 422);
        assert_eq!(code(json!([{"op": "what", "path": "/spec"}])), 422);
        assert_eq!(code(json!([1])), 400);
        assert_eq!(code(json!({"spec": {}})), 400);
    }

    #[test]
    fn json_patches_cannot_nest_without_end() {
        let object = json!({"a": {}});
        let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"a": inner}));
        let add = |levels: usize| json!([{"op": "add", "path": "/a/a", "value": deep(levels)}]);
        let code = |patch: Value| json_patch(&object, &patch).map_or_else(|e| Status::from(e).code(), |_| 200);
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
