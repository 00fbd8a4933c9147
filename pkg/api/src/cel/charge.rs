//! What calls cost while an expression runs, in cel-go's units.

use super::ast::Kind;
use super::extension::Extension;
use super::value::Value;

const TRAVERSE: f64 = 0.1;
const PATTERN: f64 = 0.25;
pub(super) const LIST: u64 = 10;
pub(super) const MAP: u64 = 30;
pub(super) const STRUCT: u64 = 40;
/// One question to the authorizer; two of them is what an expression may ask.
pub(super) const CHECK: u64 = 350_000;

pub(super) fn scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

/// The cost of matching a text of one size against a pattern of another.
fn matching(text: u64, pattern: u64) -> u64 {
    scaled(text.saturating_add(1), TRAVERSE).saturating_mul(scaled(pattern, PATTERN))
}

/// The cost of a call, as far as its arguments tell. `overload` is empty where several were possible.
pub(super) fn before(function: &str, overload: &str, args: &[Value<'_>]) -> u64 {
    let size = |index: usize| args.get(index).map_or(0, Value::size);
    if let Some(cost) = of_lists(overload, args) {
        return cost;
    }
    match function {
        "check" => CHECK,
        "fieldSelector" | "labelSelector" => selector(size(1)),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => args.first().map_or(0, traversal),
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => scaled(size(0), TRAVERSE),
        "ip" if overload == "cidr_ip" => 1,
        "ip" => scaled(size(0), TRAVERSE),
        "replace" | "split" | "ip.isCanonical" => scaled(size(0), 2.0 * TRAVERSE),
        // By its result.
        "join" => 0,
        "find" | "findAll" => matching(size(0), size(1)),
        "containsIP" | "containsCIDR" => {
            let mut cost = scaled(size(0) * 2, TRAVERSE);
            if function == "containsCIDR" {
                cost += scaled(size(0), TRAVERSE) + 1;
            }
            cost + if overload.ends_with("_string") { scaled(size(1), TRAVERSE) } else { 0 }
        }
        "validate" => match args.first() {
            Some(Value::Extension(Extension::Format(format))) => matching(size(1), format.regex_size),
            _ => 1,
        },
        "_==_" | "_!=_" => match args.first() {
            Some(Value::Extension(_)) if function == "_==_" => 1,
            _ => scaled(size(0).min(size(1)), TRAVERSE),
        },
        _ => of_standard(overload, size(0), size(1)),
    }
}

fn of_standard(overload: &str, first: u64, second: u64) -> u64 {
    match overload {
        "starts_with_string" | "ends_with_string" => scaled(second, TRAVERSE),
        "string_to_bytes" | "bytes_to_string" | "strings_quote" | "string_format" => scaled(first, TRAVERSE),
        "in_list" => second,
        "less_string"
        | "greater_string"
        | "less_equals_string"
        | "greater_equals_string"
        | "less_bytes"
        | "greater_bytes"
        | "less_equals_bytes"
        | "greater_equals_bytes" => scaled(first.min(second), TRAVERSE),
        "add_string" | "add_bytes" => scaled(first.saturating_add(second), TRAVERSE),
        "matches" | "matches_string" => matching(first, second),
        "contains_string" => scaled(first, TRAVERSE).saturating_mul(scaled(second, TRAVERSE)),
        _ => 1,
    }
}

/// Functions of lists that are charged by what they make or compare.
fn of_lists(overload: &str, args: &[Value<'_>]) -> Option<u64> {
    let size = |index: usize| args.get(index).map_or(0, Value::size);
    let made = |size: u64| size.saturating_add(1 + LIST);
    let product = || size(0).saturating_mul(size(1));
    Some(match overload {
        "list_sets_contains_list" | "list_sets_intersects_list" => product().saturating_add(1),
        "list_sets_equivalent_list" => product().saturating_mul(2).saturating_add(1),
        "list_slice" => match (args.get(1), args.get(2)) {
            (Some(Value::Int(from)), Some(Value::Int(to))) => {
                made(u64::try_from(to.saturating_sub(*from)).unwrap_or(0))
            }
            _ => made(0),
        },
        "lists_range" => made(args.first().and_then(Value::whole).and_then(|n| u64::try_from(n).ok()).unwrap_or(0)),
        "list_reverse" | "list_flatten" => made(size(0)),
        "list_flatten_int" => {
            let depth = args.get(1).and_then(Value::whole).and_then(|n| u64::try_from(n).ok()).unwrap_or(1);
            made(size(0).saturating_mul(depth))
        }
        "list_distinct" => compared(args.first()),
        other if other.ends_with("_sort") => compared(args.first()),
        other if other.ends_with("_sortByAssociatedKeys") => compared(args.get(1)),
        _ => return None,
    })
}

/// A list all of whose items are compared with each other.
fn compared(list: Option<&Value<'_>>) -> u64 {
    let Some(Value::List(list)) = list else { return 1 };
    let text = matches!(list.get(0), Some(Value::String(_) | Value::Bytes(_)));
    let size = list.len() as u64;
    let factor = if text { 2.0 + TRAVERSE } else { 2.0 };
    ((size.saturating_mul(size)) as f64 * factor) as u64 + 1 + LIST
}

/// The further cost of a call that its result tells.
pub(super) fn after(function: &str, result: &Value<'_>) -> u64 {
    if function == "join" { scaled(result.size(), 2.0 * TRAVERSE) } else { 0 }
}

/// Reading a selector, and keeping its requirements.
fn selector(length: u64) -> u64 {
    LIST + scaled(length, TRAVERSE) + scaled(scaled(length, 0.5), (LIST + STRUCT) as f64)
}

/// The cost of going through all of a value.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * TRAVERSE) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSE) as u64,
        Value::List(list) => {
            list.iter().fold(0, |sum, item| sum + stacker::maybe_grow(64 << 10, 1 << 20, || traversal(&item)))
        }
        Value::Map(map) => map.iter().fold(0, |sum, (key, value)| {
            sum + stacker::maybe_grow(64 << 10, 1 << 20, || traversal(&key) + traversal(&value))
        }),
        _ => 1,
    }
}

/// What it costs to make a value.
pub(super) fn making(kind: &Kind) -> u64 {
    match kind {
        Kind::List(_) => LIST,
        Kind::Map(_) => MAP,
        Kind::Struct { .. } => STRUCT,
        _ => 0,
    }
}
