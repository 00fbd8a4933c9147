//! The way through a value along its field table.

use base64::engine::general_purpose::STANDARD;
use base64::{DecodeError, Engine};
use serde_json::Value;

use super::super::plain_numbers;
use super::super::trail::Trail;
use super::wrong::Wrong;
use crate::schema::{Scalar, Shape};

/// A walk that notes unknown members.
#[derive(Default)]
pub struct Walk(pub Trail);

impl Walk {
    /// Runs `inner` with a longer path.
    pub fn below<T>(&mut self, step: &str, inner: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.0.enter(step);
        let result = inner(self);
        self.0.leave(length);
        result
    }

    fn below_item<T>(&mut self, index: usize, inner: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.0.enter_item(index);
        let result = inner(self);
        self.0.leave(length);
        result
    }

    /// Checks a value and brings its leaves to their canonical form; members that its type does not have are dropped and
    /// noted.
    pub fn value(&mut self, shape: Shape, value: &mut Value) -> Result<(), Wrong> {
        if value.is_null() {
            return Ok(());
        }
        match shape {
            Shape::Any => {
                plain_numbers(value);
                Ok(())
            }
            Shape::Scalar(scalar) => self.scalar(scalar, value),
            Shape::Struct(_) => self.members(shape, value),
            Shape::Map(field) => {
                let Value::Object(members) = value else { return Err(Wrong::kind(shape, value)) };
                members.iter_mut().try_for_each(|(key, v)| self.below(key, |w| w.element(field.element(), v)))
            }
            Shape::List(_) | Shape::Strings => {
                let Value::Array(items) = value else { return Err(Wrong::kind(shape, value)) };
                let mut indexed = items.iter_mut().enumerate();
                indexed.try_for_each(|(i, v)| self.below_item(i, |w| w.element(shape.item(), v)))
            }
        }
    }

    /// A null among the elements of a list or map is the zero value of their type.
    fn element(&mut self, shape: Shape, value: &mut Value) -> Result<(), Wrong> {
        if value.is_null() {
            match shape {
                Shape::Scalar(Scalar::String | Scalar::Bytes) => *value = "".into(),
                Shape::Scalar(Scalar::Quantity) => *value = "0".into(),
                Shape::Scalar(Scalar::Bool) => *value = false.into(),
                Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString) => {
                    *value = 0.into()
                }
                Shape::Struct(_) => *value = Value::Object(serde_json::Map::new()),
                Shape::Scalar(Scalar::Time | Scalar::MicroTime | Scalar::Duration)
                | Shape::Any
                | Shape::Map(_)
                | Shape::List(_)
                | Shape::Strings => {}
            }
        }
        self.value(shape, value)
    }

    fn members(&mut self, shape: Shape, value: &mut Value) -> Result<(), Wrong> {
        let Value::Object(members) = value else { return Err(Wrong::kind(shape, value)) };
        let mut dropped = Vec::new();
        for (key, member) in members.iter_mut() {
            match shape.member(key) {
                Some(inner) => self.below(key, |w| w.value(inner, member)).map_err(|wrong| wrong.within(shape, key))?,
                None => {
                    self.below(key, |w| w.0.note());
                    dropped.push(key.clone());
                }
            }
        }
        for key in dropped {
            members.remove(&key);
        }
        // An explicit null is an absent member, except inside free-form values.
        members.retain(|_, v| !v.is_null());
        Ok(())
    }

    fn scalar(&self, scalar: Scalar, value: &mut Value) -> Result<(), Wrong> {
        let valid = match scalar {
            Scalar::String => value.is_string(),
            Scalar::Bool => value.is_boolean(),
            Scalar::Int32 => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Scalar::Int64 => value.is_i64(),
            Scalar::Double => {
                plain_numbers(value);
                value.is_number()
            }
            Scalar::Bytes => value.as_str().is_some_and(|s| STANDARD.decode(s).is_ok()),
            Scalar::IntOrString => value.is_string() || value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Scalar::Quantity => return self.quantity(value),
            Scalar::Time | Scalar::MicroTime => return self.time(scalar, value),
            Scalar::Duration => value.is_string(),
        };
        match (valid, scalar, &*value) {
            (true, ..) => Ok(()),
            (_, Scalar::Bytes, Value::String(text)) => {
                let at = STANDARD.decode(text).err().map_or(0, |error| match error {
                    DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                    DecodeError::InvalidLength(length) => length,
                    DecodeError::InvalidPadding => text.len(),
                });
                Err(Wrong::text(format!("illegal base64 data at input byte {at}")))
            }
            // These read themselves, and do not know where they are.
            (_, Scalar::IntOrString | Scalar::Duration, value) => {
                let wanted = if scalar == Scalar::Duration { Scalar::String } else { Scalar::Int32 };
                Err(Wrong::text(Wrong::kind(Shape::Scalar(wanted), value).to_string()))
            }
            _ => Err(Wrong::kind(Shape::Scalar(scalar), value)),
        }
    }

    fn quantity(&self, value: &mut Value) -> Result<(), Wrong> {
        let text = match &*value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            other => other.to_string(),
        };
        let parsed = crate::quantity::Quantity::parse(&text).map_err(|error| Wrong::text(error.to_string()))?;
        *value = parsed.to_string().into();
        Ok(())
    }

    fn time(&self, scalar: Scalar, value: &mut Value) -> Result<(), Wrong> {
        let no_text = || Wrong::text(Wrong::kind(Shape::Scalar(Scalar::String), value).to_string());
        let text = value.as_str().ok_or_else(no_text)?;
        if text.is_empty() {
            *value = Value::Null;
            return Ok(());
        }
        let layout =
            if scalar == Scalar::Time { "2006-01-02T15:04:05Z07:00" } else { "2006-01-02T15:04:05.000000Z07:00" };
        let no_time =
            |_| Wrong::text(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""));
        let time: jiff::Timestamp = text.parse().map_err(no_time)?;
        let format = if scalar == Scalar::Time { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
        *value = time.strftime(format).to_string().into();
        Ok(())
    }
}
