//! `format` of strings.

use crate::cel::call::Call;
use crate::cel::value::{Error, Evaluated, Value};

const PRECISION_MAX: usize = 100;

/// A number as short as it can be, as `%g` of Go writes it.
pub(super) fn shortest(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let exponent = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    if (-4..=5).contains(&exponent) { value.to_string() } else { exponential(&format!("{value:e}")) }
}

/// Go's exponents have a sign and two digits at least.
fn exponential(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(("+", exponent), |digits| ("-", digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// `1.5e+03` as `1.5×10⁰³`.
fn powers(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "+00"));
    let raised = exponent.chars().filter_map(|c| match c {
        '-' => Some('⁻'),
        digit => "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(digit.to_digit(10)? as usize),
    });
    format!("{mantissa}×10{}", raised.collect::<String>())
}

pub(super) fn format<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let (pattern, args) = (call.text(0)?, call.list(1)?);
    let (mut out, mut index) = (String::new(), 0);
    let mut rest = &*pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (precision, after) = precision(rest)?;
        let clause = after.chars().next().ok_or_else(|| Error::failed("unexpected end of string"))?;
        let value = args.get(index).ok_or_else(|| Error::failed(format!("index {index} out of range")))?;
        index += 1;
        let before = out.len();
        write(&mut out, clause, precision, &value)?;
        call.meter.reserve(out.len() - before)?;
        rest = &after[clause.len_utf8()..];
    }
    out.push_str(rest);
    call.new_text(out)
}

fn precision(text: &str) -> Result<(Option<usize>, &str), Error> {
    let Some(after) = text.strip_prefix('.') else { return Ok((None, text)) };
    let end = after
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(|| Error::failed("could not find end of precision specifier"))?;
    let given: usize =
        after[..end].parse().map_err(|_| Error::failed("error while converting precision to integer"))?;
    if given > PRECISION_MAX {
        return Err(Error::failed(format!("precision {given} exceeds the maximum of {PRECISION_MAX}")));
    }
    Ok((Some(given), &after[end..]))
}

fn wrong(value: &Value<'_>, clause: &str) -> Error {
    let name = value.ty().runtime_name();
    Error::failed(format!("error during formatting: {clause}, was given {name}"))
}

fn write(out: &mut String, clause: char, precision: Option<usize>, value: &Value<'_>) -> Result<(), Error> {
    match (clause, value) {
        ('s', value) => show(out, value)?,
        ('d', Value::Int(value)) => out.push_str(&value.to_string()),
        ('d', Value::Uint(value)) => out.push_str(&value.to_string()),
        ('d', Value::Double(value)) if value.is_nan() || value.is_infinite() => out.push_str(&shortest(*value)),
        ('d', value) => return Err(wrong(value, "integer clause can only be used on integers")),
        ('f' | 'e', value) => {
            let number = match value {
                Value::Int(value) => *value as f64,
                Value::Uint(value) => *value as f64,
                Value::Double(value) => *value,
                value => return Err(wrong(value, "fixed-point clause can only be used on doubles")),
            };
            let digits = precision.unwrap_or(6);
            if !number.is_finite() {
                out.push_str(&shortest(number));
            } else if clause == 'f' {
                out.push_str(&format!("{number:.digits$}"));
            } else {
                out.push_str(&powers(&exponential(&format!("{number:.digits$e}"))));
            }
        }
        ('b', Value::Bool(value)) => out.push_str(if *value { "1" } else { "0" }),
        ('b' | 'o' | 'x' | 'X', Value::Int(_) | Value::Uint(_)) => {
            let whole = value.whole().unwrap_or_default();
            let amount = whole.unsigned_abs();
            out.push_str(if whole < 0 { "-" } else { "" });
            out.push_str(&match clause {
                'b' => format!("{amount:b}"),
                'o' => format!("{amount:o}"),
                'x' => format!("{amount:x}"),
                _ => format!("{amount:X}"),
            });
        }
        ('x' | 'X', Value::String(_) | Value::Bytes(_)) => {
            let bytes = match value {
                Value::String(text) => text.as_bytes(),
                Value::Bytes(bytes) => bytes,
                _ => &[],
            };
            let hex = hex::encode(bytes);
            out.push_str(&if clause == 'x' { hex } else { hex.to_uppercase() });
        }
        ('b', value) => return Err(wrong(value, "only integers and bools can be formatted as binary")),
        ('o', value) => return Err(wrong(value, "octal clause can only be used on integers")),
        ('x' | 'X', value) => {
            return Err(wrong(value, "only integers, byte buffers, and strings can be formatted as hex"));
        }
        (other, _) => {
            return Err(Error::failed(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{other}\""
            )));
        }
    }
    Ok(())
}

/// As `%s` shows a value.
fn show(out: &mut String, value: &Value<'_>) -> Result<(), Error> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::String(_) => out.push_str(&value.to_string()),
        Value::Double(value) => out.push_str(&shortest(*value)),
        Value::Bytes(bytes) => out.push_str(&String::from_utf8_lossy(bytes)),
        Value::Timestamp(nanos) => out.push_str(&crate::cel::time::show_timestamp(*nanos)),
        Value::Duration(nanos) => out.push_str(&crate::cel::time::show_duration(*nanos)),
        Value::Type(of) => out.push_str(&of.runtime_name()),
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                stacker::maybe_grow(64 << 10, 1 << 20, || show(out, &item))?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            let mut entries: Vec<(String, Value<'_>)> = map.iter().map(|(k, v)| (k.to_string(), v)).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            out.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                out.push_str(key);
                out.push_str(": ");
                stacker::maybe_grow(64 << 10, 1 << 20, || show(out, value))?;
            }
            out.push('}');
        }
        value => {
            return Err(wrong(
                value,
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps",
            ));
        }
    }
    Ok(())
}
