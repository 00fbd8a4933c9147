//! Formats of strings and numbers that schemas may ask for. Unknown formats hold for everything.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine;
use jiff::Timestamp;
use jiff::civil::Date;
use regex::Regex;
use serde_json::Value;

/// Whether a string has the format.
pub(super) fn text_fits(format: &str, text: &str) -> bool {
    match format {
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
        "date-time" | "datetime" => text.parse::<Timestamp>().is_ok(),
        "duration" => is_duration(text),
        "ipv4" => unpadded(text).parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(format, text),
        "email" => is_mailbox(text),
        "hostname" => text.len() <= 255 && HOSTNAME.is_match(text) && text.split('.').all(|label| label.len() <= 63),
        "uri" => {
            text.starts_with('/')
                || text.split_once(':').is_some_and(|(scheme, rest)| !rest.is_empty() && is_scheme(scheme))
        }
        "hexcolor" => is_hex_color(text),
        "rgbcolor" => RGB.is_match(text),
        "ssn" => SSN.is_match(text),
        "creditcard" => is_card(text),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "isbn10" => is_isbn(text, 10),
        "isbn13" => is_isbn(text, 13),
        "isbn" => is_isbn(text, 10) || is_isbn(text, 13),
        "k8s-short-name" => text.len() <= 63 && is_label(text),
        "k8s-long-name" => text.len() <= 253 && text.split('.').all(is_label),
        _ => true,
    }
}

/// Formats of strings that have a meaning, without hyphens, as upstream compares them.
const TEXT_FORMATS: [&str; 26] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// Formats in a schema that mean nothing for the type they are given to, in no certain order.
pub fn unknown_formats(schema: &Value) -> Vec<String> {
    let Some(members) = schema.as_object() else { return Vec::new() };
    let mut found = Vec::new();
    let format = members.get("format").and_then(Value::as_str).unwrap_or_default();
    let known = match members.get("type").and_then(Value::as_str).unwrap_or_default() {
        "" | "string" => TEXT_FORMATS.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    };
    if !format.is_empty() && !known {
        found.push(format.to_owned());
    }
    for key in ["items", "additionalProperties", "not"] {
        found.extend(members.get(key).map(unknown_formats).unwrap_or_default());
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        let branches = members.get(key).and_then(Value::as_array).into_iter().flatten();
        found.extend(branches.flat_map(unknown_formats));
    }
    let properties = members.get("properties").and_then(Value::as_object).into_iter().flat_map(serde_json::Map::values);
    found.extend(properties.flat_map(unknown_formats));
    found
}

/// Whether a number lies in the format's range.
pub(super) fn number_fits(format: &str, number: f64) -> bool {
    match format {
        "int32" => (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number),
        "int64" => (i64::MIN as f64..=i64::MAX as f64).contains(&number),
        "float" => number.abs() <= f64::from(f32::MAX),
        _ => true,
    }
}

fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Go's form of a host name: without a domain, or with a top level of two letters and more.
static HOSTNAME: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9\-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)\.)+([a-zA-Z\p{L}]){2,63})$",
    )
});
static RGB: LazyLock<Regex> = LazyLock::new(|| {
    let part = r"\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*";
    pattern(&format!(r"^rgb\({part},{part},{part}\)$"))
});
static SSN: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"));
static CARD: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$",
    )
});
static DURATION: LazyLock<Regex> = LazyLock::new(|| pattern(r"\d+\s*([A-Za-zµ]+)"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("it is part of the program and tested")
}

/// `[name] <user@host>` or `user@host`.
fn is_mailbox(text: &str) -> bool {
    let address = text.trim().strip_suffix('>').map_or(text, |text| text.rsplit_once('<').map_or("", |(_, a)| a));
    let atoms = |text: &str| {
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"()<>[]:;@\\,\"".contains(c);
        text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(plain))
    };
    address.trim().rsplit_once('@').is_some_and(|(user, host)| atoms(user) && atoms(host))
}

/// An IPv4 address without zeros before its numbers, which upstream has always let pass.
fn unpadded(text: &str) -> String {
    let strip = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    text.split('.').map(strip).collect::<Vec<_>>().join(".")
}

fn is_hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(index, digit)| {
            let digit = u32::from(digit - b'0');
            if index % 2 == 0 { digit } else { digit * 2 % 10 + digit / 5 }
        })
        .sum();
    CARD.is_match(&digits) && sum.is_multiple_of(10)
}

fn is_isbn(text: &str, length: usize) -> bool {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    let value = |(index, digit): (usize, &char)| match digit {
        'X' if length == 10 && index == 9 => Some(10),
        _ => digit.to_digit(10),
    };
    let Some(values) = digits.iter().enumerate().map(value).collect::<Option<Vec<u32>>>() else { return false };
    let weight = |index: usize| if length == 10 { index as u32 + 1 } else { [1, 3][index % 2] };
    let sum: u32 = values.iter().enumerate().map(|(index, value)| value * weight(index)).sum();
    values.len() == length && sum.is_multiple_of(if length == 10 { 11 } else { 10 })
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let length = length.parse::<u8>().unwrap_or(u8::MAX);
    (unpadded(address).parse::<Ipv4Addr>().is_ok() && length <= 32)
        || (address.parse::<Ipv6Addr>().is_ok() && length <= 128)
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    matches!(parts.len(), 6 | 8) && parts.iter().all(|p| p.len() == 2 && u8::from_str_radix(p, 16).is_ok())
}

fn is_uuid(format: &str, text: &str) -> bool {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    let dashes = text.len() == 32 || [8, 13, 18, 23].iter().all(|i| text.as_bytes().get(*i) == Some(&b'-'));
    let version = format.strip_prefix("uuid").unwrap_or_default();
    let versioned = version.is_empty() || hex.get(12..13) == Some(version);
    hex.len() == 32 && dashes && versioned && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Go's durations such as `1h30m`, and whatever has a number and a unit of time in it, as upstream accepts them.
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 18] = [
        "ns", "nano", "us", "µs", "micro", "ms", "milli", "s", "sec", "m", "min", "h", "hr", "hour", "d", "day", "w",
        "wk",
    ];
    /// Units that may go on: `days`.
    const STEMS: [&str; 8] = ["nano", "micro", "milli", "sec", "min", "hour", "day", "week"];
    let known = |unit: &str| {
        STEMS.iter().any(|stem| unit.starts_with(stem))
            || UNITS.iter().chain(&STEMS).any(|known| known.to_lowercase() == unit.to_lowercase())
    };
    text.trim_start_matches(['+', '-']) == "0" || DURATION.captures_iter(text).any(|found| known(&found[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_take_what_is_theirs() {
        let cases = [
            ("duration", "1h30m", "90"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e"),
            ("mac", "00:11:22:33:44:55", "00:11"),
            ("email", "a@b.c", "a.b"),
            ("date", "2026-01-31", "2026-02-31"),
            ("byte", "aGk=", "a"),
            ("uri", "https://x", "x"),
            ("uri", "/x", ""),
            ("duration", "3 days", "3 fortnights"),
            ("ipv4", "01.2.3.4", "1.2.3.256"),
            ("email", "A <a@b.c>", "A <a>"),
            ("hostname", "a.bc", "a.b"),
            ("hexcolor", "#fFf", "#ggg"),
            ("rgbcolor", "rgb(1, 2,255)", "rgb(1,2,256)"),
            ("ssn", "111-22-3333", "1112-2-3333"),
            ("creditcard", "4111 1111 1111 1111", "4111111111111112"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
            ("isbn", "978-0321751041", "978-0321751042"),
            ("isbn10", "0321751043", "0321751044"),
        ];
        for (format, good, bad) in cases {
            assert!(text_fits(format, good) && !text_fits(format, bad), "{format}");
        }
        assert!(number_fits("int32", 1e9) && !number_fits("int32", 3e9));
    }
}
