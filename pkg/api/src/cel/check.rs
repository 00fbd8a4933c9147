//! Finds the types of expressions and the functions that they call.

use std::sync::Arc;

use super::ast::{Comprehension, Entry, Expr, Field, Id, Item, Kind, Literal};
use super::env::{Env, Named};
use super::issue::{Found, Issues};
use super::library::{FUNCTIONS, Overload};
use super::parser::Parsed;
use super::types::{Mapping, Type, most_general};
use super::{STACK_LEFT, STACK_MORE};

/// What a name or a call refers to.
#[derive(Clone, Debug, Default)]
pub(super) enum Reference {
    #[default]
    None,
    Variable(Arc<str>),
    Type(Type),
    /// Those that may be meant; the values tell which.
    Functions(Vec<&'static Overload>),
}

/// Types and references by expression.
#[derive(Debug)]
pub(super) struct Checked {
    pub types: Vec<Type>,
    pub references: Vec<Reference>,
}

struct Checker<'c, 't> {
    env: &'c Env,
    /// Variables of comprehensions, the innermost last.
    scope: Vec<(Arc<str>, Type)>,
    mapping: Mapping,
    parameters: usize,
    checked: Checked,
    places: &'c [usize],
    found: Found<'t>,
    /// Whether lists may hold items of different types, as those for `format` do.
    mixed: bool,
}

pub(super) fn check(parsed: &Parsed, text: &[char], env: &Env) -> Result<Checked, Issues> {
    let count = parsed.places.len();
    let checked = Checked { types: vec![Type::Error; count], references: vec![Reference::None; count] };
    let mut checker = Checker {
        env,
        scope: Vec::new(),
        mapping: Mapping::default(),
        parameters: 0,
        checked,
        places: &parsed.places,
        found: Found::new(text),
        mixed: false,
    };
    checker.check(&parsed.root);
    let Checker { mapping, mut checked, found, .. } = checker;
    found.into_result()?;
    for ty in &mut checked.types {
        *ty = mapping.substitute(ty, true);
    }
    Ok(checked)
}

impl Checker<'_, '_> {
    fn report(&mut self, id: Id, message: impl std::fmt::Display) {
        self.found.report(self.places[id], message);
    }

    fn undeclared(&mut self, id: Id, name: &str) -> Type {
        self.report(id, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn mismatch(&mut self, id: Id, expected: &Type, found: &Type) {
        self.report(id, format!("expected type '{expected}' but found '{found}'"));
    }

    fn variable(&mut self) -> Type {
        self.parameters += 1;
        Type::Param(format!("_var{}", self.parameters - 1).into())
    }

    fn check(&mut self, expr: &Expr) -> Type {
        let ty = stacker::maybe_grow(STACK_LEFT, STACK_MORE, || self.type_of(expr));
        self.checked.types[expr.id] = ty.clone();
        ty
    }

    fn type_of(&mut self, expr: &Expr) -> Type {
        match &expr.kind {
            Kind::Literal(literal) => match literal {
                Literal::Null => Type::Null,
                Literal::Bool(_) => Type::Bool,
                Literal::Int(_) => Type::Int,
                Literal::Uint(_) => Type::Uint,
                Literal::Double(_) => Type::Double,
                Literal::String(_) => Type::String,
                Literal::Bytes(_) => Type::Bytes,
            },
            Kind::Ident(name) => match self.resolve(expr.id, name) {
                Some(ty) => ty,
                None => self.undeclared(expr.id, name),
            },
            Kind::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Kind::Call { target, function, args } => self.call(expr, target.as_deref(), function, args),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.object(expr.id, name, fields),
            Kind::Comprehension(of) => self.comprehension(of),
            Kind::Broken => Type::Error,
        }
    }

    fn resolve(&mut self, id: Id, name: &str) -> Option<Type> {
        if let Some((known, ty)) = self.scope.iter().rev().find(|(known, _)| **known == *name) {
            self.checked.references[id] = Reference::Variable(known.clone());
            return Some(ty.clone());
        }
        let (reference, ty) = match self.env.resolve(name)? {
            Named::Variable(ty) => (Reference::Variable(name.strip_prefix('.').unwrap_or(name).into()), ty),
            Named::Type(ty) => (Reference::Type(ty.clone()), Type::Type(Some(Arc::new(ty)))),
        };
        self.checked.references[id] = reference;
        Some(ty)
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) -> Type {
        let root_is_local = |name: &str| {
            let root = name.split('.').next().unwrap_or_default();
            self.scope.iter().any(|(known, _)| **known == *root)
        };
        if !test
            && let Some(name) = expr.qualified()
            && !root_is_local(&name)
            && let Some(ty) = self.resolve(expr.id, &name)
        {
            return ty;
        }
        let ty = self.field(expr.id, operand, field, false);
        if test { Type::Bool } else { self.mapping.substitute(&ty, false) }
    }

    fn field(&mut self, id: Id, operand: &Expr, field: &str, optional: bool) -> Type {
        let of = self.check(operand);
        let of = self.mapping.substitute(&of, false);
        let (of, is_optional) = of.unwrapped();
        let ty = match of {
            Type::Map(of) => of.1.clone(),
            Type::Struct(name) => match self.env.field(name, field) {
                Ok(Some(ty)) => ty,
                Ok(None) => {
                    self.report(id, format!("undefined field '{field}'"));
                    Type::Error
                }
                Err(()) => {
                    self.report(id, format!("unexpected failed resolution of '{name}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.mapping.assignable(&Type::Dyn, of);
                Type::Dyn
            }
            of => {
                if !of.is_dyn_or_error() {
                    self.report(id, format!("type '{of}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if is_optional || optional { Type::optional(ty) } else { ty }
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, function: &str, args: &[Expr]) -> Type {
        if function == "_?._" {
            return self.optional_select(expr.id, args);
        }
        let mixed = self.mixed;
        self.mixed |= function == "format";
        let arg_types: Vec<Type> = args.iter().map(|arg| self.check(arg)).collect();
        self.mixed = mixed;
        let Some(target) = target else { return self.overloads(expr.id, function, &arg_types, false) };
        if let Some(prefix) = target.qualified() {
            let name = format!("{prefix}.{function}");
            if self.known(&name) {
                return self.overloads(expr.id, &name, &arg_types, false);
            }
        }
        let target = self.check(target);
        let arg_types: Vec<Type> = [target].into_iter().chain(arg_types).collect();
        self.overloads(expr.id, function, &arg_types, true)
    }

    fn optional_select(&mut self, id: Id, args: &[Expr]) -> Type {
        let [operand, field] = args else { return Type::Error };
        let Kind::Literal(Literal::String(name)) = &field.kind else { return Type::Error };
        self.checked.types[field.id] = Type::String;
        let ty = self.field(id, operand, name, true);
        let overloads = FUNCTIONS.get("_?._").map(Vec::as_slice).unwrap_or_default();
        self.checked.references[id] = Reference::Functions(overloads.iter().collect());
        self.mapping.substitute(&ty, false)
    }

    fn known(&self, function: &str) -> bool {
        FUNCTIONS.contains_key(function) && self.env.has_function(function)
    }

    fn overloads(&mut self, id: Id, function: &str, args: &[Type], member: bool) -> Type {
        let overloads =
            FUNCTIONS.get(function.strip_prefix('.').unwrap_or(function)).filter(|_| self.env.has_function(function));
        let Some(overloads) = overloads else { return self.undeclared(id, function) };
        let (mut result, mut matching): (Option<Type>, Vec<&'static Overload>) = (None, Vec::new());
        for overload in overloads.iter().filter(|o| o.member == member && o.args.len() == args.len()) {
            let (expected, gives) = self.instance(overload);
            let pairs: Vec<(&Type, &Type)> = args.iter().zip(&expected).collect();
            if !self.mapping.all_assignable(&pairs) {
                continue;
            }
            matching.push(overload);
            let gives = self.mapping.substitute(&gives, false);
            result = Some(match result {
                None => gives,
                Some(before) if !before.is_dyn() && gives != before => Type::Dyn,
                Some(before) => before,
            });
        }
        self.checked.references[id] = Reference::Functions(matching);
        result.unwrap_or_else(|| {
            let shown: Vec<String> = args.iter().map(|a| self.mapping.substitute(a, true).to_string()).collect();
            let signature = match shown.split_first() {
                Some((target, rest)) if member => format!("{target}.({})", rest.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            self.report(id, format!("found no matching overload for '{function}' applied to '{signature}'"));
            Type::Error
        })
    }

    /// Arguments and result of an overload with parameters of its own.
    fn instance(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        let mut fresh = Mapping::default();
        for name in ["A", "B", "K", "V", "T"] {
            let stands_for = self.variable();
            fresh.set(&name.into(), stands_for);
        }
        let args = overload.args.iter().map(|a| fresh.substitute(a, false)).collect();
        (args, fresh.substitute(&overload.result, false))
    }

    /// What is given where an optional value may be: what it holds.
    fn held(&mut self, value: &Expr, ty: Type, optional: bool) -> Type {
        if !optional {
            return ty;
        }
        let (held, is_optional) = ty.unwrapped();
        let held = held.clone();
        if !is_optional && !held.is_dyn() {
            self.mismatch(value.id, &Type::optional(held.clone()), &held);
        }
        held
    }

    fn join(&mut self, id: Id, before: Option<Type>, next: Type) -> Type {
        let Some(before) = before else { return next };
        if self.mapping.assignable(&before, &next) {
            return most_general(&before, &next);
        }
        if self.mixed {
            return Type::Dyn;
        }
        self.mismatch(id, &before, &next);
        Type::Error
    }

    fn list(&mut self, items: &[Item]) -> Type {
        let mut of = None;
        for item in items {
            let ty = self.check(&item.value);
            let ty = self.held(&item.value, ty, item.optional);
            of = Some(self.join(item.value.id, of, ty));
        }
        Type::list(of.unwrap_or_else(|| self.variable()))
    }

    fn map(&mut self, entries: &[Entry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let key = self.check(&entry.key);
            keys = Some(self.join(entry.key.id, keys, key));
            let value = self.check(&entry.value);
            let value = self.held(&entry.value, value, entry.optional);
            values = Some(self.join(entry.value.id, values, value));
        }
        let keys = keys.unwrap_or_else(|| self.variable());
        Type::map(keys, values.unwrap_or_else(|| self.variable()))
    }

    fn object(&mut self, id: Id, name: &str, fields: &[Field]) -> Type {
        let Some(ty) = self.env.type_of(name) else { return self.undeclared(id, name) };
        let Type::Struct(name) = &ty else {
            self.report(id, format!("'{name}' is not a message type"));
            return Type::Error;
        };
        for field in fields {
            let value = self.check(&field.value);
            let value = self.held(&field.value, value, field.optional);
            let expected = match self.env.field(name, &field.name) {
                Ok(Some(expected)) => expected,
                _ => {
                    self.report(field.id, format!("undefined field '{}'", field.name));
                    Type::Error
                }
            };
            if !self.mapping.assignable(&expected, &value) {
                let field_name = &field.name;
                let what =
                    format!("expected type of field '{field_name}' is '{expected}' but provided type is '{value}'");
                self.report(field.id, what);
            }
        }
        ty
    }

    fn comprehension(&mut self, of: &Comprehension) -> Type {
        let range = self.check(&of.range);
        let accumulator = self.check(&of.start);
        let range = self.mapping.substitute(&range, false);
        let two = of.second.is_some();
        let (first, second) = match &range {
            Type::List(item) if two => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Error),
            Type::Map(of) => (of.0.clone(), of.1.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.mapping.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let what = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.report(of.range.id, what);
                (Type::Error, Type::Error)
            }
        };
        let outside = self.scope.len();
        self.scope.push((of.accumulator.clone(), accumulator.clone()));
        self.scope.push((of.variable.clone(), first));
        self.scope.extend(of.second.clone().map(|name| (name, second)));
        let condition = self.check(&of.condition);
        self.expect(&of.condition, &Type::Bool, &condition);
        let step = self.check(&of.step);
        self.expect(&of.step, &accumulator, &step);
        self.scope.truncate(outside + 1);
        let result = self.check(&of.result);
        self.scope.truncate(outside);
        self.mapping.substitute(&result, false)
    }

    fn expect(&mut self, expr: &Expr, expected: &Type, found: &Type) {
        if !self.mapping.assignable(expected, found) {
            self.mismatch(expr.id, expected, found);
        }
    }
}
