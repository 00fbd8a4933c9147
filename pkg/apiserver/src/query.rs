//! Query parameters.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The decoded parameters of a URL, in order.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Leaves out what is malformed, as Go does: pairs with a `;` or with a broken escape.
    pub fn parse(text: &str) -> Self {
        let whole = |pair: &&str| !pair.is_empty() && !pair.contains(';') && broken_escape(pair).is_none();
        let pairs = text.split('&').filter(whole).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_plus(key), decode_plus(value))
        });
        Self { pairs: pairs.collect() }
    }

    /// The first value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// A parameter that is present and not empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|v| !v.is_empty())
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// A boolean: absent, `false` and `0` are false, anything else is true.
    pub fn flag(&self, key: &str) -> bool {
        self.maybe_flag(key).unwrap_or(false)
    }

    pub fn maybe_flag(&self, key: &str) -> Option<bool> {
        self.get(key).map(|v| !(v.eq_ignore_ascii_case("false") || v == "0"))
    }

    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

fn decode_plus(text: &str) -> String {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    decode(&spaced)
}

/// Undoes percent-encoding; invalid sequences are kept or replaced.
pub fn decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The first `%` that two hexadecimal digits do not follow, with what follows it instead.
pub fn broken_escape(text: &str) -> Option<&str> {
    let is_whole =
        |at: usize| text.as_bytes().get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    let (at, _) = text.match_indices('%').find(|(at, _)| !is_whole(*at))?;
    let rest = &text[at..];
    Some(rest.char_indices().nth(3).map_or(rest, |(end, _)| &rest[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_repeated() {
        let query = Query::parse("command=a+b&command=c%2Bd&watch&x=false&y=0");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["a b", "c+d"]);
        let broken = Query::parse("a=%zz&%=b&c=1;d=2&e=%2&f=%e4&g=%C3%BC%");
        assert_eq!(broken.pairs().collect::<Vec<_>>(), [("f", "\u{fffd}")]);
        for (text, found) in [("/a%2fb", None), ("/%zzz", Some("%zz")), ("/a%", Some("%")), ("%2ü", Some("%2ü"))] {
            assert_eq!(broken_escape(text), found);
        }
        assert!(query.flag("watch") && !query.flag("x") && !query.flag("y") && !query.flag("z"));
    }
}
