//! A place in an object: the value there and how it got there.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::Errors;
use crate::field::{FieldError, FieldPath};
use crate::quantity::Quantity;

static NULL: Value = Value::Null;

/// A value and its path. Paths are made text only when there is an error to report.
///
/// The value lives longer (`'v`) than the places on the way to it (`'p`), so that text may outlive a loop over items.
#[derive(Clone, Copy)]
pub(super) struct At<'v, 'p> {
    pub value: &'v Value,
    parent: Option<&'p At<'p, 'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Member(&'p str),
    Index(usize),
    Key(&'p str),
}

impl<'v, 'p> At<'v, 'p> {
    pub fn root(value: &'v Value) -> Self {
        Self { value, parent: None, step: Step::Root }
    }

    /// The member that the dotted path leads to; null where there is none.
    pub fn get<'q>(&'q self, path: &'q str) -> At<'v, 'q> {
        let value = path.split('.').fold(self.value, |value, name| value.get(name).unwrap_or(&NULL));
        At { value, parent: Some(self), step: Step::Member(path) }
    }

    /// The same value, its last step as upstream shows it.
    pub fn renamed<'q>(&self, shown: &'q str) -> At<'v, 'q>
    where
        'p: 'q,
    {
        At { step: Step::Member(shown), ..*self }
    }

    /// The same value and last step, below another place.
    pub fn below<'q>(&self, parent: &'q At<'q, 'q>) -> At<'v, 'q>
    where
        'p: 'q,
    {
        At { parent: Some(parent), ..*self }
    }

    /// Another member of what this is a member of.
    pub fn sibling<'q>(&self, name: &'q str) -> Option<At<'p, 'q>>
    where
        'p: 'q,
    {
        self.parent.map(|parent| parent.get(name))
    }

    /// A value of this map.
    pub fn key<'q>(&'q self, key: &'q str) -> At<'v, 'q> {
        At { value: self.value.get(key).unwrap_or(&NULL), parent: Some(self), step: Step::Key(key) }
    }

    pub fn index<'q>(&'q self, index: usize) -> At<'v, 'q> {
        At { value: self.value.get(index).unwrap_or(&NULL), parent: Some(self), step: Step::Index(index) }
    }

    pub fn items<'q>(&'q self) -> impl Iterator<Item = At<'v, 'q>> {
        let list = self.list().iter().enumerate();
        list.map(move |(index, value)| At { value, parent: Some(self), step: Step::Index(index) })
    }

    pub fn entries<'q>(&'q self) -> impl Iterator<Item = (&'v str, At<'v, 'q>)>
    where
        'v: 'q,
    {
        let members = self.value.as_object().into_iter().flatten();
        members.map(move |(key, value)| (key.as_str(), At { value, parent: Some(self), step: Step::Key(key) }))
    }

    pub fn list(&self) -> &'v [Value] {
        self.value.as_array().map_or(&[], Vec::as_slice)
    }

    pub fn members(&self) -> Option<&'v Map<String, Value>> {
        self.value.as_object()
    }

    pub fn text(&self) -> &'v str {
        self.value.as_str().unwrap_or_default()
    }

    /// Text of a member.
    pub fn str(&self, path: &str) -> &'v str {
        path.split('.').try_fold(self.value, |v, name| v.get(name)).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    pub fn is_true(&self) -> bool {
        self.value == &Value::Bool(true)
    }

    /// Whether it is there at all, even if empty.
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Missing, or what a missing value means.
    pub fn is_empty(&self) -> bool {
        is_empty(self.value)
    }

    pub fn quantity(&self) -> Option<Quantity> {
        Quantity::parse(self.value.as_str()?).ok()
    }

    pub fn path(&self) -> FieldPath {
        let mut text = String::new();
        self.write(&mut text);
        FieldPath::new(text)
    }

    fn write(&self, text: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(text);
        }
        match self.step {
            Step::Root => {}
            Step::Member(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            // Writing to a string cannot fail.
            Step::Index(index) => _ = write!(text, "[{index}]"),
            Step::Key(key) => _ = write!(text, "[{key}]"),
        }
    }

    pub fn invalid(&self, errors: &mut Errors, detail: impl Into<String>) {
        errors.push(FieldError::invalid(&self.path(), self.value.clone(), detail));
    }

    /// An error about a value that is not the one found here: a map's key, or an empty text.
    pub fn invalid_value(&self, errors: &mut Errors, value: impl Into<Value>, detail: impl Into<String>) {
        errors.push(FieldError::invalid(&self.path(), value, detail));
    }

    pub fn required(&self, errors: &mut Errors, detail: &str) {
        errors.push(FieldError::required(&self.path(), detail));
    }

    pub fn forbidden(&self, errors: &mut Errors, detail: impl Into<String>) {
        errors.push(FieldError::forbidden(&self.path(), detail));
    }

    pub fn duplicate(&self, errors: &mut Errors) {
        errors.push(FieldError::duplicate(&self.path(), self.value.clone()));
    }

    pub fn not_found(&self, errors: &mut Errors) {
        errors.push(FieldError::not_found(&self.path(), self.value.clone()));
    }

    pub fn not_supported(&self, errors: &mut Errors, supported: &[&str]) {
        let value = if self.is_set() { self.value.clone() } else { "".into() };
        errors.push(FieldError::not_supported(&self.path(), value, supported));
    }

    /// An error about a name, not the value that it has.
    pub fn check_supported(&self, name: &str, supported: &[&str], errors: &mut Errors) {
        if !supported.contains(&name) {
            errors.push(FieldError::not_supported(&self.path(), name, supported));
        }
    }

    pub fn too_long(&self, errors: &mut Errors, max: usize) {
        errors.push(FieldError::too_long(&self.path(), max));
    }

    /// An error about an object or list that is not shown.
    pub fn invalid_part(&self, errors: &mut Errors, detail: impl Into<String>) {
        errors.push(FieldError::invalid_part(&self.path(), detail));
    }

    /// Reports more items or members than may be; tells whether their number is fine.
    pub fn at_most(&self, errors: &mut Errors, max: usize) -> bool {
        let count = self.members().map_or(self.list().len(), Map::len);
        if count > max {
            errors.push(FieldError::too_many(&self.path(), count, max));
        }
        count <= max
    }

    /// Reports text of more bytes than may be; tells whether its length is fine.
    pub fn no_longer(&self, errors: &mut Errors, max: usize) -> bool {
        if self.text().len() > max {
            self.too_long(errors, max);
        }
        self.text().len() <= max
    }

    /// Reports a value that was there before in its list.
    pub fn unique<'s>(&self, seen: &mut std::collections::HashSet<&'s str>, errors: &mut Errors)
    where
        'v: 's,
    {
        if !seen.insert(self.text()) {
            self.duplicate(errors);
        }
    }

    /// A member, or what stands for it in objects that leave it out.
    pub fn number(&self, path: &str) -> i64 {
        self.get(path).int().unwrap_or(0)
    }

    /// A number that must be there and be positive.
    pub fn need_positive(&self, errors: &mut Errors, detail: &str) {
        if self.int().unwrap_or(0) <= 0 {
            self.invalid_value(errors, self.int().unwrap_or(0), detail);
        }
    }

    /// Reports a missing or empty value; tells whether it is there.
    pub fn need(&self, errors: &mut Errors) -> bool {
        if self.is_empty() {
            self.required(errors, "");
        }
        !self.is_empty()
    }

    /// Reports every message as an invalid value.
    pub fn check(&self, errors: &mut Errors, messages: Vec<String>) {
        for message in messages {
            self.invalid(errors, message);
        }
    }

    /// An integer that is set may not be negative.
    pub fn not_negative(&self, errors: &mut Errors) {
        if self.int().is_some_and(|n| n < 0) {
            self.invalid(errors, "must be greater than or equal to 0");
        }
    }

    pub fn positive(&self, errors: &mut Errors) {
        if self.int().is_some_and(|n| n <= 0) {
            self.invalid(errors, "must be greater than zero");
        }
    }

    pub fn in_range(&self, errors: &mut Errors, low: i64, high: i64) {
        if self.int().is_some_and(|n| n < low || n > high) {
            self.invalid(errors, format!("must be between {low} and {high}, inclusive"));
        }
    }

    /// A value that is set must be one of the list.
    pub fn one_of(&self, errors: &mut Errors, supported: &[&str]) {
        if !self.is_empty() && !supported.contains(&self.text()) {
            self.not_supported(errors, supported);
        }
    }

    /// Text that is there, even if empty, must be one of the list.
    pub fn listed(&self, errors: &mut Errors, supported: &[&str]) {
        if self.is_set() {
            self.exactly_one_of(errors, supported);
        }
    }

    /// A value out of a list, of which none is as wrong as another one.
    pub fn exactly_one_of(&self, errors: &mut Errors, supported: &[&str]) {
        if !supported.contains(&self.text()) {
            self.not_supported(errors, supported);
        }
    }

    /// The member at `path` under the name that upstream shows for it.
    pub fn told_as<'q>(&'q self, path: &'q str, name: &'q str) -> At<'v, 'q> {
        self.get(path).renamed(name)
    }

    /// A required value out of a list.
    pub fn need_one_of(&self, errors: &mut Errors, supported: &[&str]) {
        if self.need(errors) {
            self.one_of(errors, supported);
        }
    }

    /// The value may not differ from the old one.
    pub fn immutable(&self, old: &At, errors: &mut Errors) {
        if !same(self.value, old.value) {
            self.invalid(errors, "field is immutable");
        }
    }

    /// Those of the members that are set.
    pub fn set_members(&self, names: &[&'static str]) -> Vec<&'static str> {
        names.iter().copied().filter(|name| self.value.get(name).is_some_and(|v| !v.is_null())).collect()
    }
}

pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// Equality in which a missing member equals an empty list or object. Empty text, zero and false are values: where they
/// mean nothing, the normal form of objects does not have them.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(key, value)| same(value, y.get(key).unwrap_or(&NULL)))
                && y.iter().all(|(key, value)| x.contains_key(key) || hollow(value))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b)),
        (Value::Null, other) | (other, Value::Null) => hollow(other),
        _ => a == b,
    }
}

/// Empty through and through: `{"resources": {}}` says no more than `{}`.
fn hollow(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.values().all(hollow),
        Value::Array(items) => items.is_empty(),
        other => other.is_null(),
    }
}
