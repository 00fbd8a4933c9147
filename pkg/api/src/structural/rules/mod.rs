//! CEL rules of custom resources (`x-kubernetes-validations`).

mod compile;
mod evaluate;
mod place;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::cel::{Program, Shape};
use crate::field::{FieldError, FieldErrorKind, FieldPath};

/// The compiled rules of a version's schema.
#[derive(Debug)]
pub struct RuleSet {
    root: Node,
}

/// The rules of a part of a schema, and of the parts in it.
#[derive(Debug)]
struct Node {
    rules: Vec<Rule>,
    shape: Arc<Shape>,
    /// `type` of the schema.
    kind: String,
    properties: BTreeMap<String, Node>,
    /// Of items of a list, or values of a map.
    element: Option<Box<Node>>,
    all_of: Vec<Node>,
    /// By which items of a list are found again in the old list.
    keys: Option<Vec<String>>,
}

#[derive(Debug)]
struct Rule {
    program: Program,
    text: String,
    message: String,
    message_program: Option<Program>,
    reason: FieldErrorKind,
    field: FieldPath,
    uses_old: bool,
    optional_old: bool,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.properties.is_empty() && self.element.is_none() && self.all_of.is_empty()
    }
}

impl RuleSet {
    /// Compiles the rules of `schema`; none if it has no rules at all.
    ///
    /// # Errors
    /// Rules that are malformed, do not compile or may cost too much, with paths below `path`.
    pub fn compile(schema: &Value, path: &FieldPath) -> Result<Option<Self>, Vec<FieldError>> {
        if !has_rules(schema) {
            return Ok(None);
        }
        compile::compile(schema, path).map(|root| Some(Self { root }))
    }

    /// What the rules say about `object`; transition rules need `old`. Errors about what is as it was in `old` are
    /// tolerated, so that rules can be tightened without blocking every later update.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        evaluate::evaluate(&self.root, object, old)
    }
}

impl RuleSet {
    /// Defaults of `schema`, from which the rules were compiled, that do not keep the rules of their part.
    pub(crate) fn default_errors(&self, schema: &Value, path: &FieldPath) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.root.default_errors(schema, path, &mut errors);
        errors
    }
}

impl Node {
    fn default_errors(&self, schema: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
        if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
            let place = path.child("default");
            for mut error in evaluate::evaluate(self, default, None) {
                let part = Some(&error.field).filter(|field| !matches!(field.as_str(), "" | "<nil>"));
                error.field = part.map_or_else(|| place.to_string(), |part| format!("{place}.{part}"));
                errors.push(error);
            }
        }
        for (name, child) in &self.properties {
            child.default_errors(&schema["properties"][name.as_str()], &path.child("properties").key(name), errors);
        }
        if let Some(child) = self.element.as_ref().filter(|_| self.kind == "array") {
            child.default_errors(&schema["items"], &path.child("items"), errors);
        }
    }
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.contains_key("x-kubernetes-validations") || map.values().any(has_rules),
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

/// Bytes of the path's first step: the longest member that it begins with, for names of members may have dots.
fn step(value: &Value, path: &str) -> usize {
    let ends = |end: usize| path[end..].is_empty() || path[end..].starts_with(['.', '[']);
    let members = value.as_object().into_iter().flatten().map(|(name, _)| name);
    let fitting = members.filter(|name| path.starts_with(name.as_str()) && ends(name.len())).map(String::len);
    fitting.max().unwrap_or_else(|| path.find(['.', '[']).unwrap_or(path.len()))
}

/// The value at a path such as `spec.ports[0].name` or `spec.limits[example.com/a]`.
pub(crate) fn lookup<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = object;
    let mut rest = path;
    while !rest.is_empty() {
        let (part, after) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']')?,
            None => {
                let rest = rest.strip_prefix('.').unwrap_or(rest);
                rest.split_at(step(value, rest))
            }
        };
        value = match value {
            Value::Array(items) => items.get(part.parse::<usize>().ok()?)?,
            _ => value.get(part)?,
        };
        rest = after;
    }
    Some(value)
}
