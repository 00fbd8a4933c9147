//! What a JSON schema says of values, as far as expressions care: their types, and how large they get.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::types::Type;

/// Bytes of the largest request, which bounds what has no limit of its own.
pub const REQUEST_MAX: u64 = 3 << 20;
/// Words that fields may have as their names, written between double underscores.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
/// Schemas within each other that are followed.
const NESTED_MAX: usize = 128;

#[derive(Clone, Debug)]
pub struct Shape {
    pub(super) form: Form,
    /// The least bytes of its JSON.
    pub min_size: u64,
    /// The most characters, bytes, items or members it has; 0 where it has no such.
    pub(super) max: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Form {
    Dyn,
    Bool,
    Int,
    Double,
    String,
    Bytes,
    Timestamp { date: bool },
    Duration,
    List { item: Arc<Shape>, keyed: Keyed },
    Map(Arc<Shape>),
    Object(Arc<ObjectShape>),
}

/// By what items of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keyed {
    Index,
    /// Their value.
    Value,
    Fields(Vec<String>),
}

#[derive(Debug)]
pub struct ObjectShape {
    pub(super) name: Arc<str>,
    /// By their names in expressions.
    pub(super) fields: BTreeMap<String, FieldShape>,
}

#[derive(Debug)]
pub(super) struct FieldShape {
    /// In JSON.
    pub name: String,
    pub shape: Arc<Shape>,
}

impl ObjectShape {
    /// The field that an expression names. Words of the language are known without their underscores too.
    pub(super) fn field(&self, name: &str) -> Option<&FieldShape> {
        let word = || RESERVED.contains(&name).then(|| self.fields.get(&format!("__{name}__"))).flatten();
        self.fields.get(name).or_else(word)
    }
}

impl Shape {
    const fn new(form: Form, min_size: u64, max: u64) -> Self {
        Self { form, min_size, max }
    }

    /// Of what no schema describes.
    pub fn unknown() -> Self {
        DYN.clone()
    }

    /// A string of any length.
    pub(super) const STRING: Self = Self::new(Form::String, 2, REQUEST_MAX - 2);

    /// An object with these fields, for types that no schema describes.
    pub(super) fn object(name: &str, fields: Vec<(&str, Arc<Self>)>) -> Self {
        let fields = fields.into_iter().map(|(n, shape)| (n.to_owned(), FieldShape { name: n.to_owned(), shape }));
        Self::new(Form::Object(Arc::new(ObjectShape { name: name.into(), fields: fields.collect() })), 2, 0)
    }

    pub(super) fn simple(form: Form) -> Self {
        Self::new(form, 1, 0)
    }

    pub(super) fn list_of(item: Self) -> Self {
        let max = (REQUEST_MAX - 2) / (item.min_size + 1);
        Self::new(Form::List { item: Arc::new(item), keyed: Keyed::Index }, 2, max)
    }

    pub(super) fn map_of(value: Self) -> Self {
        let max = (REQUEST_MAX - 2) / (value.min_size + 6);
        Self::new(Form::Map(Arc::new(value)), 2, max)
    }

    /// The shape of what a structural schema describes; none if expressions do not see it. Types of objects get names
    /// that begin with `name`. `root` is set for whole resources, whose name and kind are always known.
    pub fn of_schema(schema: &Json, name: &str, root: bool) -> Option<Self> {
        Self::within(schema, name, root, 0)
    }

    fn within(schema: &Json, name: &str, root: bool, depth: usize) -> Option<Self> {
        if depth > NESTED_MAX {
            return None;
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return Some(Self::new(Form::Dyn, 1, schema["maxLength"].as_u64().map_or(REQUEST_MAX - 2, |max| max * 4)));
        }
        let nested = |schema: &Json, suffix: &str| {
            let embedded = schema["x-kubernetes-embedded-resource"] == true;
            Self::within(schema, &format!("{name}.{suffix}"), embedded, depth + 1)
        };
        match schema["type"].as_str().or_else(|| root.then_some("object"))? {
            "array" => {
                let item = nested(&schema["items"], "@idx")?;
                let max = schema["maxItems"].as_u64().unwrap_or((REQUEST_MAX - 2) / (item.min_size + 1));
                Some(Self::new(Form::List { item: Arc::new(item), keyed: keyed(schema) }, 2, max))
            }
            "object" if schema["additionalProperties"].is_object() && !root => {
                let value = nested(&schema["additionalProperties"], "@elem")?;
                let max = schema["maxProperties"].as_u64().unwrap_or((REQUEST_MAX - 2) / (value.min_size + 6));
                Some(Self::new(Form::Map(Arc::new(value)), 2, max))
            }
            "object" => Some(Self::of_object(schema, name, root, &nested)),
            "string" => Some(Self::of_string(schema)),
            "boolean" => Some(Self::new(Form::Bool, 4, 0)),
            "number" => Some(Self::new(Form::Double, 1, 0)),
            "integer" => Some(Self::new(Form::Int, 1, 0)),
            _ => None,
        }
    }

    fn of_object(schema: &Json, name: &str, root: bool, nested: &dyn Fn(&Json, &str) -> Option<Self>) -> Self {
        let required = |field: &str| schema["required"].as_array().is_some_and(|r| r.iter().any(|n| n == field));
        let (mut fields, mut min_size) = (BTreeMap::new(), 2);
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            if root && matches!(field.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let Some(escaped) = escape(field) else { continue };
            let Some(shape) = nested(schema, &escaped) else { continue };
            if required(field) && schema.get("default").is_none() {
                min_size += field.len() as u64 + shape.min_size + 4;
            }
            fields.insert(escaped, FieldShape { name: field.clone(), shape: Arc::new(shape) });
        }
        if root {
            let own = Self::object(&format!("{name}.metadata"), Vec::new());
            let metadata = nested(&schema["properties"]["metadata"], "metadata").unwrap_or(own);
            let metadata = metadata.with_names(&format!("{name}.metadata"));
            for (field, shape) in [("apiVersion", Self::STRING), ("kind", Self::STRING), ("metadata", metadata)] {
                fields.insert(field.into(), FieldShape { name: field.into(), shape: Arc::new(shape) });
            }
        }
        Self::new(Form::Object(Arc::new(ObjectShape { name: name.into(), fields })), min_size, 0)
    }

    /// The metadata of a resource: what its schema says, and always its name.
    fn with_names(self, name: &str) -> Self {
        let mut fields = BTreeMap::new();
        if let Form::Object(object) = &self.form {
            let known = object.fields.iter();
            fields.extend(known.map(|(k, f)| (k.clone(), FieldShape { name: f.name.clone(), shape: f.shape.clone() })));
        }
        for field in ["name", "generateName"] {
            let string = || FieldShape { name: field.into(), shape: Arc::new(Self::STRING) };
            fields.entry(field.into()).or_insert_with(string);
        }
        Self::new(Form::Object(Arc::new(ObjectShape { name: name.into(), fields })), self.min_size, 0)
    }

    fn of_string(schema: &Json) -> Self {
        let most = schema["maxLength"].as_u64();
        match schema["format"].as_str() {
            Some("byte") => Self::new(Form::Bytes, 2, most.unwrap_or(REQUEST_MAX - 2)),
            Some("duration") => Self::new(Form::Duration, 3, 32),
            Some("date") => Self::new(Form::Timestamp { date: true }, 12, 12),
            Some("date-time") => Self::new(Form::Timestamp { date: false }, 21, 32),
            _ => {
                let words = schema["enum"].as_array().filter(|words| !words.is_empty());
                let longest =
                    || words.map(|w| w.iter().filter_map(Json::as_str).map(str::len).max().unwrap_or(0) as u64);
                // A character takes up to four bytes.
                let max = most.map(|most| most.saturating_mul(4)).or_else(longest);
                Self::new(Form::String, 2, max.unwrap_or(REQUEST_MAX - 2))
            }
        }
    }

    /// The type of such values.
    pub fn ty(&self) -> Type {
        match &self.form {
            Form::Dyn => Type::Dyn,
            Form::Bool => Type::Bool,
            Form::Int => Type::Int,
            Form::Double => Type::Double,
            Form::String => Type::String,
            Form::Bytes => Type::Bytes,
            Form::Timestamp { .. } => Type::Timestamp,
            Form::Duration => Type::Duration,
            Form::List { item, .. } => Type::list(item.ty()),
            Form::Map(value) => Type::map(Type::String, value.ty()),
            Form::Object(object) => Type::Struct(object.name.clone()),
        }
    }

    /// The shape of the field of an object or the parts of a list or map.
    pub(super) fn part(&self, step: &str) -> Option<&Self> {
        match (&self.form, step) {
            (Form::List { item, .. }, "@items") => Some(item),
            (Form::Map(value), "@values") => Some(value),
            (Form::Map(_), "@keys") => Some(&KEY),
            (Form::Object(object), field) => object.field(field).map(|f| &*f.shape),
            _ => None,
        }
    }

    /// How many values of the kind fit into a request.
    pub fn most_in_request(&self) -> u64 {
        REQUEST_MAX / (self.min_size + 1)
    }

    /// The shape of items or of values of members.
    pub fn element(&self) -> Option<&Arc<Self>> {
        match &self.form {
            Form::List { item, .. } => Some(item),
            Form::Map(value) => Some(value),
            _ => None,
        }
    }

    /// The shape of the field with this name in JSON.
    pub fn property(&self, name: &str) -> Option<&Arc<Self>> {
        match &self.form {
            Form::Object(object) => object.fields.get(&escape(name)?).map(|f| &f.shape),
            _ => None,
        }
    }

    /// Calls `tell` with the shapes of all objects in this one.
    pub(super) fn each_object(&self, tell: &mut dyn FnMut(&Arc<ObjectShape>)) {
        match &self.form {
            Form::List { item: inner, .. } | Form::Map(inner) => inner.each_object(tell),
            Form::Object(object) => {
                tell(object);
                object.fields.values().for_each(|f| f.shape.each_object(tell));
            }
            _ => {}
        }
    }
}

/// What no schema describes.
pub(super) static DYN: Shape = Shape::new(Form::Dyn, 0, 0);

/// Keys of maps have no known limit of their own.
static KEY: Shape = Shape::new(Form::String, 2, 0);

fn keyed(schema: &Json) -> Keyed {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Keyed::Value,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            Keyed::Fields(keys.filter_map(Json::as_str).map(str::to_owned).collect())
        }
        _ => Keyed::Index,
    }
}

/// A property's name as expressions write it; none for what they cannot.
pub fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut characters = name.chars();
    let first = characters.next()?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if !(first.is_ascii_alphabetic() || matches!(first, '_' | '.' | '-' | '/')) || !characters.all(fits) {
        return None;
    }
    let name = name.replace("__", "__underscores__");
    Some(name.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_come_from_limits_or_from_what_fits_into_a_request() {
        let max = |schema: Json| Shape::of_schema(&schema, "T", false).map(|s| (s.min_size, s.max));
        for (schema, expected) in [
            (json!({"type": "string"}), Some((2, REQUEST_MAX - 2))),
            (json!({"type": "string", "maxLength": 10}), Some((2, 40))),
            (json!({"type": "string", "enum": ["a", "abc"]}), Some((2, 3))),
            (json!({"type": "string", "format": "date-time"}), Some((21, 32))),
            (json!({"type": "string", "format": "byte", "maxLength": 10}), Some((2, 10))),
            (json!({"type": "array", "items": {"type": "integer"}}), Some((2, (REQUEST_MAX - 2) / 2))),
            (json!({"type": "array", "items": {"type": "integer"}, "maxItems": 7}), Some((2, 7))),
            (json!({"type": "object", "additionalProperties": {"type": "string"}}), Some((2, (REQUEST_MAX - 2) / 8))),
            (json!({"type": "object", "required": ["abc"], "properties": {"abc": {"type": "boolean"}}}), Some((13, 0))),
            (json!({"x-kubernetes-int-or-string": true}), Some((1, REQUEST_MAX - 2))),
            (json!({"type": "array"}), None),
            (json!({"x-kubernetes-preserve-unknown-fields": true}), None),
        ] {
            assert_eq!(max(schema.clone()), expected, "{schema}");
        }
    }

    #[test]
    fn names_of_fields_are_escaped() {
        for (name, escaped) in [
            ("a", Some("a")),
            ("namespace", Some("__namespace__")),
            ("a-b.c/d", Some("a__dash__b__dot__c__slash__d")),
            ("a__b", Some("a__underscores__b")),
            ("1a", None),
            ("a$", None),
            ("", None),
        ] {
            assert_eq!(escape(name).as_deref(), escaped, "{name}");
        }
    }
}
