//! Forms of names and values. Every check returns what is wrong, in the API's words.

pub(super) use super::address::{
    canonical_cidr, canonical_ip, cidr, endpoint_ip, interface, ip, is_inside, is_invalid_cidr, is_ip, is_ipv4, is_ipv6,
};

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const UNDERSCORED: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
const C_IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

/// Names are counted in characters, labels and their keys in bytes: both mean bytes.
fn too_long(max: usize, unit: &str) -> String {
    format!("must be no more than {max} {unit}")
}

/// Ends alphanumeric, everything in between by `middle`.
fn framed(text: &str, end: impl Fn(u8) -> bool, middle: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match bytes {
        [] => false,
        [one] => end(*one),
        [first, inner @ .., last] => end(*first) && end(*last) && inner.iter().all(|b| middle(*b)),
    }
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    framed(text, lower, |b| lower(b) || b == b'-')
}

fn is_qualified(text: &str) -> bool {
    framed(text, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn both(text: &str, max: usize, valid: bool, message: &str) -> Vec<String> {
    counted(text, (max, "characters"), valid, message)
}

fn counted(text: &str, (max, unit): (usize, &str), valid: bool, message: &str) -> Vec<String> {
    let long = (text.len() > max).then(|| too_long(max, unit));
    long.into_iter().chain((!valid).then(|| message.to_owned())).collect()
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

pub(crate) fn dns_label(text: &str) -> Vec<String> {
    both(text, 63, is_label(text), if is_subdomain(text) { "must not contain dots" } else { LABEL })
}

/// A label that begins with a letter.
pub(crate) fn dns1035_label(text: &str) -> Vec<String> {
    let valid = is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
    both(text, 63, valid, LABEL_1035)
}

pub(crate) fn dns_subdomain(text: &str) -> Vec<String> {
    both(text, 253, is_subdomain(text), SUBDOMAIN)
}

/// A subdomain to search in: its names may have underscores.
pub(super) fn search_domain(text: &str) -> Vec<String> {
    let label =
        |label: &str| framed(label.strip_prefix('_').unwrap_or(label), lower, |b| lower(b) || b"-_".contains(&b));
    both(text, 253, text.split('.').all(label), UNDERSCORED)
}

/// A domain of at least `segments` parts.
pub(super) fn domain(text: &str, segments: usize) -> Vec<String> {
    let problems = dns_subdomain(text);
    if !problems.is_empty() {
        return vec![problems.join(",")];
    }
    let words = if segments == 2 { "two" } else { "three" };
    let few = text.split('.').count() < segments;
    few.then(|| format!("should be a domain with at least {words} segments separated by dots")).into_iter().collect()
}

pub(super) fn c_identifier(text: &str) -> Vec<String> {
    let byte = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let valid = text.bytes().all(byte) && text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
    both(text, usize::MAX, valid, C_IDENTIFIER)
}

pub(super) fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." | ".." => vec![format!("may not be '{text}'")],
        _ => path_segment_prefix(text),
    }
}

pub(super) fn path_segment_prefix(text: &str) -> Vec<String> {
    ["/", "%"].iter().filter(|c| text.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

pub(crate) fn qualified_name(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".into());
            } else {
                let prefix_problems = counted(prefix, (253, "bytes"), is_subdomain(prefix), SUBDOMAIN);
                problems.extend(prefix_problems.into_iter().map(|p| format!("prefix part {p}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        problems.push(format!("name part {}", too_long(63, "bytes")));
    }
    if !is_qualified(name) {
        problems.push(format!("name part {QUALIFIED}"));
    }
    problems
}

pub(super) fn wildcard_subdomain(text: &str) -> Vec<String> {
    let valid = text.strip_prefix("*.").is_some_and(is_subdomain);
    both(text, 253, valid, WILDCARD)
}

/// What is wrong with a path that begins with a domain (`example.com/name`): with which part of it, and why.
pub(super) fn domain_prefixed_path(text: &str) -> Vec<(&str, String)> {
    match text.split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            let mut problems: Vec<_> = dns_subdomain(host).into_iter().map(|problem| (host, problem)).collect();
            if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
                let problem = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                problems.push((path, problem.into()));
            }
            problems
        }
        _ => vec![(text, "must be a domain-prefixed path (such as \"acme.io/foo\")".into())],
    }
}

pub(crate) fn label_value(text: &str) -> Vec<String> {
    counted(text, (63, "bytes"), text.is_empty() || is_qualified(text), LABEL_VALUE)
}

pub(super) fn port_name(text: &str) -> Vec<String> {
    let byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let cases = [
        (text.len() > 15, "must be no more than 15 characters"),
        (
            text.is_empty() || !text.bytes().all(byte),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (!text.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (text.contains("--"), "must not contain consecutive hyphens"),
        (text.starts_with('-') || text.ends_with('-'), "must not begin or end with a hyphen"),
    ];
    cases.iter().filter(|(wrong, _)| *wrong).map(|(_, message)| (*message).to_owned()).collect()
}

pub(super) fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { Vec::new() } else { vec!["must be between 1 and 65535, inclusive".into()] }
}

pub(super) fn config_key(text: &str) -> Vec<String> {
    let byte = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let mut problems = both(text, 253, !text.is_empty() && text.bytes().all(byte), CONFIG_KEY);
    match text {
        "." | ".." => problems.push(format!("must not be '{text}'")),
        _ if text.starts_with("..") => problems.push("must not start with '..'".into()),
        _ => {}
    }
    problems
}

pub(super) fn env_var_name(text: &str) -> Vec<String> {
    if text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        Vec::new()
    } else {
        vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".into()]
    }
}

pub(super) fn http_header_name(text: &str) -> Vec<String> {
    let valid = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    both(text, usize::MAX, valid, HEADER)
}

/// The number of a percentage.
pub(super) fn percent(text: &str) -> Result<i64, String> {
    let number = text.strip_suffix('%').filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    number.and_then(|n| n.parse().ok()).ok_or_else(|| PERCENT.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_told_in_upstreams_words() {
        assert_eq!(dns_label("a.b"), ["must not contain dots"]);
        assert_eq!(dns_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(domain("a.b", 3), ["should be a domain with at least three segments separated by dots"]);
        assert_eq!(domain_prefixed_path("a.b/c d")[0].0, "c d");
        assert!(qualified_name("a/b/c")[0].starts_with("a valid label key must consist of"));
    }

    #[test]
    fn names_follow_their_rules() {
        type Check = fn(&str) -> Vec<String>;
        let cases: [(Check, &[&str], &[&str]); 9] = [
            (c_identifier, &["a", "_A1"], &["", "1a", "a-b"]),
            (dns_label, &["a", "a-1", "1"], &["", "-a", "a-", "A", "a.b", "a_b"]),
            (dns_subdomain, &["a", "a.b-c.d"], &["", ".a", "a..b", "a.-b", "A"]),
            (qualified_name, &["a", "A_b.c", "example.com/Name"], &["", "/a", "a/", "a/b/c", "a b", "Ex/a"]),
            (label_value, &["", "a", "A_1.b"], &["-a", "a b", "a/b"]),
            (port_name, &["http", "a-1"], &["", "1", "a--b", "-a", "Http", "averyveryverylong"]),
            (config_key, &["a", ".a", "A_b-c.d"], &["", ".", "..", "..a", "a/b"]),
            (path_segment, &["system:a", "A b"], &[".", "..", "a/b", "a%b"]),
            (env_var_name, &["A", "a-b.c", "1"], &["a=b", "é"]),
        ];
        for (check, good, bad) in cases {
            for text in good {
                assert_eq!(check(text), Vec::<String>::new(), "{text}");
            }
            for text in bad {
                assert!(!check(text).is_empty(), "{text}");
            }
        }
    }
}
