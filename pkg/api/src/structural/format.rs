//! Formats of strings and numbers that schemas may ask for. Unknown formats hold for everything.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;

/// Whether a string has the format.
pub(super) fn text_fits(format: &str, text: &str) -> bool {
    match format {
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
        "date-time" | "datetime" => text.parse::<Timestamp>().is_ok(),
        "duration" => is_duration(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(format, text),
        "email" => text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && is_hostname(host)),
        "hostname" => is_hostname(text),
        "uri" => text.split_once(':').is_some_and(|(scheme, rest)| !rest.is_empty() && is_scheme(scheme)),
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

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| label.len() <= 63 && is_label(&label.to_ascii_lowercase());
    text.len() <= 253 && text.split('.').all(label)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let length = length.parse::<u8>().unwrap_or(u8::MAX);
    (address.parse::<Ipv4Addr>().is_ok() && length <= 32) || (address.parse::<Ipv6Addr>().is_ok() && length <= 128)
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

/// Go's durations such as `1h30m`, as upstream accepts them.
fn is_duration(text: &str) -> bool {
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    let mut any = false;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let known = matches!(&rest[digits..unit], "ns" | "us" | "µs" | "ms" | "s" | "m" | "h" | "d" | "w");
        if !known || rest[..digits].parse::<f64>().is_err() {
            return false;
        }
        any = true;
        rest = &rest[unit..];
    }
    any
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
        ];
        for (format, good, bad) in cases {
            assert!(text_fits(format, good) && !text_fits(format, bad), "{format}");
        }
        assert!(number_fits("int32", 1e9) && !number_fits("int32", 3e9));
    }
}
