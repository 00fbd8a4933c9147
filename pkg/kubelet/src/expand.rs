//! `$(VAR)` references in commands, arguments, variables and paths.

/// Replaces `$(NAME)` by its value; `$$` is one `$`. Unknown names and unfinished references stay as they are.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    replace(text, lookup, |name| Some(format!("$({name})"))).unwrap_or_default()
}

/// As [`expand`], but an unknown name is an error that gives it.
pub fn expand_strictly(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let missing = std::cell::RefCell::new(None);
    let expanded = replace(text, lookup, |name| {
        missing.borrow_mut().get_or_insert_with(|| name.to_owned());
        None
    });
    expanded.ok_or_else(|| missing.into_inner().unwrap_or_default())
}

fn replace(
    text: &str,
    lookup: impl Fn(&str) -> Option<String>,
    unknown: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            out.push_str(&lookup(name).or_else(|| unknown(name))?);
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_as_upstream_does() {
        let vars = |name: &str| (name == "A").then(|| "1".to_owned());
        let cases = [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
        ];
        for (text, wanted) in cases {
            assert_eq!(expand(text, vars), wanted, "{text}");
        }
        assert_eq!(expand_strictly("a/$(A)", vars), Ok("a/1".to_owned()));
        assert_eq!(expand_strictly("a/$(B)", vars), Err("B".to_owned()));
    }
}
