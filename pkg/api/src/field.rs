//! Errors about single fields of an object.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// Path of a field, such as `spec.containers[0].name`. Longer paths share what they have in common: a step costs the
/// same however long the path is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(Option<Arc<Step>>);

#[derive(Debug, PartialEq, Eq)]
struct Step {
    before: FieldPath,
    kind: StepKind,
}

#[derive(Debug, PartialEq, Eq)]
enum StepKind {
    Member(String),
    Index(usize),
    Key(String),
}

impl FieldPath {
    pub fn new(name: impl Into<String>) -> Self {
        Self::default().then(StepKind::Member(name.into()))
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        self.then(StepKind::Member(name.into()))
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.then(StepKind::Index(index))
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.then(StepKind::Key(key.into()))
    }

    /// This path below another.
    #[must_use]
    pub fn after(&self, other: &Self) -> Self {
        let Some(step) = &self.0 else { return other.clone() };
        let before = step.before.after(other);
        match &step.kind {
            StepKind::Member(name) => before.child(name),
            StepKind::Index(index) => before.index(*index),
            StepKind::Key(key) => before.key(key),
        }
    }

    fn then(&self, kind: StepKind) -> Self {
        Self(Some(Arc::new(Step { before: self.clone(), kind })))
    }
}

/// Names may be as long as the document, and each error repeats them.
const NAME_SHOWN: usize = 512;

fn shown(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(NAME_SHOWN) {
        None => Cow::Borrowed(name),
        Some((end, _)) => Cow::Owned(format!("{}...", &name[..end])),
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(step) = &self.0 else { return Ok(()) };
        step.before.fmt(f)?;
        match &step.kind {
            StepKind::Member(name) if step.before.0.is_none() => f.write_str(&shown(name)),
            StepKind::Member(name) => write!(f, ".{}", shown(name)),
            StepKind::Index(index) => write!(f, "[{index}]"),
            StepKind::Key(key) => write!(f, "[{}]", shown(key)),
        }
    }
}

/// What is wrong with a field; decides the cause's reason and the message's first words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    /// Of an object or list, which is not shown.
    InvalidPart,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TypeInvalid,
    Internal,
}

impl FieldErrorKind {
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid | Self::InvalidPart => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::InvalidPart | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    const fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::InvalidPart | Self::Forbidden | Self::TooLong | Self::Internal)
    }
}

/// One problem with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub kind: FieldErrorKind,
    pub field: String,
    pub value: Value,
    pub detail: String,
    /// It was as wrong before: to be told, and no reason to refuse a change.
    pub tolerated: bool,
}

impl FieldError {
    fn new(kind: FieldErrorKind, path: &FieldPath, value: Value, detail: impl Into<String>) -> Self {
        Self { kind, field: path.to_string(), value, detail: detail.into(), tolerated: false }
    }

    pub fn required(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, Value::Null, detail)
    }

    pub fn invalid(path: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, path, value.into(), detail)
    }

    /// What is wrong with an object or list as a whole.
    pub fn invalid_part(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::InvalidPart, path, Value::Null, detail)
    }

    /// What could not be checked.
    pub fn internal(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Internal, path, Value::Null, detail)
    }

    /// A value of another type than the field's.
    pub fn type_invalid(path: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::TypeInvalid, path, value.into(), detail)
    }

    pub fn forbidden(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, Value::Null, detail)
    }

    pub fn duplicate(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, value.into(), "")
    }

    pub fn not_found(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, path, value.into(), "")
    }

    pub fn not_supported(path: &FieldPath, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| Value::from(*s).to_string()).collect();
        let detail = format!("supported values: {}", list.join(", "));
        Self::new(FieldErrorKind::NotSupported, path, value.into(), detail)
    }

    pub fn too_long(path: &FieldPath, max: usize) -> Self {
        Self::new(FieldErrorKind::TooLong, path, Value::Null, format!("may not be more than {max} bytes"))
    }

    pub fn too_many(path: &FieldPath, actual: usize, max: usize) -> Self {
        Self::new(FieldErrorKind::TooMany, path, actual.into(), format!("must have at most {max} items"))
    }

    /// The message without the field.
    pub fn body(&self) -> String {
        let mut body = self.kind.text().to_owned();
        if self.kind.shows_value() {
            body.push_str(": ");
            body.push_str(&self.value.to_string());
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_upstreams_form() {
        let path = FieldPath::new("spec").child("containers").index(0).child("name");
        assert_eq!(FieldError::required(&path, "").to_string(), "spec.containers[0].name: Required value");
        assert_eq!(
            FieldError::invalid(&path, "A b", "no spaces").to_string(),
            "spec.containers[0].name: Invalid value: \"A b\": no spaces"
        );
        assert_eq!(
            FieldError::not_supported(&FieldPath::new("type").key("x"), "y", &["a", "b"]).to_string(),
            "type[x]: Unsupported value: \"y\": supported values: \"a\", \"b\""
        );
    }

    #[test]
    fn long_names_are_cut() {
        let path = FieldPath::new("a").key(&"ü".repeat(600)).child(&"b".repeat(512)).to_string();
        assert_eq!(path, format!("a[{}...].{}", "ü".repeat(512), "b".repeat(512)));
    }
}
