//! Arithmetic, comparison and access. What does not evaluate all its arguments is done by the evaluator.

use std::cmp::Ordering;

use super::Row;
use crate::cel::call::Call;
use crate::cel::list::List;
use crate::cel::time::{EARLIEST, LATEST};
use crate::cel::value::{Error, Evaluated, Value};

const LAZY: super::Run = |_| Err(Error::no_overload());

pub(super) const ROWS: &[Row] = &[
    ("_?_:_", "conditional", "(bool, A, A) -> A", LAZY),
    ("_&&_", "logical_and", "(bool, bool) -> bool", LAZY),
    ("_||_", "logical_or", "(bool, bool) -> bool", LAZY),
    ("@not_strictly_false", "not_strictly_false", "(bool) -> bool", LAZY),
    ("!_", "logical_not", "(bool) -> bool", |c| match c.arg(0) {
        Value::Bool(value) => Ok((!value).into()),
        _ => Err(Error::no_overload()),
    }),
    ("_==_", "equals", "(A, A) -> bool", |c| Ok(c.arg(0).equals(c.arg(1)).into())),
    ("_!=_", "not_equals", "(A, A) -> bool", |c| Ok((!c.arg(0).equals(c.arg(1))).into())),
    ("_+_", "add_bytes", "(bytes, bytes) -> bytes", add),
    ("_+_", "add_double", "(double, double) -> double", add),
    ("_+_", "add_duration_duration", "(duration, duration) -> duration", add),
    ("_+_", "add_duration_timestamp", "(duration, timestamp) -> timestamp", add),
    ("_+_", "add_timestamp_duration", "(timestamp, duration) -> timestamp", add),
    ("_+_", "add_int64", "(int, int) -> int", add),
    ("_+_", "add_list", "(list(A), list(A)) -> list(A)", add),
    ("_+_", "add_string", "(string, string) -> string", add),
    ("_+_", "add_uint64", "(uint, uint) -> uint", add),
    ("_-_", "subtract_double", "(double, double) -> double", subtract),
    ("_-_", "subtract_duration_duration", "(duration, duration) -> duration", subtract),
    ("_-_", "subtract_int64", "(int, int) -> int", subtract),
    ("_-_", "subtract_timestamp_duration", "(timestamp, duration) -> timestamp", subtract),
    ("_-_", "subtract_timestamp_timestamp", "(timestamp, timestamp) -> duration", subtract),
    ("_-_", "subtract_uint64", "(uint, uint) -> uint", subtract),
    ("_*_", "multiply_double", "(double, double) -> double", multiply),
    ("_*_", "multiply_int64", "(int, int) -> int", multiply),
    ("_*_", "multiply_uint64", "(uint, uint) -> uint", multiply),
    ("_/_", "divide_double", "(double, double) -> double", divide),
    ("_/_", "divide_int64", "(int, int) -> int", divide),
    ("_/_", "divide_uint64", "(uint, uint) -> uint", divide),
    ("_%_", "modulo_int64", "(int, int) -> int", modulo),
    ("_%_", "modulo_uint64", "(uint, uint) -> uint", modulo),
    ("-_", "negate_double", "(double) -> double", negate),
    ("-_", "negate_int64", "(int) -> int", negate),
    ("@in", "in_list", "(A, list(A)) -> bool", |c| Ok(c.list(1)?.contains(c.arg(0)).into())),
    ("@in", "in_map", "(A, map(A, B)) -> bool", |c| Ok(c.map(1)?.get(c.arg(0)).is_some().into())),
    ("_[_]", "index_list", "(list(A), int) -> A", index),
    ("_[_]", "index_map", "(map(A, B), A) -> B", index),
    ("_[_]", "optional_list_index_int", "(optional(list(V)), int) -> optional(V)", optional_index),
    ("_[_]", "optional_map_index_value", "(optional(map(K, V)), K) -> optional(V)", optional_index),
    ("_[?_]", "list_optindex_optional_int", "(list(V), int) -> optional(V)", optional_index),
    ("_[?_]", "optional_list_optindex_optional_int", "(optional(list(V)), int) -> optional(V)", optional_index),
    ("_[?_]", "map_optindex_optional_value", "(map(K, V), K) -> optional(V)", optional_index),
    ("_[?_]", "optional_map_optindex_optional_value", "(optional(map(K, V)), K) -> optional(V)", optional_index),
    ("_?._", "select_optional_field", "(dyn, string) -> optional(V)", LAZY),
    ("cel.@mapInsert", "@mapInsert_map_key_value", "(map(K, V), K, V) -> map(K, V)", insert),
    ("cel.@mapInsert", "@mapInsert_map_map", "(map(K, V), map(K, V)) -> map(K, V)", insert),
    ("size", "size_bytes", "(bytes) -> int", size),
    ("size", "bytes_size", "bytes.() -> int", size),
    ("size", "size_list", "(list(A)) -> int", size),
    ("size", "list_size", "list(A).() -> int", size),
    ("size", "size_map", "(map(A, B)) -> int", size),
    ("size", "map_size", "map(A, B).() -> int", size),
    ("size", "size_string", "(string) -> int", size),
    ("size", "string_size", "string.() -> int", size),
];

/// Types that have an order, as signatures name them and as overloads do.
const ORDERED: [(&str, &str); 14] = [
    ("bool, bool", "bool"),
    ("int, int", "int64"),
    ("int, double", "int64_double"),
    ("int, uint", "int64_uint64"),
    ("uint, uint", "uint64"),
    ("uint, double", "uint64_double"),
    ("uint, int", "uint64_int64"),
    ("double, double", "double"),
    ("double, int", "double_int64"),
    ("double, uint", "double_uint64"),
    ("string, string", "string"),
    ("bytes, bytes", "bytes"),
    ("timestamp, timestamp", "timestamp"),
    ("duration, duration", "duration"),
];

/// `<`, `<=`, `>` and `>=` of every ordered type: name, overload, arguments.
pub(super) fn comparisons() -> impl Iterator<Item = (&'static str, String, String, super::Run)> {
    let less: super::Run = |c| compare(c, Ordering::is_lt);
    let less_equals: super::Run = |c| compare(c, Ordering::is_le);
    let greater: super::Run = |c| compare(c, Ordering::is_gt);
    let greater_equals: super::Run = |c| compare(c, Ordering::is_ge);
    let functions = [
        ("_<_", "less", less),
        ("_<=_", "less_equals", less_equals),
        ("_>_", "greater", greater),
        ("_>=_", "greater_equals", greater_equals),
    ];
    functions.into_iter().flat_map(|(name, prefix, run)| {
        let row =
            move |(args, suffix): (&str, &str)| (name, format!("{prefix}_{suffix}"), format!("({args}) -> bool"), run);
        ORDERED.into_iter().map(row)
    })
}

fn compare<'a>(call: &mut Call<'a, '_>, holds: fn(Ordering) -> bool) -> Evaluated<'a> {
    Ok(call.arg(0).compare(call.arg(1))?.is_some_and(holds).into())
}

fn overflow(kind: &str) -> Error {
    Error::failed(format!("{kind} overflow"))
}

fn timestamp<'a>(nanos: Option<i128>) -> Evaluated<'a> {
    let fits = nanos.filter(|n| (EARLIEST..=LATEST).contains(n));
    fits.map(Value::Timestamp).ok_or_else(|| overflow("timestamp"))
}

fn int<'a>(value: Option<i64>) -> Evaluated<'a> {
    value.map(Value::Int).ok_or_else(|| overflow("integer"))
}

fn uint<'a>(value: Option<u64>) -> Evaluated<'a> {
    value.map(Value::Uint).ok_or_else(|| overflow("unsigned integer"))
}

fn duration<'a>(value: Option<i64>) -> Evaluated<'a> {
    value.map(Value::Duration).ok_or_else(|| overflow("duration"))
}

fn add<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    match (call.take(0), call.take(1)) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_add(b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_add(b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => {
            call.meter.reserve(a.len() + b.len())?;
            Ok(format!("{}{}", &*a, &*b).into())
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            call.meter.reserve(a.len() + b.len())?;
            Ok(Value::Bytes([&*a, &*b].concat().into()))
        }
        (Value::List(a), Value::List(b)) => {
            if matches!(&a, List::Json { .. }) {
                call.meter.reserve((a.len() + b.len()) / 16)?;
            }
            a.join(b).map(Value::List).ok_or(Error::TooCostly)
        }
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_add(b)),
        (Value::Timestamp(at), Value::Duration(by)) | (Value::Duration(by), Value::Timestamp(at)) => {
            timestamp(at.checked_add(i128::from(by)))
        }
        _ => Err(Error::no_overload()),
    }
}

fn subtract<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    match (call.arg(0), call.arg(1)) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_sub(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_sub(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_sub(*b)),
        (Value::Timestamp(at), Value::Duration(by)) => timestamp(at.checked_sub(i128::from(*by))),
        (Value::Timestamp(a), Value::Timestamp(b)) => duration(i64::try_from(a - b).ok()),
        _ => Err(Error::no_overload()),
    }
}

fn multiply<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    match (call.arg(0), call.arg(1)) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_mul(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_mul(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        _ => Err(Error::no_overload()),
    }
}

fn divide<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    match (call.arg(0), call.arg(1)) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(Error::failed("division by zero")),
        (Value::Int(a), Value::Int(b)) => int(a.checked_div(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_div(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => Err(Error::no_overload()),
    }
}

fn modulo<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    match (call.arg(0), call.arg(1)) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(Error::failed("modulus by zero")),
        (Value::Int(a), Value::Int(b)) => int(a.checked_rem(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_rem(*b)),
        _ => Err(Error::no_overload()),
    }
}

fn negate<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    match call.arg(0) {
        Value::Int(a) => int(a.checked_neg()),
        Value::Double(a) => Ok(Value::Double(-a)),
        _ => Err(Error::no_overload()),
    }
}

fn size<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    match call.arg(0) {
        value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_)) => {
            Ok(Value::Int(i64::try_from(value.size()).unwrap_or(i64::MAX)))
        }
        _ => Err(Error::no_overload()),
    }
}

fn find<'a>(container: &Value<'a>, key: &Value<'a>) -> Result<Option<Value<'a>>, Error> {
    match container {
        Value::List(list) => {
            let whole = match key {
                Value::Double(value) if value.fract() == 0.0 => Some(*value as i128),
                key => key.whole(),
            };
            let at = whole.ok_or_else(|| {
                Error::failed(format!("unsupported index type '{}' in list", key.ty().runtime_name()))
            })?;
            Ok(usize::try_from(at).ok().and_then(|at| list.get(at)))
        }
        Value::Map(map) => Ok(map.get(key)),
        _ => Err(Error::no_overload()),
    }
}

fn index<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    if matches!(call.arg(0), Value::Optional(_)) {
        return optional_index(call);
    }
    let (container, key) = (call.take(0), call.take(1));
    find(&container, &key)?.ok_or_else(|| match container {
        Value::List(_) => Error::failed(format!("index out of bounds: {key}")),
        _ => Error::no_key(key),
    })
}

fn optional_index<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let (container, key) = (call.take(0), call.take(1));
    let container = match container {
        Value::Optional(None) => return Ok(Value::NONE),
        Value::Optional(Some(held)) => (*held).clone(),
        other => other,
    };
    Ok(Value::Optional(find(&container, &key)?.map(std::sync::Arc::new)))
}

fn insert<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let Value::Map(mut map) = call.take(0) else { return Err(Error::no_overload()) };
    let members = match call.args.len() {
        2 => call.map(1)?.iter().collect(),
        _ => vec![(call.take(1), call.take(2))],
    };
    for (key, value) in members {
        call.meter.reserve(2 * size_of::<Value<'_>>())?;
        let shown = key.to_string();
        if !map.insert(key, value) {
            return Err(Error::failed(format!("insert failed: key {shown} already exists")));
        }
    }
    Ok(Value::Map(map))
}
