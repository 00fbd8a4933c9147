//! The part of JSONPath that columns of custom resources use: members, indexes, wildcards and equality filters.

use serde_json::Value;

/// The first result of a path such as `.status.conditions[?(@.type=="Ready")].status`.
pub fn first<'a>(path: &str, object: &'a Value) -> Option<&'a Value> {
    let path = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    walk(object, path)
}

fn walk<'a>(at: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(at);
    }
    if let Some(rest) = path.strip_prefix('[') {
        let end = closing_bracket(rest)?;
        return bracket(at, &rest[..end], &rest[end + 1..]);
    }
    let path = path.trim_start_matches('.');
    let (name, rest) = member(path);
    match name.as_str() {
        "" => {
            if rest.is_empty() {
                Some(at)
            } else {
                walk(at, rest)
            }
        }
        "*" => children(at).find_map(|child| walk(child, rest)),
        _ => walk(at.get(&name)?, rest),
    }
}

/// A name up to the next separator; a backslash takes the next character as it is.
fn member(path: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = path.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, &path[index..]),
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            _ => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket ends, beyond any quoted text.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut quote = None;
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (None, ']') => return Some(index),
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            _ => {}
        }
    }
    None
}

fn bracket<'a>(at: &'a Value, inside: &str, rest: &str) -> Option<&'a Value> {
    let inside = inside.trim();
    if inside == "*" {
        return children(at).find_map(|child| walk(child, rest));
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        return children(at).filter(|child| passes(filter, child)).find_map(|child| walk(child, rest));
    }
    if let Some(name) = unquote(inside) {
        return walk(at.get(name)?, rest);
    }
    let index: i64 = inside.parse().ok()?;
    let items = at.as_array()?;
    let index = if index < 0 { index + i64::try_from(items.len()).ok()? } else { index };
    walk(items.get(usize::try_from(index).ok()?)?, rest)
}

fn children(at: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match at {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(members) => Box::new(members.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn passes(filter: &str, item: &Value) -> bool {
    let (left, right, equal) = match (filter.split_once("=="), filter.split_once("!=")) {
        (Some((left, right)), _) => (left, right, true),
        (None, Some((left, right))) => (left, right, false),
        (None, None) => return filter.trim().strip_prefix('@').is_some_and(|path| walk(item, path).is_some()),
    };
    let Some(found) = left.trim().strip_prefix('@').and_then(|path| walk(item, path)) else { return false };
    let right = right.trim();
    let same = match unquote(right) {
        Some(text) => found == text,
        None => serde_json::from_str::<Value>(right).is_ok_and(|right| *found == right),
    };
    same == equal
}

fn unquote(text: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn paths_find_their_first_result() {
        let object = json!({"metadata": {"labels": {"a.b/c": "x"}}, "list": [{"t": "A", "v": 1}, {"t": "B", "v": 2}]});
        for (path, expected) in [
            (".list[0].v", json!(1)),
            ("{.list[-1].t}", json!("B")),
            (".list[?(@.t==\"B\")].v", json!(2)),
            (".list[?(@.v!=1)].t", json!("B")),
            (".list[*].v", json!(1)),
            (".metadata.labels['a.b/c']", json!("x")),
            (".metadata.labels.a\\.b/c", json!("x")),
        ] {
            assert_eq!(super::first(path, &object), Some(&expected), "{path}");
        }
        for path in [".nothing.here", ".list[7]", ".list[x", ".list[?(@.t==\"C\")].v", "[", "..["] {
            assert_eq!(super::first(path, &object), None, "{path}");
        }
    }
}
