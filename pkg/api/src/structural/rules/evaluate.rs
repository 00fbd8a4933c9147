//! Holds objects against rules.

use std::sync::Arc;

use serde_json::Value;

use super::{Node, Rule};
use crate::cel::{Activation, BUDGET, CALL_LIMIT, Error, MESSAGE_MAX, Value as Cel};
use crate::field::{FieldError, FieldErrorKind, FieldPath};

const NO_BUDGET: &str = "validation failed due to running out of cost budget, no further validation rules will be run";

struct Validator {
    errors: Vec<FieldError>,
    budget: u64,
}

/// No further rules are to be run.
struct Stop;

/// A part of an object.
#[derive(Clone, Copy)]
struct Part<'a> {
    value: &'a Value,
    /// What it was; none if there was none, or it cannot be told.
    old: Option<&'a Value>,
    /// The closest part around it, or itself, whose old value is known, and that old value. What is the same there may be
    /// as wrong as it was.
    same: Option<(&'a Value, &'a Value)>,
}

pub(super) fn evaluate(root: &Node, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut validator = Validator { errors: Vec::new(), budget: BUDGET };
    let part = Part { value: object, old, same: old.map(|old| (object, old)) };
    let _ = validator.node(root, &FieldPath::default(), part);
    validator.errors
}

impl<'a> Part<'a> {
    fn below(self, value: &'a Value, old: Option<&'a Value>) -> Self {
        Part { value, old, same: old.map(|old| (value, old)).or(self.same) }
    }
}

impl Validator {
    fn node(&mut self, node: &Node, path: &FieldPath, part: Part<'_>) -> Result<(), Stop> {
        stacker::maybe_grow(128 << 10, 2 << 20, || self.check(node, path, part))
    }

    fn check(&mut self, node: &Node, path: &FieldPath, part: Part<'_>) -> Result<(), Stop> {
        if part.value.is_null() {
            return Ok(());
        }
        self.rules(node, path, part)?;
        for other in &node.all_of {
            self.node(other, path, Part { same: None, ..part })?;
        }
        match part.value {
            Value::Object(members) => {
                for (name, value) in members {
                    let old = part.old.and_then(|old| old.get(name));
                    if let Some(child) = node.properties.get(name) {
                        self.node(child, &path.child(name), part.below(value, old))?;
                    } else if let Some(child) = node.element.as_ref().filter(|_| node.kind == "object") {
                        self.node(child, &path.key(name), part.below(value, old))?;
                    }
                }
            }
            Value::Array(items) => {
                let Some(child) = &node.element else { return Ok(()) };
                let before = part.old.and_then(Value::as_array);
                for (index, value) in items.iter().enumerate() {
                    let same = |old: &&Value| node.keys.iter().flatten().all(|key| old.get(key) == value.get(key));
                    let old = before.filter(|_| node.keys.is_some()).and_then(|before| before.iter().find(same));
                    self.node(child, &path.index(index), part.below(value, old))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rules(&mut self, node: &Node, path: &FieldPath, part: Part<'_>) -> Result<(), Stop> {
        if node.rules.is_empty() {
            return Ok(());
        }
        if self.budget == 0 {
            return self.stop(path, &node.kind, NO_BUDGET);
        }
        let mut activation = Activation::new(CALL_LIMIT);
        activation.set("self", Cel::shaped(part.value, &node.shape));
        let old = part.old.filter(|old| !old.is_null()).map(|old| Cel::shaped(old, &node.shape));
        for rule in &node.rules {
            match (&old, rule.optional_old) {
                (old, true) => activation.set("oldSelf", Cel::Optional(old.clone().map(Arc::new))),
                (Some(old), false) => activation.set("oldSelf", old.clone()),
                (None, false) if rule.uses_old => continue,
                (None, false) => {}
            }
            let (result, cost) = rule.program.run(&activation, CALL_LIMIT);
            if cost > self.budget {
                return self.stop(path, &node.kind, NO_BUDGET);
            }
            self.budget -= cost;
            match result {
                Ok(Cel::Bool(true)) => {}
                Ok(_) => {
                    let mut error = self.refusal(rule, node, path, part, &activation)?;
                    error.tolerated = !rule.uses_old && part.same.is_some_and(|(new, old)| new == old);
                    self.errors.push(error);
                }
                Err(error) => self.failed(rule, node, path, &error)?,
            }
        }
        Ok(())
    }

    fn stop<T>(&mut self, path: &FieldPath, kind: &str, why: &str) -> Result<T, Stop> {
        self.errors.push(FieldError::invalid(&rooted(path), kind, why));
        Err(Stop)
    }

    fn failed(&mut self, rule: &Rule, node: &Node, path: &FieldPath, error: &Error) -> Result<(), Stop> {
        let shown = if rule.message.is_empty() { &rule.text } else { &rule.message };
        let text = error.to_string();
        let why = match error {
            Error::TooCostly | Error::Interrupted => {
                let why = format!(
                    "'{text}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}"
                );
                return self.stop(path, &node.kind, &why);
            }
            Error::Failed(_) if text.starts_with("no such overload") => {
                format!(
                    "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
                )
            }
            Error::Failed(_) => format!("{text} evaluating rule: {shown}"),
        };
        self.errors.push(FieldError::invalid(&rooted(path), node.kind.as_str(), why));
        Ok(())
    }

    /// The error that a rule which does not hold asks for.
    fn refusal(
        &mut self,
        rule: &Rule,
        node: &Node,
        path: &FieldPath,
        part: Part<'_>,
        activation: &Activation<'_>,
    ) -> Result<FieldError, Stop> {
        let path = rooted(&rule.field.after(path));
        let made = self.message(rule, &path, &node.kind, activation)?;
        let detail = made.unwrap_or_else(|| match rule.message.as_str() {
            "" => format!("failed rule: {}", rule.text),
            message => message.to_owned(),
        });
        let whole = matches!(node.kind.as_str(), "object" | "array");
        Ok(match rule.reason {
            FieldErrorKind::Forbidden => FieldError::forbidden(&path, detail),
            FieldErrorKind::Required => FieldError::required(&path, detail),
            FieldErrorKind::Duplicate if whole => FieldError::duplicate(&path, node.kind.as_str()),
            FieldErrorKind::Duplicate => FieldError::duplicate(&path, part.value.clone()),
            _ if whole => FieldError::invalid_part(&path, detail),
            _ => FieldError::invalid(&path, part.value.clone(), detail),
        })
    }

    fn message(
        &mut self,
        rule: &Rule,
        path: &FieldPath,
        kind: &str,
        activation: &Activation<'_>,
    ) -> Result<Option<String>, Stop> {
        let Some(program) = &rule.message_program else { return Ok(None) };
        let (result, cost) = program.run(activation, CALL_LIMIT);
        if cost > self.budget {
            let why = "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run";
            return self.stop(path, kind, why);
        }
        self.budget -= cost;
        match result {
            Err(Error::TooCostly | Error::Interrupted) => {
                let why =
                    "no further validation rules will be run due to call cost exceeds limit for messageExpression";
                self.stop(path, kind, &format!("{why}: {:?}", program.text()))
            }
            Ok(value) => {
                let text = value
                    .as_text()
                    .map(str::trim)
                    .filter(|t| !t.is_empty() && t.len() <= MESSAGE_MAX && !t.contains('\n'));
                Ok(text.map(str::to_owned))
            }
            Err(_) => Ok(None),
        }
    }
}

/// What is no field has a name too.
fn rooted(path: &FieldPath) -> FieldPath {
    if *path == FieldPath::default() { FieldPath::new("<nil>") } else { path.clone() }
}
