//! Expressions that are ready to run, and what they run with.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use super::ast::{Expr, Id, Kind, Literal};
use super::call::{Call, Decide, Meter};
use super::check::{Checked, Reference, check};
use super::env::Env;
use super::estimate;
use super::eval::{Machine, literal_value};
use super::issue::{Found, Issues};
use super::library::{OF_LITERALS, Overload, printf, regex};
use super::map::Map;
use super::parser::parse;
use super::shape::Shape;
use super::types::Type;
use super::value::{Error, Evaluated, Value};

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    text: String,
    root: Expr,
    pub(super) checked: Checked,
    /// Values that are known beforehand.
    constants: HashMap<Id, Value<'static>>,
    /// Patterns that are literals, by the call.
    pub(super) patterns: HashMap<Id, ::regex::Regex>,
}

impl Program {
    /// Compiles an expression.
    ///
    /// # Errors
    /// Says where it is wrong.
    pub fn compile(text: &str, env: &Env) -> Result<Self, Issues> {
        let characters: Vec<char> = text.chars().collect();
        let parsed = parse(&characters, env.binds())?;
        let checked = check(&parsed, &characters, env)?;
        let (constants, patterns) = (HashMap::new(), HashMap::new());
        let mut program = Self { text: text.to_owned(), root: parsed.root.clone(), checked, constants, patterns };
        let mut found = Found::new(&characters);
        program.fold(&parsed.root, &parsed.places, &mut found);
        found.into_result()?;
        Ok(program)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The type of what it gives.
    pub fn output(&self) -> &Type {
        &self.checked.types[self.root.id]
    }

    /// Whether it refers to the variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.checked.references.iter().any(|r| matches!(r, Reference::Variable(name) if **name == *variable))
    }

    /// What it costs at most where `self` is of the shape.
    pub fn estimate(&self, shape: &Shape) -> u64 {
        estimate::cost(&self.root, &self.checked, shape).max
    }

    /// Evaluates it, and tells what that cost. What costs more than the limit fails.
    pub fn run<'a>(&self, activation: &Activation<'a>, limit: u64) -> (Evaluated<'a>, u64) {
        let mut machine = Machine::new(self, activation, limit);
        let value = machine.eval(&self.root);
        (value, machine.meter.cost)
    }

    pub(super) fn constant(&self, id: Id) -> Option<&Value<'static>> {
        self.constants.get(&id)
    }

    /// The name that a function of a namespace is found by.
    pub(super) fn name_of<'n>(&self, overloads: &[&'static Overload], function: &'n str) -> &'n str {
        match (function, overloads.first().map(|o| o.id)) {
            ("range", Some("lists_range")) => "lists.range",
            ("isCanonical", Some("ip_is_canonical")) => "ip.isCanonical",
            ("escapeKey", Some("string_jsonpatch_escapeKey_string")) => "jsonpatch.escapeKey",
            ("named", Some("format-named")) => "format.named",
            _ => function,
        }
    }

    /// Finds what does not change from run to run, and literals that are none of what they should be.
    fn fold(&mut self, expr: &Expr, places: &[usize], found: &mut Found<'_>) {
        let mut children = Vec::new();
        expr.each_child(&mut |child| children.push(child));
        for child in children {
            stacker::maybe_grow(super::STACK_LEFT, super::STACK_MORE, || self.fold(child, places, found));
        }
        let literal = |e: &Expr| match &e.kind {
            Kind::Literal(literal) => Some(literal_value(literal)),
            _ => None,
        };
        match &expr.kind {
            Kind::List(items) if items.iter().all(|i| !i.optional) => {
                let known = |e: &Expr| literal(e).or_else(|| self.constants.get(&e.id).cloned());
                let values: Option<Vec<Value<'static>>> = items.iter().map(|i| known(&i.value)).collect();
                if let Some(values) = values {
                    self.constants.insert(expr.id, values.into());
                }
            }
            Kind::Map(entries) if entries.iter().all(|e| !e.optional) => {
                let mut map = Map::default();
                let known = |e: &Expr| literal(e).or_else(|| self.constants.get(&e.id).cloned());
                let fine = entries.iter().all(|e| match (known(&e.key), known(&e.value)) {
                    (Some(key), Some(value)) => map.insert(key, value),
                    _ => false,
                });
                if fine {
                    self.constants.insert(expr.id, Value::Map(map));
                }
            }
            Kind::Call { target: None, function, args } if args.len() == 1 && OF_LITERALS.contains(&&**function) => {
                let Some(value) = literal(&args[0]) else { return };
                let Reference::Functions(overloads) = &self.checked.references[expr.id] else { return };
                let Some(overload) = overloads.iter().find(|o| o.args.iter().all(|a| value.fits(a))) else { return };
                let mut meter = Meter::new(u64::MAX);
                let mut call = Call { args: vec![value], decide: None, meter: &mut meter, pattern: None };
                match (overload.run)(&mut call) {
                    Ok(value) => {
                        self.constants.insert(expr.id, value);
                    }
                    Err(_) if matches!(&**function, "duration" | "timestamp") => {
                        found.report(places[args[0].id], format!("invalid {function} argument"));
                    }
                    Err(why) => found.fail(why),
                }
            }
            Kind::Call { target: Some(target), function, args } if &**function == "format" && args.len() == 1 => {
                let (Kind::Literal(Literal::String(pattern)), Kind::List(items)) = (&target.kind, &args[0].kind) else {
                    return;
                };
                let types: Vec<&Type> = items.iter().map(|item| &self.checked.types[item.value.id]).collect();
                if let Some((item, why)) = printf::check_literal(pattern, &types) {
                    let at = item.map_or(expr.id, |index| items[index].value.id);
                    found.report(places[at], why);
                }
            }
            Kind::Call { target, function, args } if matches!(&**function, "matches" | "find" | "findAll") => {
                let pattern = if target.is_some() { args.first() } else { args.get(1) };
                let Some(Kind::Literal(Literal::String(text))) = pattern.map(|p| &p.kind) else { return };
                match (regex::compile(text), pattern) {
                    (Ok(compiled), _) => {
                        self.patterns.insert(expr.id, compiled);
                    }
                    (Err(_), Some(pattern)) if &**function == "matches" => {
                        found.report(places[pattern.id], "invalid matches argument");
                    }
                    (Err(why), _) => found.fail(why),
                }
            }
            _ => {}
        }
    }
}

/// The variables of a policy, which may refer to those before them.
#[derive(Debug, Default)]
pub struct Composed {
    pub programs: Vec<(String, Result<Program, String>)>,
}

/// What an expression is evaluated with. Composed variables are evaluated when they are first asked for, and kept.
pub struct Activation<'a> {
    variables: Vec<(&'static str, Value<'a>)>,
    pub(super) decide: Option<Arc<Decide>>,
    composed: Option<&'a Composed>,
    known: RefCell<HashMap<String, Evaluated<'a>>>,
    spent: Cell<u64>,
    limit: u64,
}

impl<'a> Activation<'a> {
    /// `limit` is what each composed variable may cost.
    pub fn new(limit: u64) -> Self {
        Self {
            variables: Vec::new(),
            decide: None,
            composed: None,
            known: RefCell::default(),
            spent: Cell::new(0),
            limit,
        }
    }

    pub fn set(&mut self, name: &'static str, value: Value<'a>) {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value));
    }

    /// Takes a variable away.
    pub fn unset(&mut self, name: &'static str) {
        self.variables.retain(|(known, _)| *known != name);
    }

    /// What `check` of the authorizer library asks.
    pub fn set_decide(&mut self, decide: Arc<Decide>) {
        self.decide = Some(decide);
    }

    /// The members of `variables`.
    pub fn set_composed(&mut self, composed: &'a Composed) {
        self.composed = Some(composed);
        self.set("variables", Value::Variables);
    }

    /// What composed variables have cost since this was asked last.
    pub fn take_spent(&self) -> u64 {
        self.spent.take()
    }

    pub(super) fn get(&self, name: &str) -> Option<Value<'a>> {
        self.variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    pub(super) fn composed(&self, name: &str) -> Evaluated<'a> {
        if let Some(known) = self.known.borrow().get(name) {
            return known.clone();
        }
        let programs = self.composed.map(|c| c.programs.as_slice()).unwrap_or_default();
        let (_, program) = programs.iter().rev().find(|(n, _)| n == name).ok_or_else(|| Error::no_key(name))?;
        let value = match program {
            Ok(program) => {
                let (value, cost) = program.run(self, self.limit);
                self.spent.set(self.spent.get().saturating_add(cost));
                value.map_err(|error| match error {
                    Error::Interrupted => Error::Interrupted,
                    error => Error::failed(format!("composited variable {name:?} fails to evaluate: {error}")),
                })
            }
            Err(why) => Err(Error::failed(format!("composited variable {name:?} fails to compile: {why}"))),
        };
        self.known.borrow_mut().insert(name.to_owned(), value.clone());
        value
    }
}
