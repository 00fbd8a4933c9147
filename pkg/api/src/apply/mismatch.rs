//! Values of another kind than their place in an applied configuration takes.

use serde_json::Value;

use super::place::Place;
use crate::schema::{Scalar, Shape};
use crate::shown;
use crate::structural::{JsonType, Schema};

/// What a place takes.
enum Taken {
    Map,
    List,
    Text,
    Number,
    Boolean,
    AnyScalar,
    Anything,
}

impl Place<'_> {
    /// Why a value cannot be here, in upstream's words.
    pub fn mismatch(self, value: &Value) -> Option<String> {
        let (fits, expected) = match self.taken() {
            Taken::Map => (value.is_object(), "map"),
            Taken::List => (value.is_array(), "list"),
            Taken::Text if !(value.is_string() || value.is_null()) => {
                let found = shown::source(value);
                return Some(format!("expected string, got &value.valueUnstructured{{Value:{found}}}"));
            }
            Taken::Number if !(value.is_number() || value.is_null()) => {
                return Some(format!("expected numeric (int or float), got {}", shown::type_name(value)));
            }
            Taken::Boolean => (value.is_boolean(), "boolean"),
            Taken::AnyScalar => (!value.is_object() && !value.is_array(), "any scalar"),
            Taken::Text | Taken::Number | Taken::Anything => return None,
        };
        (!fits && !value.is_null()).then(|| format!("expected {expected}, got &{{{}}}", shown::plain(value)))
    }

    fn taken(self) -> Taken {
        match self {
            Self::Typed { shape, .. } => match shape {
                Shape::Struct(_) | Shape::Map(_) => Taken::Map,
                Shape::List(_) | Shape::Strings => Taken::List,
                Shape::Scalar(Scalar::Bool) => Taken::Boolean,
                Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double) => Taken::Number,
                Shape::Scalar(Scalar::Quantity | Scalar::IntOrString | Scalar::Time | Scalar::MicroTime) => {
                    Taken::AnyScalar
                }
                Shape::Scalar(_) => Taken::Text,
                Shape::Any => Taken::Anything,
            },
            Self::Root(_) => Taken::Map,
            Self::Structural(schema) => of_schema(schema),
            Self::Deduced => Taken::Anything,
        }
    }
}

fn of_schema(schema: &Schema) -> Taken {
    match schema.json_type {
        _ if schema.int_or_string => Taken::Anything,
        None => Taken::Anything,
        Some(JsonType::Object) => Taken::Map,
        Some(JsonType::Array) => Taken::List,
        Some(JsonType::Integer | JsonType::Number) => Taken::Number,
        Some(JsonType::Boolean) => Taken::Boolean,
        Some(JsonType::String) if matches!(schema.checks.format.as_str(), "" | "byte") => Taken::Text,
        Some(JsonType::String) => Taken::AnyScalar,
    }
}
