//! Rules about metadata that hold for every resource.

use kube1_api::status::Status;
use serde_json::{Map, Value};

use super::Endpoint;

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

impl Endpoint {
    /// The key under which upstream keeps the object; messages name it.
    pub(super) fn key(&self) -> String {
        let group = if self.row.storage_group.contains('.') { self.row.storage_group.as_str() } else { "" };
        let parts = ["/registry", group, &self.row.storage_plural, &self.namespace, &self.name];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }

    /// As [`Self::check_namespace`], for an object that is there already.
    pub(super) fn check_same_namespace(&self, object: &mut Value) -> Result<(), Status> {
        let given = text(object, "namespace");
        if self.row.namespaced && !given.is_empty() && given != self.namespace {
            return Err(Status::bad_request(format!(
                "the namespace of the object ({given}) does not match the namespace on the request ({})",
                self.namespace
            )));
        }
        self.check_namespace(object)
    }

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

    /// 400 when the body does not name the object of the path.
    pub(super) fn check_name(&self, object: &Value) -> Result<(), Status> {
        match text(object, "name") {
            "" => Err(Status::bad_request(format!(
                "the name of the object ({} based on URL) was undeterminable: name must be provided",
                self.name
            ))),
            given if given == self.name => Ok(()),
            given => Err(Status::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({})",
                self.name
            ))),
        }
    }
}

/// Whether two objects differ in more than the times of managedFields.
pub fn differs(new: &Value, old: &Value) -> bool {
    if !same_but(new, old, "metadata") || !same_but(&new["metadata"], &old["metadata"], "managedFields") {
        return true;
    }
    let entries = |value: &Value| value["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let (new, old) = (entries(new), entries(old));
    new.len() != old.len() || new.iter().zip(&old).any(|(a, b)| !same_but(a, b, "time"))
}

/// Whether two objects are equal but for one member.
fn same_but(a: &Value, b: &Value, member: &str) -> bool {
    match (a.as_object(), b.as_object()) {
        (Some(left), Some(right)) => {
            let rest = |map: &Map<String, Value>| map.len() - usize::from(map.contains_key(member));
            rest(left) == rest(right) && left.iter().all(|(k, v)| k == member || right.get(k) == Some(v))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_of_managed_fields_alone_make_no_difference() {
        let old = json!({"metadata": {"name": "a", "managedFields": [{"manager": "m", "time": "1"}]}});
        let mut new = old.clone();
        new["metadata"]["managedFields"][0]["time"] = "2".into();
        assert!(!differs(&new, &old));
        new["metadata"]["managedFields"][0]["manager"] = "n".into();
        assert!(differs(&new, &old));
    }
}
