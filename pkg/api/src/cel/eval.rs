//! Evaluates expressions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ast::{ACCUMULATOR, Comprehension, Expr, Field, Kind, Literal};
use super::call::{Call, Meter};
use super::charge;
use super::check::Reference;
use super::library::Overload;
use super::list::List;
use super::map::Map;
use super::program::{Activation, Program};
use super::value::{Error, Evaluated, Struct, Text, Value};
use super::{STACK_LEFT, STACK_MORE};

/// How long an expression may take whatever it costs.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Rounds after which the time is looked at.
const ROUNDS: u32 = 100;

pub(super) struct Machine<'a, 'p> {
    program: &'p Program,
    activation: &'p Activation<'a>,
    /// Variables of comprehensions, the innermost last.
    scope: Vec<(&'p str, Value<'a>)>,
    pub meter: Meter,
    started: Option<Instant>,
    rounds: u32,
}

impl Error {
    /// Whether nothing goes on after it.
    fn is_final(&self) -> bool {
        matches!(self, Self::TooCostly | Self::Interrupted)
    }
}

impl<'a, 'p> Machine<'a, 'p> {
    pub fn new(program: &'p Program, activation: &'p Activation<'a>, limit: u64) -> Self {
        Self { program, activation, scope: Vec::new(), meter: Meter::new(limit), started: None, rounds: 0 }
    }

    pub fn eval(&mut self, expr: &'p Expr) -> Evaluated<'a> {
        let value = stacker::maybe_grow(STACK_LEFT, STACK_MORE, || self.evaluate(expr))?;
        match value {
            Value::Wrong(why) => Err(Error::Failed(why.to_string())),
            value => Ok(value),
        }
    }

    fn evaluate(&mut self, expr: &'p Expr) -> Evaluated<'a> {
        if let Some(constant) = self.program.constant(expr.id) {
            return Ok(constant.clone());
        }
        match &self.program.checked.references[expr.id] {
            Reference::Variable(name) => return self.variable(name),
            Reference::Type(ty) if !matches!(expr.kind, Kind::Struct { .. }) => return Ok(Value::Type(ty.clone())),
            _ => {}
        }
        match &expr.kind {
            Kind::Literal(literal) => Ok(literal_value(literal)),
            Kind::Ident(name) => Err(Error::failed(format!("no such attribute(s): {name}"))),
            Kind::Select { operand, field, test } => self.select(operand, field, *test),
            Kind::Call { target, function, args } => self.call(expr, target.as_deref(), function, args),
            Kind::List(items) => {
                let mut values = Vec::with_capacity(items.len());
                for item in items {
                    let value = self.eval(&item.value)?;
                    values.extend(held(value, item.optional)?);
                }
                self.meter.charge(charge::making(&expr.kind))?;
                self.meter.reserve(values.len() * size_of::<Value<'_>>())?;
                Ok(values.into())
            }
            Kind::Map(entries) => {
                let mut map = Map::default();
                for entry in entries {
                    let key = self.eval(&entry.key)?;
                    let Some(value) = held(self.eval(&entry.value)?, entry.optional)? else { continue };
                    self.meter.reserve(2 * size_of::<Value<'_>>())?;
                    let shown = key.to_string();
                    if !map.insert(key, value) {
                        return Err(Error::failed(format!("Failed with repeated key {shown}")));
                    }
                }
                self.meter.charge(charge::making(&expr.kind))?;
                Ok(Value::Map(map))
            }
            Kind::Struct { name, fields } => {
                let made = self.fields(name, fields)?;
                self.meter.charge(charge::making(&expr.kind))?;
                Ok(made)
            }
            Kind::Comprehension(of) => self.comprehension(of),
            Kind::Broken => Err(Error::no_overload()),
        }
    }

    fn variable(&mut self, name: &str) -> Evaluated<'a> {
        self.meter.charge(1)?;
        if let Some((_, value)) = self.scope.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        self.activation.get(name).ok_or_else(|| Error::failed(format!("no such attribute(s): {name}")))
    }

    fn select(&mut self, operand: &'p Expr, field: &str, test: bool) -> Evaluated<'a> {
        let value = self.eval(operand)?;
        if !test {
            self.meter.charge(1)?;
        }
        let found = self.member(&value, field, test)?;
        if test {
            let has = match found {
                Some(Value::Optional(held)) => held.is_some(),
                found => found.is_some(),
            };
            return Ok(has.into());
        }
        found.ok_or_else(|| Error::no_key(field))
    }

    /// The member of a value; one of an optional value is optional.
    fn member(&mut self, value: &Value<'a>, field: &str, test: bool) -> Result<Option<Value<'a>>, Error> {
        Ok(match value {
            Value::Map(map) => map.field(field),
            Value::Struct(of) => of.fields.get(field).cloned(),
            Value::Variables if test => Some(Value::Null),
            Value::Variables => Some(self.activation.composed(field)?),
            Value::Optional(None) => Some(Value::NONE),
            Value::Optional(Some(held)) => Some(Value::Optional(self.member(held, field, test)?.map(Arc::new))),
            _ if test => None,
            _ => return Err(Error::no_key(field)),
        })
    }

    fn fields(&mut self, name: &Arc<str>, fields: &'p [Field]) -> Evaluated<'a> {
        let mut made = Struct { name: name.clone(), fields: Default::default() };
        for field in fields {
            let value = self.eval(&field.value)?;
            if let Some(value) = held(value, field.optional)? {
                made.fields.insert(field.name.clone(), value);
            }
        }
        Ok(Value::Struct(Arc::new(made)))
    }

    fn call(&mut self, expr: &'p Expr, target: Option<&'p Expr>, function: &str, args: &'p [Expr]) -> Evaluated<'a> {
        match (function, args) {
            ("_&&_", [a, b]) => return self.logical(a, b, false),
            ("_||_", [a, b]) => return self.logical(a, b, true),
            ("_?_:_", [condition, then, otherwise]) => {
                return match self.eval(condition)? {
                    Value::Bool(true) => self.eval(then),
                    Value::Bool(false) => self.eval(otherwise),
                    _ => Err(Error::no_overload()),
                };
            }
            ("@not_strictly_false", [arg]) => {
                let value = self.eval(arg);
                self.meter.charge(1)?;
                return match value {
                    Err(error) if error.is_final() => Err(error),
                    Ok(Value::Bool(false)) => Ok(false.into()),
                    _ => Ok(true.into()),
                };
            }
            ("_?._", [operand, field]) => {
                let Kind::Literal(Literal::String(field)) = &field.kind else { return Err(Error::no_overload()) };
                let value = self.eval(operand)?;
                self.meter.charge(1)?;
                let held = if let Value::Optional(Some(held)) = &value { held } else { &value };
                if held.is_scalar() {
                    return Ok(Value::NONE);
                }
                return Ok(match self.member(&value, field, false)? {
                    Some(optional @ Value::Optional(_)) if matches!(value, Value::Optional(_)) => optional,
                    found => Value::Optional(found.map(Arc::new)),
                });
            }
            ("or" | "orValue", [other]) if target.is_some() => {
                let target = target.ok_or_else(Error::no_overload)?;
                let Value::Optional(held) = self.eval(target)? else { return Err(Error::no_overload()) };
                return match held {
                    None => self.eval(other),
                    Some(value) if function == "orValue" => Ok((*value).clone()),
                    held => Ok(Value::Optional(held)),
                };
            }
            _ => {}
        }
        let Reference::Functions(overloads) = &self.program.checked.references[expr.id] else {
            return Err(Error::no_overload());
        };
        let namespaced = overloads.first().is_some_and(|o| !o.member);
        let target = target.filter(|_| !namespaced);
        let mut values = Vec::with_capacity(args.len() + 1);
        for (index, arg) in target.into_iter().chain(args).enumerate() {
            let gathers = index == 0 && matches!(function, "_+_" | "cel.@mapInsert");
            values.push(if gathers { self.gathered(arg)? } else { self.eval(arg)? });
        }
        let name = self.program.name_of(overloads, function);
        self.invoke(expr, name, overloads, values, args)
    }

    /// The accumulator, which is about to be replaced, is taken and not copied.
    fn gathered(&mut self, arg: &'p Expr) -> Evaluated<'a> {
        let is_accumulator = arg.as_ident().is_some_and(|name| &**name == ACCUMULATOR);
        let place = self.scope.iter_mut().rev().find(|(known, _)| is_accumulator && *known == ACCUMULATOR);
        match place {
            Some((_, value)) if matches!(value, Value::List(_) | Value::Map(_)) => {
                let taken = std::mem::replace(value, Value::Null);
                self.meter.charge(1)?;
                Ok(taken)
            }
            _ => self.eval(arg),
        }
    }

    fn invoke(
        &mut self,
        expr: &'p Expr,
        function: &str,
        overloads: &[&'static Overload],
        values: Vec<Value<'a>>,
        args: &'p [Expr],
    ) -> Evaluated<'a> {
        let fits = |o: &&&'static Overload| o.args.iter().zip(&values).all(|(ty, value)| value.fits(ty));
        let overload = overloads.iter().find(fits).copied().ok_or_else(Error::no_overload)?;
        let id = if overloads.len() == 1 { overload.id } else { "" };
        let known_set = function == "@in" && args.get(1).is_some_and(|set| self.program.constant(set.id).is_some());
        if !known_set {
            self.meter.charge(charge::before(function, id, &values))?;
        }
        if matches!(values.first(), Some(Value::List(_) | Value::Map(_))) {
            // What it takes to compare them their cost does not tell.
            self.look_at_time()?;
        }
        let pattern = self.program.patterns.get(&expr.id);
        // Where an accumulator grows by one item it does so in place.
        if let ("_+_", [Value::List(_), Value::List(List::Owned(added))]) = (function, &*values)
            && added.len() == 1
            && args.first().is_some_and(|a| a.as_ident().is_some_and(|name| &**name == ACCUMULATOR))
        {
            let item = added[0].clone();
            let Some(Value::List(mut list)) = values.into_iter().next() else { return Err(Error::no_overload()) };
            self.meter.reserve(size_of::<Value<'_>>())?;
            list.push(item);
            return Ok(Value::List(list));
        }
        let decide = self.activation.decide.as_deref();
        let mut call = Call { args: values, decide, meter: &mut self.meter, pattern };
        let result = (overload.run)(&mut call)?;
        self.meter.charge(charge::after(function, &result))?;
        Ok(result)
    }

    /// And, or: what one of them decides stands whatever the other fails with.
    fn logical(&mut self, a: &'p Expr, b: &'p Expr, decides: bool) -> Evaluated<'a> {
        let first = self.eval(a);
        match &first {
            Ok(Value::Bool(value)) if *value == decides => return first,
            Err(error) if error.is_final() => return first,
            _ => {}
        }
        let second = self.eval(b);
        match (&first, &second) {
            (_, Ok(Value::Bool(value))) if *value == decides => second,
            (_, Err(error)) if error.is_final() => second,
            (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => second,
            (Err(_), _) => first,
            (_, Err(_)) => second,
            _ => Err(Error::no_overload()),
        }
    }

    fn comprehension(&mut self, of: &'p Comprehension) -> Evaluated<'a> {
        let start = |machine: &mut Self| machine.eval(&of.start);
        if of.is_bind() {
            let value = start(self)?;
            self.scope.push((&of.accumulator, value));
            let result = self.eval(&of.result);
            self.scope.pop();
            return result;
        }
        let range = self.eval(&of.range)?;
        let value = start(self)?;
        let outside = self.scope.len();
        self.scope.push((&of.accumulator, value));
        let result = self.fold(of, &range, outside);
        self.scope.truncate(outside + 1);
        let result = result.and_then(|()| self.eval(&of.result));
        self.scope.truncate(outside);
        result
    }

    fn fold(&mut self, of: &'p Comprehension, range: &Value<'a>, outside: usize) -> Result<(), Error> {
        let two = of.second.is_some();
        match range {
            Value::List(list) => {
                for (index, item) in list.iter().enumerate() {
                    let first = if two { Value::Int(i64::try_from(index).unwrap_or(i64::MAX)) } else { item.clone() };
                    if !self.round(of, outside, first, item)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let value = if two { map.get(&key).unwrap_or(Value::Null) } else { Value::Null };
                    if !self.round(of, outside, key, value)? {
                        break;
                    }
                }
            }
            other => {
                let name = other.ty().runtime_name();
                return Err(Error::failed(format!("got '{name}', expected iterable type")));
            }
        }
        Ok(())
    }

    fn look_at_time(&mut self) -> Result<(), Error> {
        let late = self.started.get_or_insert_with(Instant::now).elapsed() > TIME_MAX;
        if late { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// One round; false if it is the last.
    fn round(
        &mut self,
        of: &'p Comprehension,
        outside: usize,
        first: Value<'a>,
        second: Value<'a>,
    ) -> Result<bool, Error> {
        self.rounds += 1;
        if self.rounds.is_multiple_of(ROUNDS) {
            self.look_at_time()?;
        }
        self.scope.truncate(outside + 1);
        self.scope.push((&of.variable, first));
        self.scope.extend(of.second.as_deref().map(|name| (name, second)));
        if let Value::Bool(false) = self.eval(&of.condition)? {
            return Ok(false);
        }
        let absorbed = !matches!(of.condition.kind, Kind::Literal(_));
        let value = match self.eval(&of.step) {
            Err(Error::Failed(why)) if absorbed => Value::Wrong(why.into()),
            value => value?,
        };
        self.scope[outside].1 = value;
        Ok(true)
    }
}

/// What is to be kept of a value that may be left out.
fn held(value: Value<'_>, optional: bool) -> Result<Option<Value<'_>>, Error> {
    match value {
        value if !optional => Ok(Some(value)),
        Value::Optional(held) => Ok(held.map(|value| (*value).clone())),
        value => Err(Error::failed(format!("cannot initialize optional entry from non-optional value {value}"))),
    }
}

pub(super) fn literal_value(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Text::Shared(text.clone())),
        Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}
