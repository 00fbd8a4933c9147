//! Quantities: exact decimal numbers with a suffix.

use std::cmp::Ordering;
use std::fmt;

/// An exact amount, kept as `mantissa * 10^-9` units, with the family of suffixes it was written in.
///
/// The smallest representable part is a nano unit; finer input is rounded up, as the API does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quantity {
    nanos: i128,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Decimal,
    Binary,
    Exponent,
}

const NANO: i128 = 1_000_000_000;
/// The largest amount, either way.
const MAX: i128 = i64::MAX as i128 * NANO;
const DECIMAL: [(&str, i32); 11] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18), ("", 0)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// Text that is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

impl Quantity {
    pub const ZERO: Self = Self { nanos: 0, form: Form::Decimal };

    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let split = text
            .char_indices()
            .find(|(i, c)| !(c.is_ascii_digit() || *c == '.' || (*i == 0 && matches!(c, '+' | '-'))))
            .map_or(text.len(), |(i, _)| i);
        let (number, suffix) = text.split_at(split);
        let (form, binary_shift, exponent) = parse_suffix(suffix)?;
        let negative = number.starts_with('-');
        let digits = number.trim_start_matches(['+', '-']);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() + fraction.len() > 36 {
            return Err(QuantityError);
        }
        let mantissa: i128 = format!("0{whole}{fraction}").parse().map_err(|_| QuantityError)?;
        let power = exponent + 9 - i32::try_from(fraction.len()).map_err(|_| QuantityError)?;
        let nanos = mantissa.checked_mul(1_i128 << binary_shift).and_then(|scaled| scale(scaled, power));
        // More than fits becomes the largest amount there is.
        let nanos = nanos.map_or(MAX, |nanos| nanos.min(MAX));
        Ok(Self { nanos: if negative { -nanos } else { nanos }, form })
    }

    /// A whole number.
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANO, form: Form::Decimal }
    }

    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANO / 1000), form: Form::Decimal }
    }

    /// The amount in thousandths, rounded up.
    pub fn millis(self) -> i64 {
        saturate(ceil_div(self.nanos, NANO / 1000))
    }

    /// The amount in whole units, rounded up.
    pub fn units(self) -> i64 {
        saturate(ceil_div(self.nanos, NANO))
    }

    /// The amount if it is a whole number.
    pub fn whole(self) -> Option<i64> {
        (self.nanos % NANO == 0).then(|| i64::try_from(self.nanos / NANO).ok()).flatten()
    }

    /// The amount as a floating-point number, which may not be exact.
    pub fn approximately(self) -> f64 {
        (self.nanos / NANO) as f64 + (self.nanos % NANO) as f64 / NANO as f64
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_add(other.nanos),
            form: if self.nanos == 0 { other.form } else { self.form },
        }
    }

    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(other.nanos),
            form: if self.nanos == 0 { other.form } else { self.form },
        }
    }

    /// The amount rounded up to thousandths.
    #[must_use]
    pub fn rounded_to_millis(self) -> Self {
        Self { nanos: ceil_div(self.nanos, NANO / 1000) * (NANO / 1000), ..self }
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn ceil_div(value: i128, by: i128) -> i128 {
    value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0)
}

fn parse_suffix(suffix: &str) -> Result<(Form, u32, i32), QuantityError> {
    if let Some((_, shift)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Ok((Form::Binary, *shift, 0));
    }
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((Form::Decimal, 0, *exponent));
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError)?;
    let exponent: i32 = digits.trim_start_matches('+').parse().map_err(|_| QuantityError)?;
    if exponent.abs() > 30 {
        return Err(QuantityError);
    }
    Ok((Form::Exponent, 0, exponent))
}

/// `value * 10^power`, rounded up.
fn scale(value: i128, power: i32) -> Option<i128> {
    let factor = 10_i128.checked_pow(power.unsigned_abs())?;
    if power >= 0 { value.checked_mul(factor) } else { Some(ceil_div(value, factor)) }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.nanos.cmp(&other.nanos))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.form == Form::Binary && self.nanos % NANO == 0 {
            let units = self.nanos / NANO;
            if units.abs() >= 1024 {
                let (suffix, shift) = BINARY
                    .iter()
                    .rev()
                    .find(|(_, shift)| units % (1_i128 << shift) == 0)
                    .map_or(("", 0), |(s, shift)| (*s, *shift));
                return write!(f, "{}{suffix}", units >> shift);
            }
            return write!(f, "{units}");
        }
        let (mut value, mut exponent) = (self.nanos, -9);
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        match self.form {
            Form::Exponent if exponent != 0 => write!(f, "{value}e{exponent}"),
            _ => {
                let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent).map_or("", |(s, _)| *s);
                write!(f, "{value}{suffix}")
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_canonical() {
        for (text, expected) in [
            ("1", "1"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1000Ki", "1000Ki"),
            ("100k", "100k"),
            ("1e3", "1e3"),
            ("12345", "12345"),
            ("0.1n", "1n"),
            ("-2", "-2"),
            ("0Ki", "0"),
            ("0.5Mi", "512Ki"),
            ("+3", "3"),
            ("500Mi", "500Mi"),
            ("1000M", "1G"),
            ("1e30", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775807"),
            ("16Ei", "9223372036854775807"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "x", "1x", "1.2.3", "--1", "1 Gi", "Gi", "1e", "."] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_compare_and_add_exactly() {
        let q = |t: &str| Quantity::parse(t).unwrap();
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("250m").plus(q("750m")).to_string(), "1");
        assert_eq!(q("1Gi").minus(q("512Mi")).to_string(), "512Mi");
        assert_eq!((q("1.5").units(), q("0.1m").millis()), (2, 1));
    }
}
