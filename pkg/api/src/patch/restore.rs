//! What a strategic merge patch made must fit its type. Upstream turns it into that type directly, not by way of JSON,
//! and so has other words for what does not fit.

use serde_json::Value;

use crate::schema::{Scalar, Shape, Type};

/// The first thing that does not fit, in the order in which upstream declares members. What types with a form of their
/// own (times, quantities) do not take is left to the check that follows.
pub fn unfit(shape: Shape, value: &Value) -> Result<(), String> {
    match (shape, value) {
        (_, Value::Null) | (Shape::Any, _) => Ok(()),
        (Shape::Struct(ty), value) => unfit_struct(ty, value),
        (Shape::Map(field), Value::Object(members)) => {
            members.values().try_for_each(|value| unfit(field.element(), value)) //
        }
        (Shape::Map(_), other) => Err(format!("cannot restore map from {}", kind(other))),
        (Shape::List(_) | Shape::Strings, Value::Array(items)) => {
            items.iter().try_for_each(|item| unfit(shape.item(), item)) //
        }
        (Shape::List(_) | Shape::Strings, other) => Err(format!("cannot restore slice from {}", kind(other))),
        (Shape::Scalar(scalar), value) => unfit_scalar(scalar, value),
    }
}

fn unfit_struct(ty: &'static Type, value: &Value) -> Result<(), String> {
    let Value::Object(members) = value else { return Err(format!("cannot restore struct from: {}", kind(value))) };
    if ty.type_meta {
        for name in ["kind", "apiVersion"] {
            unfit(Shape::Scalar(Scalar::String), members.get(name).unwrap_or(&Value::Null))?;
        }
    }
    let mut known: Vec<_> = members
        .iter()
        .filter_map(|(name, value)| ty.placed_field(name).map(|(place, field)| (place, field, value)))
        .collect();
    known.sort_by_key(|(place, ..)| *place);
    known.into_iter().try_for_each(|(_, field, value)| unfit(field.shape(), value))
}

fn unfit_scalar(scalar: Scalar, value: &Value) -> Result<(), String> {
    let target = match scalar {
        Scalar::String => "string",
        Scalar::Bool => "bool",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Double => "float64",
        Scalar::Bytes if value.is_string() => return Ok(()),
        Scalar::Bytes => return Err(format!("cannot restore slice from {}", kind(value))),
        _ => return Ok(()),
    };
    let whole = value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0);
    match (scalar, value) {
        (Scalar::String, Value::String(_)) | (Scalar::Bool, Value::Bool(_)) | (Scalar::Double, Value::Number(_)) => {
            Ok(())
        }
        (Scalar::Int32 | Scalar::Int64, Value::Number(_)) if whole => Ok(()),
        // Of these Go knows a conversion, though not one that JSON has.
        (Scalar::Int32 | Scalar::Int64, Value::Number(_)) => Err(format!("cannot convert float64 to {target}")),
        (Scalar::String, Value::Number(number)) if !number.is_f64() => Err("cannot convert int64 to string".into()),
        _ => Err(format!("unrecognized type: {target}")),
    }
}

/// The name that Go has for a value's kind.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

/// The name that JSON has for a value's kind.
pub(super) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as Go shows it: `map[a:1 b:[x <nil>]]`.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(members) => {
            let members: Vec<_> = members.iter().map(|(name, value)| format!("{name}:{}", shown(value))).collect();
            format!("map[{}]", members.join(" "))
        }
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema;

    #[test]
    fn what_does_not_fit_is_told_in_upstreams_words() {
        let deployment = schema::find("io.k8s.api.apps.v1.Deployment").map(Type::shape).unwrap_or(Shape::Any);
        for (object, expected) in [
            (json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 2.0, "paused": null}}), ""),
            (json!({"metadata": {"labels": "x"}}), "cannot restore map from string"),
            (json!({"metadata": {"finalizers": {}}}), "cannot restore slice from map"),
            (json!({"metadata": []}), "cannot restore struct from: slice"),
            (json!({"kind": 7}), "cannot convert int64 to string"),
            (json!({"metadata": {"name": true}}), "unrecognized type: string"),
            (json!({"spec": {"replicas": 1.5}}), "cannot convert float64 to int32"),
            (json!({"spec": {"replicas": "1"}}), "unrecognized type: int32"),
            // The first one counts: metadata is declared before the spec, name before labels.
            (json!({"spec": 1, "metadata": {"labels": 1, "name": 2}}), "cannot convert int64 to string"),
            (json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": []}}}}), ""),
        ] {
            assert_eq!(unfit(deployment, &object).err().unwrap_or_default(), expected, "{object}");
        }
        assert_eq!(shown(&json!({"b": [1, null, "x"], "a": {"c": true}})), "map[a:map[c:true] b:[1 <nil> x]]");
    }
}
