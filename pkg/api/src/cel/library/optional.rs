//! Optional values.

use super::Row;
use crate::cel::call::Call;
use crate::cel::value::{Error, Evaluated, Value};

pub(super) const ROWS: &[Row] = &[
    ("optional.of", "optional_of", "(V) -> optional(V)", |c| Ok(Value::some(c.take(0)))),
    ("optional.ofNonZeroValue", "optional_ofNonZeroValue", "(V) -> optional(V)", |c| {
        let value = c.take(0);
        Ok(if is_zero(&value) { Value::NONE } else { Value::some(value) })
    }),
    ("optional.none", "optional_none", "() -> optional(V)", |_| Ok(Value::NONE)),
    ("value", "optional_value", "optional(V).() -> V", |c| match c.take(0) {
        Value::Optional(Some(value)) => Ok((*value).clone()),
        Value::Optional(None) => Err(Error::failed("optional.none() dereference")),
        _ => Err(Error::no_overload()),
    }),
    ("hasValue", "optional_hasValue", "optional(V).() -> bool", |c| match c.arg(0) {
        Value::Optional(held) => Ok(held.is_some().into()),
        _ => Err(Error::no_overload()),
    }),
    ("or", "optional_or_optional", "optional(V).(optional(V)) -> optional(V)", |_| Err(Error::no_overload())),
    ("orValue", "optional_orValue_value", "optional(V).(V) -> V", |_| Err(Error::no_overload())),
    ("optional.unwrap", "optional_unwrap", "(list(optional(V))) -> list(V)", unwrap),
    ("unwrapOpt", "optional_unwrapOpt", "list(optional(V)).() -> list(V)", unwrap),
];

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Double(value) => *value == 0.0,
        Value::Duration(nanos) => *nanos == 0,
        Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => value.size() == 0,
        Value::Struct(of) => of.fields.is_empty(),
        Value::Optional(held) => held.is_none(),
        value => value.whole() == Some(0),
    }
}

fn unwrap<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let mut out = Vec::new();
    for item in call.list(0)?.iter() {
        match item {
            Value::Optional(Some(value)) => out.push((*value).clone()),
            Value::Optional(None) => {}
            other => return Err(Error::failed(format!("value {other} is not optional"))),
        }
    }
    call.new_list(out)
}
