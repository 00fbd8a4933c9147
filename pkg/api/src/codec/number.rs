//! Numbers as Go's encoding/json writes them and as upstream's codecs read them again: clients of typed languages
//! cannot read `1.0` or `1e3` into an integer.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};
use serde_json::{Number, Value};

/// A double as it is read again once it was written: whole ones are integers, if 64 bits can hold them.
/// `None` for infinities and what is no number, which JSON cannot say.
pub fn plain_number(value: f64) -> Option<Number> {
    if value.fract() != 0.0 {
        return Number::from_f64(value);
    }
    let digits = value.to_string();
    let whole = digits.parse::<i64>().map(Number::from).or_else(|_| digits.parse::<u64>().map(Number::from));
    whole.ok().or_else(|| Number::from_f64(value))
}

/// Makes each number a [`plain_number`]. Integers beyond 64 bits with a sign become what doubles can hold of them.
pub fn plain_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if !number.is_i64() => {
            if let Some(plain) = number.as_f64().and_then(plain_number) {
                *number = plain;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(plain_numbers),
        Value::Object(members) => members.values_mut().for_each(plain_numbers),
        _ => {}
    }
}

/// Compact JSON.
pub(super) fn write_compact(out: &mut Vec<u8>, value: &impl Serialize) {
    // Writing a value to a vector cannot fail.
    let _ = value.serialize(&mut Serializer::with_formatter(out, GoNumbers(CompactFormatter)));
}

/// JSON for people.
pub(super) fn write_pretty(out: &mut Vec<u8>, value: &impl Serialize) {
    let _ = value.serialize(&mut Serializer::with_formatter(out, GoNumbers(PrettyFormatter::new())));
}

/// Another format, with numbers as Go writes them.
struct GoNumbers<F>(F);

/// Hands methods on to the other format.
macro_rules! as_inside {
    ($($method:ident($($arg:ident: $ty:ty),*);)*) => {$(
        fn $method<W: ?Sized + Write>(&mut self, out: &mut W, $($arg: $ty),*) -> io::Result<()> {
            self.0.$method(out, $($arg),*)
        }
    )*};
}

impl<F: Formatter> Formatter for GoNumbers<F> {
    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        if value == 0.0 || (1e-6..1e21).contains(&value.abs()) {
            return write!(out, "{value}");
        }
        let text = format!("{value:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => write!(out, "{digits}e+{exponent}"),
            _ => out.write_all(text.as_bytes()),
        }
    }

    as_inside! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(value: &Value) -> String {
        let mut out = Vec::new();
        write_compact(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    /// What is given, as Go's encoding/json writes it, and as it is read again and then written.
    const FORMS: [(&str, &str, &str); 26] = [
        ("0", "0", "0"),
        ("-0.0", "-0", "0"),
        ("1.0", "1", "1"),
        ("1e3", "1000", "1000"),
        ("1E5", "100000", "100000"),
        ("1.5", "1.5", "1.5"),
        ("-2.50", "-2.5", "-2.5"),
        ("1234567.5", "1234567.5", "1234567.5"),
        ("1e-4", "0.0001", "0.0001"),
        ("1e-5", "0.00001", "0.00001"),
        ("1e-6", "0.000001", "0.000001"),
        ("1e-7", "1e-7", "1e-7"),
        ("-1.5e-7", "-1.5e-7", "-1.5e-7"),
        ("1e-10", "1e-10", "1e-10"),
        ("5e-324", "5e-324", "5e-324"),
        ("1e16", "10000000000000000", "10000000000000000"),
        ("9223372036854775807", "9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775808", "9223372036854775808", "9223372036854776000"),
        ("18446744073709551616", "18446744073709552000", "18446744073709552000"),
        ("100000000000000000000", "100000000000000000000", "100000000000000000000"),
        ("1e21", "1e+21", "1e+21"),
        ("-1.5e21", "-1.5e+21", "-1.5e+21"),
        ("1e300", "1e+300", "1e+300"),
        ("0.1", "0.1", "0.1"),
        ("123456789.0", "123456789", "123456789"),
    ];

    #[test]
    fn numbers_are_written_and_read_again_as_by_go() {
        for (given, go, again) in FORMS {
            let mut value: Value = serde_json::from_str(&format!(r#"{{"a":[{given}]}}"#)).unwrap();
            assert_eq!(written(&value), format!(r#"{{"a":[{go}]}}"#), "{given}");
            plain_numbers(&mut value);
            assert_eq!(written(&value), format!(r#"{{"a":[{again}]}}"#), "{given}");
            let mut read: Value = serde_json::from_str(&written(&value)).unwrap();
            plain_numbers(&mut read);
            assert_eq!(read, value, "{given} is read as it was written");
            let mut yaml = super::super::parse_yaml(format!("a: [{go}]").as_bytes()).unwrap();
            plain_numbers(&mut yaml);
            assert_eq!(yaml, value, "{given} in YAML");
        }
        let value = json!({"a": [1.0, {}], "b": {"c": 1e-7}});
        let mut pretty = Vec::new();
        write_pretty(&mut pretty, &value);
        let plain = serde_json::to_string_pretty(&value).unwrap().replace("1.0", "1");
        assert_eq!(String::from_utf8(pretty).unwrap(), plain);
    }

    #[test]
    fn every_double_comes_back_as_it_went() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let Some(number) = Number::from_f64(f64::from_bits(state)) else { continue };
            let text = written(&Value::Number(number.clone()));
            let read: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read.as_f64(), number.as_f64(), "{text}");
            assert_eq!(super::super::parse_yaml(text.as_bytes()).unwrap().as_f64(), number.as_f64(), "{text} in YAML");
        }
    }
}
