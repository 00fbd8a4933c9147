//! What a function is given when it is called.

use std::sync::Arc;

use super::library::authorizer::{Answer, Question};
use super::list::List;
use super::map::Map;
use super::value::{Error, Evaluated, Text, Value};

/// Bytes that one evaluation may make. What its cost allows takes far less where it is not built to take memory.
const MEMORY_MAX: usize = 64 << 20;

/// Answers what expressions ask of the authorizer.
pub type Decide = dyn Fn(&Question, &str) -> Answer + Send + Sync;

/// What limits an evaluation, and what it has used.
#[derive(Debug)]
pub(super) struct Meter {
    pub cost: u64,
    pub limit: u64,
    memory: usize,
}

impl Meter {
    pub fn new(limit: u64) -> Self {
        Self { cost: 0, limit, memory: 0 }
    }

    pub fn charge(&mut self, cost: u64) -> Result<(), Error> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(Error::TooCostly) } else { Ok(()) }
    }

    /// Says that this many bytes are about to be made.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), Error> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > MEMORY_MAX { Err(Error::TooCostly) } else { Ok(()) }
    }
}

/// A call of a function: its arguments, which fit its signature, the one before the dot first.
pub(super) struct Call<'a, 'c> {
    pub args: Vec<Value<'a>>,
    pub decide: Option<&'c Decide>,
    pub meter: &'c mut Meter,
    /// The compiled pattern, where it is a literal.
    pub pattern: Option<&'c regex::Regex>,
}

impl<'a> Call<'a, '_> {
    pub fn arg(&self, index: usize) -> &Value<'a> {
        self.args.get(index).unwrap_or(&Value::Null)
    }

    pub fn take(&mut self, index: usize) -> Value<'a> {
        self.args.get_mut(index).map_or(Value::Null, |arg| std::mem::replace(arg, Value::Null))
    }

    pub fn text(&self, index: usize) -> Result<Text<'a>, Error> {
        match self.arg(index) {
            Value::String(text) => Ok(text.clone()),
            _ => Err(Error::no_overload()),
        }
    }

    pub fn int(&self, index: usize) -> Result<i64, Error> {
        match self.arg(index) {
            Value::Int(value) => Ok(*value),
            _ => Err(Error::no_overload()),
        }
    }

    pub fn list(&self, index: usize) -> Result<List<'a>, Error> {
        match self.arg(index) {
            Value::List(list) => Ok(list.clone()),
            _ => Err(Error::no_overload()),
        }
    }

    pub fn map(&self, index: usize) -> Result<Map<'a>, Error> {
        match self.arg(index) {
            Value::Map(map) => Ok(map.clone()),
            _ => Err(Error::no_overload()),
        }
    }

    /// A list of so many items.
    pub fn new_list(&mut self, items: Vec<Value<'a>>) -> Evaluated<'a> {
        self.meter.reserve(items.len() * size_of::<Value<'_>>())?;
        Ok(items.into())
    }

    pub fn new_text(&mut self, text: String) -> Evaluated<'a> {
        self.meter.reserve(text.len())?;
        Ok(Value::String(Text::Shared(Arc::from(text))))
    }
}
