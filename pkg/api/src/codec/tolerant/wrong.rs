//! What a value of the wrong type is answered with.

use std::fmt;

use serde_json::Value;

use crate::schema::{Scalar, Shape};

/// A value of another type than its place has, told as Go does.
#[derive(Debug)]
pub struct Wrong {
    found: String,
    wanted: String,
    /// The type of the innermost object on the way.
    owner: Option<&'static str>,
    /// Names of members on the way, innermost first; keys of maps and places in lists are not told.
    fields: Vec<String>,
}

impl Wrong {
    pub fn kind(wanted: Shape, value: &Value) -> Self {
        let found = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) => match wanted {
                Shape::Scalar(Scalar::Int32 | Scalar::Int64) => format!("number {number}"),
                _ => "number".to_owned(),
            },
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        Self { found, wanted: go_type(wanted), owner: None, fields: Vec::new() }
    }

    /// What a value says that reads itself.
    pub fn text(text: String) -> Self {
        Self { found: text, wanted: String::new(), owner: None, fields: Vec::new() }
    }

    pub fn within(mut self, owner: Shape, field: &str) -> Self {
        if let (None, Shape::Struct(ty)) = (self.owner, owner) {
            self.owner = Some(last(ty.name));
        }
        self.fields.push(field.to_owned());
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wanted.is_empty() {
            return f.write_str(&self.found);
        }
        let fields: Vec<&str> = self.fields.iter().rev().map(String::as_str).collect();
        write!(f, "json: cannot unmarshal {} into Go ", self.found)?;
        match self.owner {
            Some(owner) => write!(f, "struct field {owner}.{} of type {}", fields.join("."), self.wanted),
            None => write!(f, "value of type {}", self.wanted),
        }
    }
}

/// What is after the last dot.
fn last(name: &'static str) -> &'static str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

/// The name that upstream's program has for the type.
fn go_type(shape: Shape) -> String {
    match shape {
        Shape::Scalar(Scalar::Bool) => "bool".into(),
        Shape::Scalar(Scalar::Int32) => "int32".into(),
        Shape::Scalar(Scalar::Int64) => "int64".into(),
        Shape::Scalar(Scalar::Double) => "float64".into(),
        Shape::Scalar(Scalar::Bytes) => "[]uint8".into(),
        Shape::Scalar(Scalar::Quantity) => "resource.Quantity".into(),
        Shape::Scalar(_) => "string".into(),
        Shape::Struct(ty) => {
            let package = ty.name.rsplit_once('.').map_or("", |(package, _)| package);
            format!("{}.{}", package.rsplit('.').next().unwrap_or_default(), last(ty.name))
        }
        Shape::List(_) => format!("[]{}", go_type(shape.item())),
        Shape::Map(field) => format!("map[string]{}", go_type(field.element())),
        Shape::Strings => "[]string".into(),
        Shape::Any => "interface {}".into(),
    }
}
