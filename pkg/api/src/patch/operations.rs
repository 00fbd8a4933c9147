//! The operations of JSON patches (RFC 6902), with what upstream's library makes of corner cases: `replace` and `copy`
//! are content with members that are not there, and lists can be counted from their end.

use serde_json::Value;

use super::JsonPatchError;
use crate::codec::{DEPTH_MAX, is_deeper};

/// Bytes that the copy operations of one patch may add.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;
const MISSING: &str = "missing value";

/// Applies one operation. `copied` counts what copies added so far.
pub(super) fn apply(object: &mut Value, operation: &Value, copied: &mut usize) -> Result<(), JsonPatchError> {
    let kind = operation["op"].as_str().unwrap_or("unknown");
    if !matches!(kind, "add" | "remove" | "replace" | "move" | "copy" | "test") {
        return Err(JsonPatchError::Failed(format!("Unexpected kind: {kind}")));
    }
    let operation = Operation { object, operation, kind };
    let done = match kind {
        "add" => operation.add(),
        "remove" => operation.remove(),
        "replace" => operation.replace(),
        "move" => operation.relocate(),
        "copy" => operation.copy(copied),
        _ => operation.test(),
    };
    done.map_err(JsonPatchError::Failed)
}

struct Operation<'a> {
    object: &'a mut Value,
    operation: &'a Value,
    kind: &'a str,
}

impl<'a> Operation<'a> {
    fn text(&self, member: &str) -> Result<&'a str, String> {
        let kind = self.kind;
        self.operation[member].as_str().ok_or_else(|| format!("{kind} operation failed to decode {member}: {MISSING}"))
    }

    /// An operation without a value has null for it: clients leave empty values out.
    fn value(&self) -> Value {
        self.operation.get("value").cloned().unwrap_or_default()
    }

    fn lacks(&self, which: &str, path: &str) -> String {
        format!("{} operation does not apply: doc is missing {which}path: \"{path}\": {MISSING}", self.kind)
    }

    fn add(self) -> Result<(), String> {
        let path = self.text("path")?;
        let value = self.value();
        self.put(path, value, "")
    }

    /// Adds where the path leads, unless the object would nest deeper than can be read again.
    fn put(self, path: &str, value: Value, which: &str) -> Result<(), String> {
        let levels = DEPTH_MAX.checked_sub(path.matches('/').count());
        if levels.is_none_or(|left| is_deeper(&value, left)) {
            return Err(format!("the object would be nested deeper than {DEPTH_MAX} levels"));
        }
        let lacks = self.lacks(which, path);
        let (parent, key) = find(self.object, path).ok_or(lacks)?;
        insert(parent, &key, value).map_err(|why| format!("error in add for path: '{path}': {why}"))
    }

    fn remove(self) -> Result<(), String> {
        let path = self.text("path")?;
        let lacks = self.lacks("", path);
        let (parent, key) = find(self.object, path).ok_or(lacks)?;
        take(parent, &key).map(drop).map_err(|why| format!("error in remove for path: '{path}': {why}"))
    }

    fn replace(self) -> Result<(), String> {
        let path = self.text("path")?;
        let value = self.value();
        if path.is_empty() {
            *self.object = value;
            return Ok(());
        }
        let levels = DEPTH_MAX.checked_sub(path.matches('/').count());
        if levels.is_none_or(|left| is_deeper(&value, left)) {
            return Err(format!("the object would be nested deeper than {DEPTH_MAX} levels"));
        }
        let lacks = self.lacks("", path);
        let (parent, key) = find(self.object, path).ok_or(lacks)?;
        match parent {
            Value::Array(items) => {
                let index =
                    index(&key, items.len()).map_err(|why| format!("error in replace for path: '{path}': {why}"))?;
                items[index] = value;
            }
            parent => parent[key.as_str()] = value,
        }
        Ok(())
    }

    fn relocate(self) -> Result<(), String> {
        let (from, path) = (self.text("from")?, self.text("path")?);
        let lacks = self.lacks("from ", from);
        let (parent, key) = find(self.object, from).ok_or(lacks)?;
        let value = take(parent, &key).map_err(|why| format!("error in move for path: '{key}': {why}"))?;
        self.put(path, value, "destination ")
    }

    fn copy(self, copied: &mut usize) -> Result<(), String> {
        let (from, path) = (self.text("from")?, self.text("path")?);
        let lacks = self.lacks("from ", from);
        let (parent, key) = find(self.object, from).ok_or(lacks)?;
        let value = get(parent, &key).map_err(|why| format!("error in copy for from: '{from}': {why}"))?;
        let value = value.cloned().unwrap_or_default();
        *copied += value.to_string().len();
        if *copied > MAX_COPIED_BYTES {
            return Err(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED_BYTES}"
            ));
        }
        self.put(path, value, "destination ")
    }

    fn test(self) -> Result<(), String> {
        let path = self.text("path")?;
        let failed = format!("testing value {path} failed: test failed");
        let wanted = self.value();
        if path.is_empty() {
            return if *self.object == wanted { Ok(()) } else { Err(failed) };
        }
        let lacks = format!("test operation does not apply: is missing path: {path}: {MISSING}");
        let (parent, key) = find(self.object, path).ok_or(lacks)?;
        let found = get(parent, &key).map_err(|why| format!("error in test for path: '{path}': {why}"))?;
        if *found.unwrap_or(&Value::Null) == wanted { Ok(()) } else { Err(failed) }
    }
}

/// The list or object that holds the last step of a path, and that step.
fn find<'v>(object: &'v mut Value, path: &str) -> Option<(&'v mut Value, String)> {
    let mut steps = path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).peekable();
    let mut parent = object;
    while let Some(step) = steps.next() {
        if steps.peek().is_none() {
            return (parent.is_object() || parent.is_array()).then_some((parent, step));
        }
        parent = match parent {
            Value::Object(members) => members.get_mut(&step)?,
            Value::Array(items) => {
                let index = index(&step, items.len()).ok()?;
                &mut items[index]
            }
            _ => return None,
        };
    }
    None
}

/// The place of an item; counted from the end if negative.
fn index(key: &str, length: usize) -> Result<usize, String> {
    let number: i64 = key.parse().map_err(|_| format!("strconv.Atoi: parsing \"{key}\": invalid syntax"))?;
    let place = if number < 0 { i64::try_from(length).unwrap_or(i64::MAX).checked_add(number) } else { Some(number) };
    let place = place.and_then(|place| usize::try_from(place).ok()).filter(|place| *place < length);
    place.ok_or_else(|| format!("Unable to access invalid index: {number}: invalid index referenced"))
}

fn get<'v>(parent: &'v Value, key: &str) -> Result<Option<&'v Value>, String> {
    match parent {
        Value::Array(items) => index(key, items.len()).map(|index| Some(&items[index])),
        parent => Ok(parent.get(key)),
    }
}

fn insert(parent: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match parent {
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            // One more place than there are items.
            let index = index(key, items.len() + 1)?;
            items.insert(index, value);
        }
        parent => parent[key] = value,
    }
    Ok(())
}

fn take(parent: &mut Value, key: &str) -> Result<Value, String> {
    match parent {
        Value::Array(items) => index(key, items.len()).map(|index| items.remove(index)),
        parent => {
            let removed = parent.as_object_mut().and_then(|members| members.remove(key));
            removed.ok_or_else(|| format!("Unable to remove nonexistent key: {key}: {MISSING}"))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_do_what_clients_are_used_to() {
        let object = json!({"a": {"b": 1}, "l": [1, 2, 3], "x/y": {"~": 5}});
        let run = |operation: Value| {
            let mut object = object.clone();
            apply(&mut object, &operation, &mut 0).map(|()| object)
        };
        for (operation, path, expected) in [
            (json!({"op": "add", "path": "/a/c", "value": 2}), "/a", json!({"b": 1, "c": 2})),
            (json!({"op": "add", "path": "/l/-", "value": 4}), "/l", json!([1, 2, 3, 4])),
            (json!({"op": "add", "path": "/l/-1", "value": 4}), "/l", json!([1, 2, 3, 4])),
            (json!({"op": "add", "path": "/l/1", "value": 4}), "/l", json!([1, 4, 2, 3])),
            (json!({"op": "remove", "path": "/l/-1"}), "/l", json!([1, 2])),
            (json!({"op": "replace", "path": "/a/none", "value": 2}), "/a", json!({"b": 1, "none": 2})),
            (json!({"op": "replace", "path": "/x~1y/~0", "value": 2}), "/x~1y", json!({"~": 2})),
            (json!({"op": "copy", "from": "/none", "path": "/a/n"}), "/a", json!({"b": 1, "n": null})),
            (json!({"op": "move", "from": "/a/b", "path": "/l/0"}), "/l", json!([1, 1, 2, 3])),
            (json!({"op": "test", "path": "/none"}), "/a", json!({"b": 1})),
            (json!({"op": "replace", "path": "", "value": {"a": 1}}), "/a", json!(1)),
        ] {
            assert_eq!(run(operation.clone()).unwrap().pointer(path), Some(&expected), "{operation}");
        }
        for (operation, expected) in [
            (json!({"op": "what", "path": "/a"}), "Unexpected kind: what"),
            (json!({"path": "/a"}), "Unexpected kind: unknown"),
            (
                json!({"op": "add", "path": "", "value": {}}),
                "add operation does not apply: doc is missing path: \"\": missing value",
            ),
            (json!({"op": "add"}), "add operation failed to decode path: missing value"),
            (
                json!({"op": "remove", "path": "/a/none"}),
                "error in remove for path: '/a/none': Unable to remove nonexistent key: none: missing value",
            ),
            (
                json!({"op": "remove", "path": "/l/3"}),
                "error in remove for path: '/l/3': Unable to access invalid index: 3: invalid index referenced",
            ),
            (json!({"op": "test", "path": "/a/b", "value": 2}), "testing value /a/b failed: test failed"),
            (
                json!({"op": "move", "from": "/none", "path": "/a/n"}),
                "error in move for path: 'none': Unable to remove nonexistent key: none: missing value",
            ),
        ] {
            assert_eq!(run(operation.clone()).unwrap_err().to_string(), expected, "{operation}");
        }
    }
}
