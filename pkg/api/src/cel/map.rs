//! Maps of values.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map as Members, Value as Json};

use super::shape::{ObjectShape, Shape};
use super::value::{Text, Value};

#[derive(Clone, Debug)]
pub enum Map<'a> {
    Owned(Arc<BTreeMap<Key, (Value<'a>, Value<'a>)>>),
    Json {
        members: &'a Members<String, Json>,
        value: &'a Shape,
    },
    /// Only fields that its schema names are seen.
    Object {
        members: &'a Members<String, Json>,
        shape: &'a Arc<ObjectShape>,
    },
}

/// By what members are told apart: numbers by their amount, whatever their type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Number(i128),
    Text(Arc<str>),
}

impl Key {
    pub(super) fn of(value: &Value<'_>) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::String(text) => Some(Self::Text((**text).into())),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 1e19 => Some(Self::Number(*value as i128)),
            value => value.whole().map(Self::Number),
        }
    }
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Owned(members) => members.len(),
            Self::Json { members, .. } => members.len(),
            Self::Object { members, shape } => shape.fields.values().filter(|f| members.contains_key(&f.name)).count(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, key: &Value<'_>) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Owned(members), key) => members.get(&Key::of(key)?).map(|(_, value)| value.clone()),
            (_, Value::String(name)) => self.field(name),
            _ => None,
        }
    }

    /// The member of this name.
    pub(super) fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Owned(members) => members.get(&Key::Text(name.into())).map(|(_, value)| value.clone()),
            Self::Json { members, value } => members.get(name).map(|v| Value::shaped(v, value)),
            Self::Object { members, shape } => {
                let field = shape.field(name)?;
                members.get(&field.name).map(|v| Value::shaped(v, &field.shape))
            }
        }
    }

    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Owned(members) => members.values().map(|(key, _)| key.clone()).collect(),
            Self::Json { members, .. } => members.keys().map(|key| Value::String(Text::Borrowed(key))).collect(),
            Self::Object { members, shape } => {
                let known = shape.fields.iter().filter(|(_, f)| members.contains_key(&f.name));
                known.map(|(name, _)| Value::String(Text::Borrowed(name))).collect()
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> {
        let keys = self.keys().into_iter();
        keys.filter_map(|key| self.get(&key).map(|value| (key, value)))
    }

    pub(super) fn equals(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(key, value)| other.get(&key).is_some_and(|o| value.equals(&o)))
    }

    /// One member more; false if there is one of the key, or the value cannot be a key.
    pub(super) fn insert(&mut self, key: Value<'a>, value: Value<'a>) -> bool {
        let Some(at) = Key::of(&key) else { return false };
        if !matches!(self, Self::Owned(_)) {
            let members = self.iter().filter_map(|(k, v)| Some((Key::of(&k)?, (k, v)))).collect();
            *self = Self::Owned(Arc::new(members));
        }
        let Self::Owned(members) = self else { return false };
        Arc::make_mut(members).insert(at, (key, value)).is_none()
    }
}

impl Default for Map<'_> {
    fn default() -> Self {
        Self::Owned(Arc::default())
    }
}
