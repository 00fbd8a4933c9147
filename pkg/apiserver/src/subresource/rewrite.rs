//! Links in HTML pages.

/// Attributes whose values are URLs.
const ATTRIBUTES: [&str; 11] =
    ["href", "src", "action", "cite", "background", "formaction", "poster", "data", "longdesc", "icon", "manifest"];

/// Puts `prefix` before absolute paths, and before paths on `host`, in the attributes that hold links.
pub fn rewrite_links(page: &[u8], host: &str, prefix: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + 256);
    let mut at = 0;
    while let Some(found) = page[at..].iter().position(|b| *b == b'=').map(|i| at + i) {
        let value = found + 1;
        out.extend_from_slice(&page[at..value]);
        at = value;
        if !names_link(&page[..found]) {
            continue;
        }
        let quoted = matches!(page.get(value), Some(b'"' | b'\''));
        let url = &page[value + usize::from(quoted)..];
        out.extend_from_slice(&page[value..value + usize::from(quoted)]);
        at = value + usize::from(quoted);
        let skipped =
            ["http://", "https://"].iter().map(|s| format!("{s}{host}")).find(|s| url.starts_with(s.as_bytes()));
        let path = &url[skipped.as_ref().map_or(0, String::len)..];
        if path.starts_with(b"/") && !path.starts_with(b"//") && !path.starts_with(prefix.as_bytes()) {
            out.extend_from_slice(prefix.as_bytes());
            at += skipped.map_or(0, |s| s.len());
        }
    }
    out.extend_from_slice(&page[at..]);
    out
}

/// Whether what comes before a `=` is the name of such an attribute, inside a tag.
fn names_link(before: &[u8]) -> bool {
    let start = before.iter().rposition(|b| !(b.is_ascii_alphabetic() || *b == b'-')).map_or(0, |i| i + 1);
    let name = &before[start..];
    let in_tag = start > 0 && before[start - 1].is_ascii_whitespace();
    in_tag && ATTRIBUTES.iter().any(|a| name.eq_ignore_ascii_case(a.as_bytes()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_links_are_changed() {
        for (page, expected) in [
            (r#"<a href="/x">t</a>"#, r#"<a href="/p/x">t</a>"#),
            (r#"<a href="x">/y</a>"#, r#"<a href="x">/y</a>"#),
            (r#"<img  SRC='/i.png' alt="/a">"#, r#"<img  SRC='/p/i.png' alt="/a">"#),
            (r#"<a href="//other/x">"#, r#"<a href="//other/x">"#),
            (r#"<a href="http://h:1/x">"#, r#"<a href="/p/x">"#),
            (r#"<a href="/p/x">"#, r#"<a href="/p/x">"#),
            ("a = /b", "a = /b"),
        ] {
            assert_eq!(String::from_utf8(rewrite_links(page.as_bytes(), "h:1", "/p")).unwrap(), expected);
        }
    }
}
