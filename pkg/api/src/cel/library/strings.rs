//! Functions of strings. Places are counted in characters.

use super::Row;
use crate::cel::call::Call;
use crate::cel::value::{Error, Evaluated, Text, Value};

pub(super) const ROWS: &[Row] = &[
    ("contains", "contains_string", "string.(string) -> bool", |c| Ok(c.text(0)?.contains(&*c.text(1)?).into())),
    ("startsWith", "starts_with_string", "string.(string) -> bool", |c| {
        Ok(c.text(0)?.starts_with(&*c.text(1)?).into())
    }),
    ("endsWith", "ends_with_string", "string.(string) -> bool", |c| Ok(c.text(0)?.ends_with(&*c.text(1)?).into())),
    ("charAt", "string_char_at_int", "string.(int) -> string", char_at),
    ("indexOf", "string_index_of_string", "string.(string) -> int", |c| index_of(c, false)),
    ("indexOf", "string_index_of_string_int", "string.(string, int) -> int", |c| index_of(c, false)),
    ("lastIndexOf", "string_last_index_of_string", "string.(string) -> int", |c| index_of(c, true)),
    ("lastIndexOf", "string_last_index_of_string_int", "string.(string, int) -> int", |c| index_of(c, true)),
    ("lowerAscii", "string_lower_ascii", "string.() -> string", |c| {
        let text = c.text(0)?.to_ascii_lowercase();
        c.new_text(text)
    }),
    ("upperAscii", "string_upper_ascii", "string.() -> string", |c| {
        let text = c.text(0)?.to_ascii_uppercase();
        c.new_text(text)
    }),
    ("replace", "string_replace_string_string", "string.(string, string) -> string", replace),
    ("replace", "string_replace_string_string_int", "string.(string, string, int) -> string", replace),
    ("split", "string_split_string", "string.(string) -> list(string)", split),
    ("split", "string_split_string_int", "string.(string, int) -> list(string)", split),
    ("substring", "string_substring_int", "string.(int) -> string", substring),
    ("substring", "string_substring_int_int", "string.(int, int) -> string", substring),
    ("trim", "string_trim", "string.() -> string", |c| {
        let text = c.text(0)?;
        let start = text.len() - text.trim_start().len();
        Ok(Value::String(text.part(start..start + text.trim().len())))
    }),
    ("join", "list_join", "list(string).() -> string", join),
    ("join", "list_join_string", "list(string).(string) -> string", join),
    ("strings.quote", "strings_quote", "(string) -> string", quote),
    ("format", "string_format", "string.(list(dyn)) -> string", super::printf::format),
    ("jsonpatch.escapeKey", "string_jsonpatch_escapeKey_string", "(string) -> string", |c| {
        let text = c.text(0)?.replace('~', "~0").replace('/', "~1");
        c.new_text(text)
    }),
];

fn out_of_range(at: i64) -> Error {
    Error::failed(format!("index out of range: {at}"))
}

/// The byte at which the character is; the end is one too.
fn byte_at(text: &str, at: i64) -> Option<usize> {
    let at = usize::try_from(at).ok()?;
    text.char_indices().map(|(byte, _)| byte).chain([text.len()]).nth(at)
}

fn char_at<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let (text, at) = (call.text(0)?, call.int(1)?);
    let start = byte_at(&text, at).ok_or_else(|| out_of_range(at))?;
    let end = start + text[start..].chars().next().map_or(0, char::len_utf8);
    Ok(Value::String(text.part(start..end)))
}

fn index_of<'a>(call: &mut Call<'a, '_>, last: bool) -> Evaluated<'a> {
    let (text, part) = (call.text(0)?, call.text(1)?);
    let len = text.chars().count() as i64;
    let offset = match call.args.get(2) {
        Some(_) => call.int(2)?,
        None if last => len,
        None => 0,
    };
    if offset < 0 {
        return Err(out_of_range(offset));
    }
    if part.is_empty() {
        return Ok(Value::Int(offset.min(len)));
    }
    let given = call.args.len() > 2;
    let found = match byte_at(&text, offset) {
        None => None,
        Some(start) if !last => text[start..].find(&*part).map(|at| start + at),
        Some(start) if given && start == text.len() => None,
        // One that begins at the offset or before it.
        Some(start) => text.as_bytes()[..(start + part.len()).min(text.len())]
            .windows(part.len())
            .rposition(|window| window == part.as_bytes())
            .filter(|at| *at <= start),
    };
    Ok(Value::Int(found.map_or(-1, |at| text[..at].chars().count() as i64)))
}

fn replace<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let (text, from, to) = (call.text(0)?, call.text(1)?, call.text(2)?);
    let most = match call.args.get(3) {
        Some(_) => usize::try_from(call.int(3)?).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    let count = text.matches(&*from).take(most).count();
    call.meter.reserve(text.len().saturating_add(count.saturating_mul(to.len())))?;
    Ok(text.replacen(&*from, &to, most).into())
}

fn split<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let (text, by) = (call.text(0)?, call.text(1)?);
    let most = match call.args.get(2) {
        Some(_) => usize::try_from(call.int(2)?).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    if most == 0 {
        return Ok(Vec::new().into());
    }
    let mut ends: Vec<(usize, usize)> = Vec::new();
    if by.is_empty() {
        let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).take(most).collect();
        call.meter.reserve(starts.len() * 2 * size_of::<Value<'_>>())?;
        let next = starts.iter().skip(1).copied().chain([text.len()]);
        ends.extend(starts.iter().copied().zip(next));
    } else {
        let mut start = 0;
        for (at, found) in text.match_indices(&*by).take(most - 1) {
            call.meter.reserve(2 * size_of::<Value<'_>>())?;
            ends.push((start, at));
            start = at + found.len();
        }
        ends.push((start, text.len()));
    }
    let parts: Vec<Value<'a>> = ends.into_iter().map(|(from, to)| Value::String(text.part(from..to))).collect();
    Ok(parts.into())
}

fn substring<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let (text, start) = (call.text(0)?, call.int(1)?);
    let end = match call.args.get(2) {
        Some(_) => Some(call.int(2)?),
        None => None,
    };
    if let Some(end) = end.filter(|end| start > *end) {
        return Err(Error::failed(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let from = byte_at(&text, start).ok_or_else(|| out_of_range(start))?;
    let to = match end {
        Some(end) => byte_at(&text, end).ok_or_else(|| out_of_range(end))?,
        None => text.len(),
    };
    Ok(Value::String(text.part(from..to)))
}

fn join<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let list = call.list(0)?;
    let by = if call.args.len() > 1 { call.text(1)? } else { Text::Borrowed("") };
    let mut out = String::new();
    for (index, item) in list.iter().enumerate() {
        let Value::String(text) = item else { return Err(Error::failed(format!("join: invalid input: {item}"))) };
        call.meter.reserve(text.len() + by.len())?;
        if index > 0 {
            out.push_str(&by);
        }
        out.push_str(&text);
    }
    Ok(out.into())
}

fn quote<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let mut out = String::from("\"");
    for character in call.text(0)?.chars() {
        match character {
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out.push('"');
    call.new_text(out)
}
