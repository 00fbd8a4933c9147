//! Functions of lists.

use std::cmp::Ordering;

use super::{Row, Run, maths};
use crate::cel::call::Call;
use crate::cel::list::List;
use crate::cel::value::{Error, Evaluated, Value};

/// The longest list that `lists.range` makes.
const RANGE_MAX: i64 = 1_000_000;

pub(super) const ROWS: &[Row] = &[
    ("slice", "list_slice", "list(T).(int, int) -> list(T)", slice),
    ("flatten", "list_flatten", "list(list(T)).() -> list(T)", flatten),
    ("flatten", "list_flatten_int", "list(dyn).(int) -> list(dyn)", flatten),
    ("lists.range", "lists_range", "(int) -> list(int)", range),
    ("reverse", "list_reverse", "list(T).() -> list(T)", |c| {
        let list = c.list(0)?;
        let items = (0..list.len()).rev().filter_map(|at| list.get(at)).collect();
        c.new_list(items)
    }),
    ("distinct", "list_distinct", "list(T).() -> list(T)", distinct),
    ("first", "list_first", "list(V).() -> optional(V)", |c| Ok(optional(c.list(0)?.get(0)))),
    ("last", "list_last", "list(V).() -> optional(V)", |c| {
        let list = c.list(0)?;
        Ok(optional(list.len().checked_sub(1).and_then(|at| list.get(at))))
    }),
];

const COMPARABLE: [&str; 8] = ["int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes"];

/// Functions that are there for lists of every type with an order.
pub(super) fn templated() -> impl Iterator<Item = (&'static str, String, String, Run)> {
    let sums: [(&str, Run); 4] = [
        ("int", |c| maths::sum(c, Value::Int(0))),
        ("uint", |c| maths::sum(c, Value::Uint(0))),
        ("double", |c| maths::sum(c, Value::Double(0.0))),
        ("duration", |c| maths::sum(c, Value::Duration(0))),
    ];
    let sums = sums.map(|(of, run)| ("sum", format!("list_{of}_sum_{of}"), format!("list({of}).() -> {of}"), run));
    let each = |of: &'static str| -> [(&'static str, String, String, Run); 5] {
        let list = |result: &str| format!("list({of}).() -> {result}");
        // Overloads are named after their types as protobuf knows them.
        let long = match of {
            "timestamp" => "google.protobuf.Timestamp",
            "duration" => "google.protobuf.Duration",
            of => of,
        };
        [
            ("isSorted", format!("list_{of}_is_sorted_bool"), list("bool"), maths::is_sorted),
            ("max", format!("list_{of}_max_{of}"), list(of), |c| maths::extreme(c, "max", Ordering::Greater)),
            ("min", format!("list_{of}_min_{of}"), list(of), |c| maths::extreme(c, "min", Ordering::Less)),
            ("sort", format!("list_{long}_sort"), list(&format!("list({of})")), |c| sort(c, 0)),
            (
                "@sortByAssociatedKeys",
                format!("list_{long}_sortByAssociatedKeys"),
                format!("list(T).(list({of})) -> list(T)"),
                |c| sort(c, 1),
            ),
        ]
    };
    sums.into_iter().chain(COMPARABLE.into_iter().flat_map(each))
}

fn optional(value: Option<Value<'_>>) -> Value<'_> {
    Value::Optional(value.map(std::sync::Arc::new))
}

fn slice<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let (list, start, end) = (call.list(0)?, call.int(1)?, call.int(2)?);
    let wrong = |why: String| Error::failed(format!("cannot slice({start}, {end}), {why}"));
    let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else {
        return Err(wrong("negative indexes not supported".into()));
    };
    if from > to {
        return Err(wrong("start index must be less than or equal to end index".into()));
    }
    if to > list.len() {
        return Err(wrong(format!("list is length {}", list.len())));
    }
    call.new_list((from..to).filter_map(|at| list.get(at)).collect())
}

fn flatten<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let depth = if call.args.len() == 2 { call.int(1)? } else { 1 };
    if depth < 0 {
        return Err(Error::failed("level must be non-negative"));
    }
    let (list, mut out) = (call.list(0)?, Vec::new());
    flatten_into(call, &list, depth, &mut out)?;
    Ok(out.into())
}

fn flatten_into<'a>(
    call: &mut Call<'a, '_>,
    list: &List<'a>,
    depth: i64,
    out: &mut Vec<Value<'a>>,
) -> Result<(), Error> {
    for item in list.iter() {
        match item {
            Value::List(inner) if depth > 0 => {
                stacker::maybe_grow(64 << 10, 1 << 20, || flatten_into(call, &inner, depth - 1, out))?;
            }
            item => {
                call.meter.reserve(size_of::<Value<'_>>())?;
                out.push(item);
            }
        }
    }
    Ok(())
}

fn range<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let count = call.int(0)?;
    if count < 0 {
        return Err(Error::failed(format!("lists.range: size must be non-negative, got {count}")));
    }
    if count > RANGE_MAX {
        let why = format!("lists.range: size {count} exceeds maximum allowed ({RANGE_MAX})");
        return Err(Error::failed(why));
    }
    call.new_list((0..count).map(Value::Int).collect())
}

fn distinct<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let mut seen: Vec<Value<'a>> = Vec::new();
    for item in call.list(0)?.iter() {
        if !seen.iter().any(|s| s.equals(&item)) {
            seen.push(item);
        }
    }
    call.new_list(seen)
}

/// The list in the order of the keys, which are the argument with that index.
fn sort<'a>(call: &mut Call<'a, '_>, keys: usize) -> Evaluated<'a> {
    let (list, keys) = (call.list(0)?, call.list(keys)?);
    if list.len() != keys.len() {
        let (items, keys) = (list.len(), keys.len());
        return Err(Error::failed(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {items} and {keys} \
             elements respectively"
        )));
    }
    let mut pairs: Vec<(Value<'a>, Value<'a>)> = keys.iter().zip(list.iter()).collect();
    if let Some((first, _)) = pairs.first() {
        let of = first.ty();
        if pairs.iter().any(|(key, _)| key.ty() != of) {
            return Err(Error::failed("list elements must have the same type"));
        }
        first.compare(first).map_err(|_| Error::failed("list elements must be comparable"))?;
    }
    pairs.sort_by(|(a, _), (b, _)| a.compare(b).ok().flatten().unwrap_or(Ordering::Equal));
    call.new_list(pairs.into_iter().map(|(_, item)| item).collect())
}
