//! URLs, as Go's `net/url` reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Row;
use crate::cel::call::Call;
use crate::cel::extension::Extension;
use crate::cel::map::{Key, Map};
use crate::cel::value::{Error, Evaluated, Value};

pub(super) const ROWS: &[Row] = &[
    ("url", "string_to_url", "(string) -> kubernetes.URL", |c| {
        let read = Url::read(&c.text(0)?);
        let why = |why| Error::failed(format!("URL parse error during conversion from string: {why}"));
        read.map(|url| Extension::Url(Arc::new(url)).into()).map_err(why)
    }),
    ("isURL", "is_url_string", "(string) -> bool", |c| Ok(Url::read(&c.text(0)?).is_ok().into())),
    ("getScheme", "url_get_scheme", "kubernetes.URL.() -> string", |c| part(c, |u| u.scheme.clone())),
    ("getHost", "url_get_host", "kubernetes.URL.() -> string", |c| part(c, |u| u.host.clone())),
    ("getHostname", "url_get_hostname", "kubernetes.URL.() -> string", |c| part(c, |u| u.host_and_port().0.to_owned())),
    ("getPort", "url_get_port", "kubernetes.URL.() -> string", |c| part(c, |u| u.host_and_port().1.to_owned())),
    ("getEscapedPath", "url_get_escaped_path", "kubernetes.URL.() -> string", |c| part(c, |u| u.path.clone())),
    ("getQuery", "url_get_query", "kubernetes.URL.() -> map(string, list(string))", query),
];

#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    pub(in crate::cel) text: String,
    scheme: String,
    host: String,
    /// Escaped.
    path: String,
    query: String,
}

impl Url {
    /// Takes what is absolute: a whole URL or a path. The error is Go's.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("parse {text:?}: {why}");
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err(wrong("net/url: invalid control character in URL"));
        }
        if text.is_empty() {
            return Err(wrong("empty url"));
        }
        let (scheme, rest) = split_scheme(text).map_err(wrong)?;
        if !rest.starts_with('/') {
            // Opaque ones, such as mailto:a, are taken if there is a scheme.
            if scheme.is_empty() {
                return Err(wrong("invalid URI for request"));
            }
            return Ok(Self {
                text: text.into(),
                scheme,
                host: String::new(),
                path: String::new(),
                query: String::new(),
            });
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///"))
        {
            Some(after) => after.split_at(after.find('/').unwrap_or(after.len())),
            None => ("", rest),
        };
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        check_host(host).map_err(|why| wrong(&why))?;
        check_escapes(path).map_err(|why| wrong(&why))?;
        let (host, path) = (unescape(host, false), escape_path(path));
        Ok(Self { text: text.into(), scheme, host, path, query: query.into() })
    }

    fn host_and_port(&self) -> (&str, &str) {
        let (host, port) = match self.host.rfind(':') {
            Some(at) if !self.host[at..].contains(']') => (&self.host[..at], &self.host[at + 1..]),
            _ => (self.host.as_str(), ""),
        };
        (host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host), port)
    }
}

fn split_scheme(text: &str) -> Result<(String, &str), &'static str> {
    for (at, character) in text.char_indices() {
        match character {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    if !text.starts_with('/') && text.split('/').next().is_some_and(|first| first.contains(':')) {
        return Err("first path segment in URL cannot contain colon");
    }
    Ok((String::new(), text))
}

fn check_host(host: &str) -> Result<(), String> {
    if host.contains(' ') {
        return Err("invalid character \" \" in host name".into());
    }
    let port = match host.rfind(']') {
        Some(end) if host.starts_with('[') => &host[end + 1..],
        None if host.starts_with('[') => return Err("missing ']' in host".into()),
        _ => host.rfind(':').map_or("", |at| &host[at..]),
    };
    let digits = port.strip_prefix(':').map(|p| p.chars().all(|c| c.is_ascii_digit()));
    if !port.is_empty() && digits != Some(true) {
        return Err(format!("invalid port {port:?} after host"));
    }
    let strange =
        host.chars().find(|c| c.is_ascii() && !(c.is_ascii_alphanumeric() || "!$&'()*+,;=:[]<>\"-_.~%".contains(*c)));
    strange.map_or_else(|| check_escapes(host), |c| Err(format!("invalid character {:?} in host name", c.to_string())))
}

fn check_escapes(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let digits = text.as_bytes().get(at + 1..at + 3);
        if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
            let shown: String = text[at..].chars().take(3).collect();
            return Err(format!("invalid URL escape {shown:?}"));
        }
    }
    Ok(())
}

fn escape_path(path: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]%".contains(&b);
    let each = |b: u8| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    path.bytes().map(each).collect()
}

fn unescape(text: &str, plus: bool) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'%').then(|| after.get(..2)).flatten();
        match code.and_then(|c| u8::from_str_radix(std::str::from_utf8(c).ok()?, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(if plus && *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn of<'c>(call: &'c Call<'_, '_>) -> Result<&'c Arc<Url>, Error> {
    match call.arg(0) {
        Value::Extension(Extension::Url(url)) => Ok(url),
        _ => Err(Error::no_overload()),
    }
}

fn part<'a>(call: &mut Call<'a, '_>, get: fn(&Url) -> String) -> Evaluated<'a> {
    Ok(get(of(call)?).into())
}

fn query<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let mut found: BTreeMap<String, Vec<Value<'a>>> = BTreeMap::new();
    for pair in of(call)?.query.split('&').filter(|p| !p.is_empty() && !p.contains(';') && check_escapes(p).is_ok()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        found.entry(unescape(key, true)).or_default().push(unescape(value, true).into());
    }
    let members = found.into_iter().map(|(k, v)| (Key::Text(k.as_str().into()), (k.into(), v.into())));
    Ok(Value::Map(Map::Owned(Arc::new(members.collect()))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_go_does() {
        for (text, expected) in [
            ("https://user@example.com:80/a b?x=1#f", Some(("https", "example.com:80", "/a%20b"))),
            ("https://[::1]:443/", Some(("https", "[::1]:443", "/"))),
            ("/a/b?c", Some(("", "", "/a/b"))),
            ("mailto:a@b", Some(("mailto", "", ""))),
            ("https://a b/", None),
            ("https://a:x/", None),
            ("https://a/%zz", None),
            ("example.com", None),
            ("", None),
            ("../a", None),
        ] {
            let read = Url::read(text).ok();
            let read = read.as_ref().map(|u| (u.scheme.as_str(), u.host.as_str(), u.path.as_str()));
            assert_eq!(read, expected, "{text}");
        }
        assert_eq!(Url::read("https://[::1]:443/").unwrap().host_and_port(), ("::1", "443"));
    }
}
