//! Aggregates of lists that Kubernetes adds.

use std::cmp::Ordering;

use super::Row;
use crate::cel::call::Call;
use crate::cel::value::{Error, Evaluated, Value};

pub(super) const ROWS: &[Row] = &[
    ("indexOf", "list_a_index_of_int", "list(A).(A) -> int", |c| position(c, false)),
    ("lastIndexOf", "list_a_last_index_of_int", "list(A).(A) -> int", |c| position(c, true)),
];

fn position<'a>(call: &mut Call<'a, '_>, last: bool) -> Evaluated<'a> {
    let (list, value) = (call.list(0)?, call.take(1));
    let mut found = list.iter().enumerate().filter(|(_, item)| item.equals(&value)).map(|(at, _)| at);
    let at = if last { found.last() } else { found.next() };
    Ok(Value::Int(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)))
}

pub(super) fn is_sorted<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let mut previous: Option<Value<'a>> = None;
    for item in call.list(0)?.iter() {
        if let Some(previous) = previous
            && previous.compare(&item)? == Some(Ordering::Greater)
        {
            return Ok(false.into());
        }
        previous = Some(item);
    }
    Ok(true.into())
}

pub(super) fn sum<'a>(call: &mut Call<'a, '_>, zero: Value<'a>) -> Evaluated<'a> {
    let mut total = zero;
    for item in call.list(0)?.iter() {
        total = match (total, item) {
            (Value::Int(a), Value::Int(b)) => a.checked_add(b).map(Value::Int).ok_or("integer"),
            (Value::Uint(a), Value::Uint(b)) => a.checked_add(b).map(Value::Uint).ok_or("unsigned integer"),
            (Value::Duration(a), Value::Duration(b)) => a.checked_add(b).map(Value::Duration).ok_or("duration"),
            (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
            _ => return Err(Error::no_overload()),
        }
        .map_err(|kind| Error::failed(format!("{kind} overflow")))?;
    }
    Ok(total)
}

pub(super) fn extreme<'a>(call: &mut Call<'a, '_>, name: &str, wanted: Ordering) -> Evaluated<'a> {
    let mut found: Option<Value<'a>> = None;
    for item in call.list(0)?.iter() {
        let better = match &found {
            Some(found) => item.compare(found)? == Some(wanted),
            None => true,
        };
        if better {
            found = Some(item);
        }
    }
    found.ok_or_else(|| Error::failed(format!("{name} called on empty list")))
}
