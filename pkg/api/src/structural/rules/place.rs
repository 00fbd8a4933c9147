//! `fieldPath` of rules: `.spec.x` or `['a b'].c`.

use serde_json::Value;

use crate::field::FieldPath;

/// The path below `before`, if the schema knows it.
pub(super) fn read(text: &str, schema: &Value, before: &FieldPath) -> Option<FieldPath> {
    let (mut path, mut schema, mut rest) = (before.clone(), schema, text);
    while !rest.is_empty() {
        let name;
        if let Some(inner) = rest.strip_prefix("['") {
            let (quoted, after) = quoted(inner)?;
            name = quoted;
            rest = after.strip_prefix(']')?;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            name = after[..end].to_owned();
            rest = &after[end..];
        }
        if schema["properties"].is_object() {
            path = path.child(&name);
            schema = schema["properties"].get(&name)?;
        } else {
            path = path.key(&name);
            schema = schema.get("additionalProperties").filter(|s| s.is_object())?;
        }
    }
    Some(path)
}

/// What is before the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' => return Some((out, &text[at + 1..])),
            '\\' => out.push(match characters.next()?.1 {
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\x0b',
                same @ ('\'' | '\\') => same,
                _ => return None,
            }),
            other => out.push(other),
        }
    }
    None
}
