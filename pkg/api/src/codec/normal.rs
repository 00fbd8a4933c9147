//! The form that typed clients write: what they leave out is left out, what they always write is there.

use serde_json::{Map, Value};

use crate::schema::{Field, Scalar, Shape, Type};

/// Brings a checked value to the form it has after a round trip through typed clients: optional members with empty
/// values go, and members that such clients always write (`status: {}`, `restartCount: 0`) come.
///
/// Objects that differ only in such members are therefore stored alike, and an update that sends them changes nothing.
pub fn normalize(shape: Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Struct(ty), Value::Object(members)) => normalize_members(ty, members),
        (Shape::Map(field), Value::Object(members)) => {
            members.values_mut().for_each(|v| normalize(field.element(), v));
        }
        (Shape::List(field), Value::Array(items)) => items.iter_mut().for_each(|v| normalize(field.element(), v)),
        _ => {}
    }
}

fn normalize_members(ty: &'static Type, members: &mut Map<String, Value>) {
    members.retain(|name, value| {
        let Some(field) = ty.field(name) else { return true };
        normalize(field.shape(), value);
        !is_left_out(field, value) || is_telling(ty, name, value)
    });
    for field in ty.fields.iter().filter(|f| !f.inline && !f.pointer && !is_optional(f)) {
        if !members.contains_key(field.name)
            && let Some(zero) = zero(field)
        {
            members.insert(field.name.to_owned(), zero);
        }
    }
}

fn is_left_out(field: &'static Field, value: &Value) -> bool {
    match value {
        Value::Null => !matches!(field.shape(), Shape::Any),
        Value::Array(items) => field.omit_empty && items.is_empty(),
        Value::Object(members) => field.omit_empty && field.is_map() && members.is_empty(),
        _ if field.pointer || !field.omit_empty => false,
        Value::String(text) => {
            text.is_empty() && matches!(field.shape(), Shape::Scalar(Scalar::String | Scalar::Bytes))
        }
        Value::Bool(flag) => !flag,
        Value::Number(number) => {
            number.as_f64() == Some(0.0) && !matches!(field.shape(), Shape::Scalar(Scalar::IntOrString))
        }
    }
}

/// Whether a value that is as good as none tells something all the same: rules that scale by no policy are refused, those
/// that say nothing of policies get the usual ones.
fn is_telling(ty: &Type, name: &str, value: &Value) -> bool {
    ty.name == "io.k8s.api.autoscaling.v2.HPAScalingRules" && name == "policies" && value.is_array()
}

/// Whether nothing is written for a field that nobody set.
fn is_optional(field: &'static Field) -> bool {
    match field.shape() {
        Shape::Struct(_) | Shape::Scalar(Scalar::Quantity | Scalar::Duration | Scalar::IntOrString) => false,
        _ => field.omit_empty,
    }
}

/// What typed clients write for a field that nobody set; `None` if they leave it out. A status that nobody reported
/// yet has the zero numbers and flags of its type.
pub fn zero(field: &'static Field) -> Option<Value> {
    match field.shape() {
        Shape::Struct(ty) => {
            let mut members = Map::new();
            normalize_members(ty, &mut members);
            Some(members.into())
        }
        Shape::Scalar(Scalar::Quantity) => Some("0".into()),
        Shape::Scalar(Scalar::Duration) => Some("0s".into()),
        Shape::Scalar(Scalar::IntOrString) => Some(0.into()),
        _ if is_optional(field) => None,
        Shape::Scalar(Scalar::String) => Some("".into()),
        Shape::Scalar(Scalar::Bool) => Some(false.into()),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double) => Some(0.into()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema;

    #[test]
    fn empty_optional_members_go_and_constant_ones_come() {
        let mut set = json!({"metadata": {"name": "a", "labels": {}, "creationTimestamp": null}, "spec": {
            "replicas": 0, "minReadySeconds": 0, "selector": {}, "template": {"spec": {
                "hostNetwork": false, "automountServiceAccountToken": false, "securityContext": {},
                "containers": [{"name": "c", "image": "", "env": [{"name": "E", "value": "", "valueFrom":
                    {"resourceFieldRef": {"resource": "limits.cpu"}}}]}]}}}});
        normalize(schema::find("io.k8s.api.apps.v1.ReplicaSet").unwrap().shape(), &mut set);
        let expected = json!({"metadata": {"name": "a"}, "status": {"replicas": 0}, "spec": {
            "replicas": 0, "selector": {}, "template": {"metadata": {}, "spec": {
                "automountServiceAccountToken": false, "securityContext": {},
                "containers": [{"name": "c", "resources": {}, "env": [{"name": "E", "valueFrom":
                    {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "0"}}}]}]}}}});
        assert_eq!(set, expected);
    }
}
