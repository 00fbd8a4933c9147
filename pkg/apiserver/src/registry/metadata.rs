//! Rules about metadata that hold for every resource.

use jiff::Timestamp;
use kube1_api::field::{FieldError, FieldPath};
use kube1_api::status::Status;
use rand::Rng;
use serde_json::{Map, Value};

use super::Endpoint;

/// Characters of generated name endings: no vowels, nothing that is mistaken for something else.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const GENERATED: usize = 5;
const GENERATED_BASE_MAX: usize = 58;
/// Members that only the server sets.
const SYSTEM: [&str; 5] = ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"];

/// The current time as the API writes it.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The object's metadata, made if it is missing.
pub fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    let slot = &mut object["metadata"];
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut().expect("it was just made an object")
}

pub fn text<'a>(object: &'a Value, member: &str) -> &'a str {
    object["metadata"][member].as_str().unwrap_or_default()
}

/// Removes what a client may not say about a new object.
pub fn wipe(object: &mut Value) {
    let metadata = metadata(object);
    for member in SYSTEM {
        metadata.remove(member);
    }
}

/// Gives a new object its identity.
pub fn identify(object: &mut Value, generated: Option<&str>) {
    let metadata = metadata(object);
    metadata.insert("creationTimestamp".into(), now().into());
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    if let Some(name) = generated {
        metadata.insert("name".into(), name.into());
    }
}

/// A name that begins with `base`.
pub fn generate_name(base: &str) -> String {
    let mut rng = rand::rng();
    let end = base.char_indices().map(|(i, _)| i).nth(GENERATED_BASE_MAX).unwrap_or(base.len());
    let mut name = base[..end].to_owned();
    name.extend((0..GENERATED).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])));
    name
}

impl Endpoint {
    /// Fills in the path's namespace; 400 when the body names another.
    pub(super) fn check_namespace(&self, object: &mut Value) -> Result<(), Status> {
        if !self.row.namespaced {
            metadata(object).remove("namespace");
            return Ok(());
        }
        match text(object, "namespace") {
            "" => {
                metadata(object).insert("namespace".into(), self.namespace.clone().into());
                Ok(())
            }
            given if given == self.namespace => Ok(()),
            _ => Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            )),
        }
    }

    /// Fills in the path's name; 400 when the body names another.
    pub(super) fn check_name(&self, object: &mut Value) -> Result<(), Status> {
        match text(object, "name") {
            "" => {
                metadata(object).insert("name".into(), self.name.clone().into());
                Ok(())
            }
            given if given == self.name => Ok(()),
            given => Err(Status::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({})",
                self.name
            ))),
        }
    }
}

/// Takes back what updates may not touch.
pub fn restore(new: &mut Value, old: &Value) {
    let metadata = metadata(new);
    let kept = ["generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];
    for member in kept.into_iter().chain(metadata.get("uid").is_none_or(|u| u == "").then_some("uid")) {
        match &old["metadata"][member] {
            Value::Null => metadata.remove(member),
            value => metadata.insert(member.into(), value.clone()),
        };
    }
    metadata.remove("selfLink");
}

/// Errors about metadata that an update may not change.
pub fn immutable(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = FieldPath::new("metadata");
    let mut errors = Vec::new();
    for member in ["name", "namespace", "uid"] {
        let (a, b) = (text(new, member), text(old, member));
        if a != b {
            errors.push(FieldError::invalid(&path.child(member), a, "field is immutable"));
        }
    }
    if !old["metadata"]["deletionTimestamp"].is_null() {
        let list = |value: &Value| value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let held = list(old);
        let added: Vec<String> = list(new).iter().filter(|f| !held.contains(f)).map(ToString::to_string).collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers [{}]",
                added.join(", ")
            );
            errors.push(FieldError::forbidden(&path.child("finalizers"), why));
        }
    }
    errors
}

/// Whether two objects differ in more than the times of managedFields.
pub fn differs(new: &Value, old: &Value) -> bool {
    let stripped = |value: &Value| {
        let mut value = value.clone();
        let entries = value.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
        for entry in entries.into_iter().flatten().filter_map(Value::as_object_mut) {
            entry.remove("time");
        }
        value
    };
    new != old && stripped(new) != stripped(old)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn generated_names_fit_and_differ() {
        let name = generate_name(&"x".repeat(100));
        assert_eq!(name.len(), 63);
        assert!(name[58..].bytes().all(|b| ALPHABET.contains(&b)));
        assert_ne!(generate_name("a-"), generate_name("a-"));
    }

    #[test]
    fn updates_keep_what_the_server_owns() {
        let old = json!({"metadata": {"name": "a", "uid": "u", "generation": 2, "creationTimestamp": "t", "finalizers": ["x/y"]}});
        let mut new =
            json!({"metadata": {"name": "a", "generation": 9, "deletionTimestamp": "now", "finalizers": ["x/y"]}});
        restore(&mut new, &old);
        assert!(!differs(&new, &old) && immutable(&new, &old).is_empty());
        new["metadata"]["managedFields"] = json!([{"manager": "m", "time": "1"}]);
        let mut later = new.clone();
        later["metadata"]["managedFields"][0]["time"] = "2".into();
        assert!(differs(&new, &old) && !differs(&later, &new));
        later["metadata"]["uid"] = "other".into();
        assert_eq!(immutable(&later, &new).len(), 1);
        let dying = json!({"metadata": {"deletionTimestamp": "t"}});
        assert_eq!(immutable(&json!({"metadata": {"finalizers": ["a/b"]}}), &dying).len(), 1);
    }
}
