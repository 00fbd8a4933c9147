//! Regular expressions, as RE2 has them.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use super::Row;
use crate::cel::call::Call;
use crate::cel::value::{Error, Evaluated, Value};

pub(super) const ROWS: &[Row] = &[
    ("matches", "matches", "(string, string) -> bool", matches),
    ("matches", "matches_string", "string.(string) -> bool", matches),
    ("find", "string_find_string", "string.(string) -> string", |c| {
        let text = c.text(0)?;
        let found = pattern(c)?.find(&text).map_or(0..0, |m| m.range());
        Ok(Value::String(text.part(found)))
    }),
    ("findAll", "string_find_all_string", "string.(string) -> list(string)", find_all),
    ("findAll", "string_find_all_string_int", "string.(string, int) -> list(string)", find_all),
];

/// Bytes of a compiled pattern.
const COMPILED_MAX: usize = 1 << 20;

/// Compiles a pattern. Its classes are of ASCII characters.
pub(in crate::cel) fn compile(pattern: &str) -> Result<Regex, String> {
    let built =
        RegexBuilder::new(&ascii_classes(pattern)).size_limit(COMPILED_MAX).dfa_size_limit(COMPILED_MAX).build();
    built.map_err(|error| {
        let why = error.to_string();
        let last = why.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("malformed");
        format!("error parsing regexp: {}: `{pattern}`", last.trim().trim_start_matches("error: "))
    })
}

/// `\d`, `\w` and `\s` mean ASCII in RE2.
fn ascii_classes(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains('\\') {
        return Cow::Borrowed(pattern);
    }
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        out.push(character);
        if character != '\\' {
            continue;
        }
        let class = match characters.next() {
            Some('d') => "[0-9]",
            Some('D') => "[^0-9]",
            Some('w') => "[0-9A-Za-z_]",
            Some('W') => "[^0-9A-Za-z_]",
            Some('s') => "[\\t\\n\\x0c\\r ]",
            Some('S') => "[^\\t\\n\\x0c\\r ]",
            Some('b') => "(?-u:\\b)",
            other => {
                out.extend(other);
                continue;
            }
        };
        out.pop();
        out.push_str(class);
    }
    Cow::Owned(out)
}

fn pattern<'c>(call: &Call<'_, 'c>) -> Result<Cow<'c, Regex>, Error> {
    match call.pattern {
        Some(compiled) => Ok(Cow::Borrowed(compiled)),
        None => compile(&call.text(1)?).map(Cow::Owned).map_err(Error::failed),
    }
}

fn matches<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    Ok(pattern(call)?.is_match(&call.text(0)?).into())
}

fn find_all<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let (text, compiled) = (call.text(0)?, pattern(call)?);
    let most = if call.args.len() > 2 { usize::try_from(call.int(2)?).unwrap_or(usize::MAX) } else { usize::MAX };
    let mut found: Vec<Value<'a>> = Vec::new();
    for each in compiled.find_iter(&text).take(most) {
        call.meter.reserve(2 * size_of::<Value<'_>>())?;
        found.push(Value::String(text.part(each.range())));
    }
    Ok(found.into())
}
