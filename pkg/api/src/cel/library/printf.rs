//! `format` of strings.

use crate::cel::call::Call;
use crate::cel::types::Type;
use crate::cel::value::{Error, Evaluated, Value};

const PRECISION_MAX: usize = 1000;

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

/// What `%f` and `%e` write for what is no number.
fn odd(value: f64) -> Option<&'static str> {
    match value {
        value if value.is_nan() => Some("NaN"),
        value if value.is_infinite() => Some(if value > 0.0 { "∞" } else { "-∞" }),
        _ => None,
    }
}

/// Thousands have commas between them.
fn grouped(text: &str) -> String {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
    let mut out = String::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

/// A part of a pattern.
enum Piece<'t> {
    Text(&'t str),
    Clause(char, Option<usize>),
}

/// The next part of a pattern, and the rest.
fn next(text: &str) -> Result<(Piece<'_>, &str), String> {
    let Some(after) = text.strip_prefix('%') else {
        let (plain, rest) = text.split_at(text.find('%').unwrap_or(text.len()));
        return Ok((Piece::Text(plain), rest));
    };
    if let Some(rest) = after.strip_prefix('%') {
        return Ok((Piece::Text("%"), rest));
    }
    let unparsed = |why: String| format!("could not parse formatting clause: {why}");
    let (precision, after) =
        precision(after).map_err(|why| unparsed(format!("error while parsing precision: {why}")))?;
    let clause = after.chars().next().ok_or("unexpected end of string")?;
    if !CLAUSES.contains(clause) {
        return Err(unparsed(format!("unrecognized formatting clause \"{clause}\"")));
    }
    Ok((Piece::Clause(clause, precision), &after[clause.len_utf8()..]))
}

/// What is wrong with a literal pattern, or with a type that a literal list has for it (then also which).
pub(in crate::cel) fn check_literal(pattern: &str, types: &[&Type]) -> Option<(Option<usize>, String)> {
    let (mut rest, mut used) = (pattern, 0);
    while !rest.is_empty() {
        let piece = match next(rest) {
            Ok((piece, after)) => {
                rest = after;
                piece
            }
            Err(why) => return Some((None, why)),
        };
        let Piece::Clause(clause, _) = piece else { continue };
        let Some(given) = types.get(used) else { return Some((None, format!("index {used} out of range"))) };
        if !takes(clause, given) {
            return Some((Some(used), refusal(clause, given)));
        }
        used += 1;
    }
    (used < types.len()).then(|| {
        let why = format!("too many arguments supplied to string.format (expected {used}, got {})", types.len());
        (None, why)
    })
}

const CLAUSES: &str = "sdfebxXo";

fn takes(clause: char, given: &Type) -> bool {
    use Type::{Bool, Bytes, Double, Dyn, Error, Int, Opaque, Optional, Param, String, Struct, Uint};
    match (clause, given) {
        (_, Dyn | Error | Param(_)) => true,
        ('s', given) => !matches!(given, Opaque(_) | Struct(_) | Optional(_)),
        ('d' | 'o', Int | Uint) | ('b', Bool | Int | Uint) | ('f' | 'e', Double | String) => true,
        ('x' | 'X', Int | Uint | String | Bytes) => true,
        _ => false,
    }
}

fn refusal(clause: char, given: &Type) -> String {
    let why = match clause {
        's' => {
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
        }
        'd' => "decimal clause can only be used on integers",
        'f' => "fixed-point clause can only be used on doubles",
        'e' => "scientific clause can only be used on doubles",
        'b' => "only integers and bools can be formatted as binary",
        'o' => "octal clause can only be used on integers",
        _ => "only integers, byte buffers, and strings can be formatted as hex",
    };
    format!("error during formatting: {why}, was given {}", given.runtime_name())
}

pub(super) fn format<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let (pattern, args) = (call.text(0)?, call.list(1)?);
    let (mut out, mut index) = (String::new(), 0);
    let mut rest = &*pattern;
    while !rest.is_empty() {
        let (piece, after) = next(rest).map_err(Error::failed)?;
        rest = after;
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Clause(clause, precision) => {
                let value = args.get(index).ok_or_else(|| Error::failed(format!("index {index} out of range")))?;
                index += 1;
                let before = out.len();
                write(&mut out, clause, precision, &value)?;
                call.meter.reserve(out.len() - before)?;
            }
        }
    }
    call.new_text(out)
}

fn precision(text: &str) -> Result<(Option<usize>, &str), String> {
    let Some(after) = text.strip_prefix('.') else { return Ok((None, text)) };
    let end = after.find(|c: char| !c.is_ascii_digit()).ok_or("could not find end of precision specifier")?;
    let digits = &after[..end];
    let given: usize = digits.parse().map_err(|_| {
        format!("error while converting precision to integer: strconv.Atoi: parsing \"{digits}\": invalid syntax")
    })?;
    if given > PRECISION_MAX {
        return Err(format!("precision {given} exceeds the maximum of {PRECISION_MAX}"));
    }
    Ok((Some(given), &after[end..]))
}

fn write(out: &mut String, clause: char, precision: Option<usize>, value: &Value<'_>) -> Result<(), Error> {
    let wrong = || Error::failed(refusal(clause, &value.ty()));
    match (clause, value) {
        ('s', value) => show(out, value)?,
        ('d', Value::Int(value)) => out.push_str(&value.to_string()),
        ('d', Value::Uint(value)) => out.push_str(&value.to_string()),
        ('f' | 'e', value) => {
            let number = match value {
                Value::Double(value) => *value,
                Value::String(text) => match &**text {
                    "NaN" => f64::NAN,
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    _ => return Err(wrong()),
                },
                _ => return Err(wrong()),
            };
            let number = if number == 0.0 { 0.0 } else { number };
            match (clause, odd(number), precision) {
                ('e', Some(odd), None) => out.push_str(&format!("{odd:>6}")),
                (_, Some(odd), _) => out.push_str(odd),
                ('f', None, digits) => out.push_str(&grouped(&format!("{number:.*}", digits.unwrap_or(6)))),
                // Upstream's has six digits whatever is asked for.
                (_, None, _) => out.push_str(&powers(&exponential(&format!("{number:.6e}")))),
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
        _ => return Err(wrong()),
    }
    Ok(())
}

/// As `%s` shows a value.
fn show(out: &mut String, value: &Value<'_>) -> Result<(), Error> {
    match value {
        Value::String(text) => out.push_str(text),
        Value::Double(value) => out.push_str(&shortest(*value)),
        Value::Bytes(bytes) => out.push_str(&String::from_utf8_lossy(bytes)),
        Value::Timestamp(nanos) => out.push_str(&crate::cel::time::show_timestamp(*nanos)),
        Value::Duration(nanos) => out.push_str(&crate::cel::time::show_duration(*nanos)),
        Value::Optional(_) => return Err(Error::failed(refusal('s', &value.ty()))),
        value if !takes('s', &value.ty()) => return Err(Error::failed(refusal('s', &value.ty()))),
        value => show_part(out, value)?,
    }
    Ok(())
}

/// As `%s` shows a value inside of a list or map.
fn show_part(out: &mut String, value: &Value<'_>) -> Result<(), Error> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => out.push_str(&value.to_string()),
        Value::Uint(value) => out.push_str(&value.to_string()),
        Value::String(text) => quote(out, text.as_bytes()),
        Value::Bytes(bytes) => {
            out.push('b');
            quote(out, bytes);
        }
        Value::Double(value) if value.is_finite() => out.push_str(&format!("{value:.6}")),
        Value::Double(value) => out.push_str(&format!("\"{}\"", shortest(*value))),
        Value::Timestamp(nanos) => {
            out.push_str(&format!("timestamp(\"{}\")", crate::cel::time::show_timestamp(*nanos)));
        }
        Value::Duration(nanos) => {
            out.push_str(&format!("duration(\"{}\")", crate::cel::time::show_duration(*nanos)));
        }
        Value::Type(of) => out.push_str(&of.runtime_name()),
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                stacker::maybe_grow(64 << 10, 1 << 20, || show_part(out, &item))?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            let mut entries = Vec::new();
            for (key, value) in map.iter() {
                let mut text = String::new();
                show_part(&mut text, &key)?;
                entries.push((text, value));
            }
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            out.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                out.push_str(key);
                out.push(':');
                stacker::maybe_grow(64 << 10, 1 << 20, || show_part(out, value))?;
            }
            out.push('}');
        }
        value => {
            let name = value.ty().runtime_name();
            return Err(Error::failed(format!("error during formatting: no formatting function for {name}")));
        }
    }
    Ok(())
}

/// As Go quotes a text, be it one or not.
fn quote(out: &mut String, bytes: &[u8]) {
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{7}' => out.push_str("\\a"),
                '\u{8}' => out.push_str("\\b"),
                '\u{b}' => out.push_str("\\v"),
                '\u{c}' => out.push_str("\\f"),
                c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
                c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out.push('"');
}
