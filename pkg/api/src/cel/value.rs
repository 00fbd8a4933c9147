//! Values of expressions. Those of JSON documents are looked at where they are, not copied.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value as Json;

use super::extension::Extension;
use super::list::List;
use super::map::Map;
use super::shape::{DYN, Form, Keyed, Shape};
use super::time;
use super::types::Type;
use crate::codec::plain_number;

#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// Nanoseconds since 1970.
    Timestamp(i128),
    /// Nanoseconds.
    Duration(i64),
    List(List<'a>),
    Map(Map<'a>),
    Struct(Arc<Struct<'a>>),
    Optional(Option<Arc<Value<'a>>>),
    Type(Type),
    Extension(Extension),
    /// The composed variables of a policy, which are evaluated when they are asked for.
    Variables,
    /// What stands in place of a value that could not be had, and why.
    Wrong(Arc<str>),
}

/// A value of a type with fields that an expression made.
#[derive(Clone, Debug)]
pub struct Struct<'a> {
    pub name: Arc<str>,
    pub fields: BTreeMap<Arc<str>, Value<'a>>,
}

/// Text that is cheap to copy.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl<'a> Text<'a> {
    /// A part of it, which shares the document's bytes where it can.
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        match self {
            Self::Borrowed(text) => Self::Borrowed(&text[range]),
            Self::Shared(text) => Self::Shared(text[range].into()),
        }
    }
}

/// Why an expression gives no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It costs more than it may. Nothing goes on after that.
    #[error("operation cancelled: actual cost limit exceeded")]
    TooCostly,
    /// It takes too long.
    #[error("operation interrupted")]
    Interrupted,
    #[error("{0}")]
    Failed(String),
}

impl Error {
    pub fn failed(why: impl fmt::Display) -> Self {
        Self::Failed(why.to_string())
    }

    pub(super) fn no_overload() -> Self {
        Self::Failed("no such overload".into())
    }

    pub(super) fn no_key(key: impl fmt::Display) -> Self {
        Self::Failed(format!("no such key: {key}"))
    }
}

pub type Evaluated<'a> = Result<Value<'a>, Error>;

impl From<&str> for Value<'_> {
    fn from(text: &str) -> Self {
        Self::String(Text::Shared(text.into()))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::String(Text::Shared(text.into()))
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl<'a> From<Vec<Value<'a>>> for Value<'a> {
    fn from(items: Vec<Value<'a>>) -> Self {
        Self::List(List::from(items))
    }
}

impl From<Extension> for Value<'_> {
    fn from(value: Extension) -> Self {
        Self::Extension(value)
    }
}

impl<'a> Value<'a> {
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    pub const NONE: Self = Self::Optional(None);

    /// JSON that no schema describes: whole numbers are int.
    pub fn of_json(json: &'a Json) -> Self {
        Self::shaped(json, &DYN)
    }

    /// JSON as its schema says.
    pub fn shaped(json: &'a Json, shape: &'a Shape) -> Self {
        let wrong = |expected: &str| Self::Wrong(format!("invalid data, expected {expected}").into());
        match (json, &shape.form) {
            (Json::Null, _) => Self::Null,
            (Json::Bool(value), Form::Dyn | Form::Bool) => Self::Bool(*value),
            (Json::Number(number), Form::Dyn | Form::Int) => {
                match (number.as_i64(), number.as_f64()) {
                    (Some(value), _) => Self::Int(value),
                    // A whole number may be written as 1.0 where an integer is asked for.
                    (_, Some(value)) if matches!(shape.form, Form::Int) => Self::Int(value as i64),
                    (_, value) => Self::Double(value.unwrap_or_default()),
                }
            }
            (Json::Number(number), Form::Double) => Self::Double(number.as_f64().unwrap_or_default()),
            (Json::String(text), Form::Dyn | Form::String) => Self::String(Text::Borrowed(text)),
            (Json::String(text), Form::Bytes) => {
                use base64::Engine;
                let decoded = base64::engine::general_purpose::STANDARD.decode(text);
                decoded.map_or_else(|_| wrong("byte format"), |bytes| Self::Bytes(bytes.into()))
            }
            (Json::String(text), Form::Timestamp { date }) => {
                let read = if *date { time::read_date(text) } else { time::read_timestamp(text) };
                read.map_or_else(|| wrong("a timestamp"), Self::Timestamp)
            }
            (Json::String(text), Form::Duration) => {
                time::read_duration(text).map_or_else(|| wrong("a duration"), Self::Duration)
            }
            (Json::Array(items), Form::Dyn) => Self::List(List::Json { items, item: &DYN, keyed: &Keyed::Index }),
            (Json::Array(items), Form::List { item, keyed }) => Self::List(List::Json { items, item, keyed }),
            (Json::Object(members), Form::Dyn) => Self::Map(Map::Json { members, value: &DYN }),
            (Json::Object(members), Form::Map(value)) => Self::Map(Map::Json { members, value }),
            (Json::Object(members), Form::Object(shape)) => Self::Map(Map::Object { members, shape }),
            _ => wrong(&shape.ty().to_string()),
        }
    }

    /// The type that `type()` tells.
    pub fn ty(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Duration(_) => Type::Duration,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(Map::Object { shape, .. }) => Type::Struct(shape.name.clone()),
            Self::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Self::Struct(of) => Type::Struct(of.name.clone()),
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Type(_) => Type::Type(None),
            Self::Extension(value) => value.ty(),
            Self::Variables => Type::object(super::env::VARIABLES),
            Self::Wrong(_) => Type::Error,
        }
    }

    /// Whether it may be an argument of this type.
    pub(super) fn fits(&self, ty: &Type) -> bool {
        match (ty, self) {
            (Type::Dyn | Type::Error | Type::Param(_), _)
            | (Type::Null, Self::Null)
            | (Type::Bool, Self::Bool(_))
            | (Type::Int, Self::Int(_))
            | (Type::Uint, Self::Uint(_))
            | (Type::Double, Self::Double(_))
            | (Type::String, Self::String(_))
            | (Type::Bytes, Self::Bytes(_))
            | (Type::Timestamp, Self::Timestamp(_))
            | (Type::Duration, Self::Duration(_))
            | (Type::Map(_), Self::Map(_))
            | (Type::Type(_), Self::Type(_)) => true,
            (Type::List(of), Self::List(list)) => list.get(0).is_none_or(|first| first.fits(of)),
            (Type::Optional(of), Self::Optional(held)) => held.as_ref().is_none_or(|held| held.fits(of)),
            (Type::Struct(_) | Type::Opaque(_), value) => value.ty() == *ty,
            _ => false,
        }
    }

    /// What `size()` says; 1 of what has no size.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::String(text) => text.chars().count() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Optional(Some(value)) => value.size(),
            Self::Extension(value) => value.size(),
            _ => 1,
        }
    }

    /// Numbers of different types are compared by their amounts.
    pub(super) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::String(a), Self::String(b)) => **a == **b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::List(a), Self::List(b)) => a.equals(b),
            (Self::Map(a), Self::Map(b)) => a.equals(b),
            (Self::Struct(a), Self::Struct(b)) => {
                a.name == b.name
                    && a.fields.len() == b.fields.len()
                    && a.fields.iter().all(|(name, v)| b.fields.get(name).is_some_and(|w| v.equals(w)))
            }
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (None, None) => true,
                _ => false,
            },
            (Self::Type(a), Self::Type(b)) => a.runtime_name() == b.runtime_name(),
            (Self::Extension(a), Self::Extension(b)) => a.equals(b),
            _ => self.compare_numbers(other) == Some(Ordering::Equal),
        }
    }

    fn compare_numbers(&self, other: &Self) -> Option<Ordering> {
        let mixed = |whole: i128, float: f64| -> Option<Ordering> {
            if float.is_nan() {
                return None;
            }
            // Beyond these the amount of the float decides whatever the integer is.
            if float >= 1.8446744073709552e19 {
                return Some(Ordering::Less);
            }
            if float < -9.223372036854776e18 {
                return Some(Ordering::Greater);
            }
            let order = whole.cmp(&(float.trunc() as i128));
            Some(order.then(0.0.partial_cmp(&float.fract())?))
        };
        match (self.whole(), other.whole(), self, other) {
            (Some(a), Some(b), ..) => Some(a.cmp(&b)),
            (_, _, Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Some(a), _, _, Self::Double(b)) => mixed(a, *b),
            (_, Some(b), Self::Double(a), _) => mixed(b, *a).map(Ordering::reverse),
            _ => None,
        }
    }

    /// Whether it has no members.
    pub(super) fn is_scalar(&self) -> bool {
        use Value::{Bool, Bytes, Double, Int, Null, String, Uint};
        matches!(self, Null | Bool(_) | Int(_) | Uint(_) | Double(_) | String(_) | Bytes(_))
    }

    /// The amount of an integer.
    pub(super) fn whole(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(i128::from(*value)),
            Self::Uint(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    /// The order of two values; none for NaN.
    ///
    /// # Errors
    /// Where they have no order.
    pub(super) fn compare(&self, other: &Self) -> Result<Option<Ordering>, Error> {
        Ok(match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::String(a), Self::String(b)) => Some((**a).cmp(&**b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Int(_) | Self::Uint(_) | Self::Double(_), Self::Int(_) | Self::Uint(_) | Self::Double(_)) => {
                self.compare_numbers(other)
            }
            _ => return Err(Error::no_overload()),
        })
    }

    /// As JSON; none of what has no such form.
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => Json::from(*value),
            Self::Uint(value) => Json::from(*value),
            Self::Double(value) => plain_number(*value).map(Json::Number)?,
            Self::String(text) => Json::from(&**text),
            Self::Bytes(bytes) => {
                use base64::Engine;
                Json::from(base64::engine::general_purpose::STANDARD.encode(bytes))
            }
            Self::Timestamp(at) => Json::from(time::show_timestamp(*at)),
            Self::Duration(nanos) => Json::from(time::show_duration(*nanos)),
            Self::List(list) => list.iter().map(|v| v.to_json()).collect::<Option<Vec<_>>>()?.into(),
            Self::Map(map) => {
                Json::Object(map.iter().map(|(k, v)| Some((k.to_key()?, v.to_json()?))).collect::<Option<_>>()?)
            }
            Self::Struct(of) => {
                let fields = of.fields.iter().map(|(name, v)| Some((name.to_string(), v.to_json()?)));
                Json::Object(fields.collect::<Option<_>>()?)
            }
            Self::Optional(Some(value)) => value.to_json()?,
            Self::Optional(None) | Self::Type(_) | Self::Extension(_) | Self::Variables | Self::Wrong(_) => {
                return None;
            }
        })
    }

    fn to_key(&self) -> Option<String> {
        match self {
            Self::String(text) => Some(text.to_string()),
            Self::Bool(value) => Some(value.to_string()),
            value => value.whole().map(|whole| whole.to_string()),
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    /// As errors name keys and indices.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => f.write_str(text),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::Double(value) => write!(f, "{value}"),
            other => f.write_str(&other.ty().runtime_name()),
        }
    }
}
