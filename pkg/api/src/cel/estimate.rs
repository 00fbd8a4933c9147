//! What expressions cost at most and at least, told from types and sizes. Whether a rule may be written depends on it, so
//! every figure is cel-go's.

mod call;
mod range;

use std::collections::HashMap;

use super::ast::{ACCUMULATOR, Comprehension, Entry, Expr, Id, Item, Kind, Literal};
use super::charge;
use super::check::{Checked, Reference};
use super::shape::Shape;
use super::types::Type;
use super::{STACK_LEFT, STACK_MORE};
pub(super) use range::Range;

/// Sizes of what a container holds.
#[derive(Clone, Copy, Debug)]
struct Entries {
    list: bool,
    key: Range,
    value: Range,
}

impl Entries {
    fn union(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        let (a, b) = (a?, b?);
        Some(Self { list: a.list, key: a.key.union(b.key), value: a.value.union(b.value) })
    }
}

struct Local {
    path: Vec<String>,
    size: Option<Range>,
    entries: Option<Entries>,
}

struct Estimator<'e> {
    checked: &'e Checked,
    root: &'e Shape,
    /// Where in the root what an expression gives is.
    paths: HashMap<Id, Vec<String>>,
    locals: HashMap<String, Vec<Local>>,
    sizes: HashMap<Id, Range>,
    entries: HashMap<Id, Entries>,
}

pub(super) fn cost(expr: &Expr, checked: &Checked, root: &Shape) -> Range {
    let (paths, locals) = (HashMap::new(), HashMap::new());
    Estimator { checked, root, paths, locals, sizes: HashMap::new(), entries: HashMap::new() }.cost(expr)
}

impl<'e> Estimator<'e> {
    fn cost(&mut self, expr: &Expr) -> Range {
        stacker::maybe_grow(STACK_LEFT, STACK_MORE, || self.of(expr))
    }

    fn of(&mut self, expr: &Expr) -> Range {
        if let (Reference::Variable(name), Kind::Select { .. }) = (&self.checked.references[expr.id], &expr.kind) {
            self.paths.insert(expr.id, vec![name.to_string()]);
            return Range::fixed(1);
        }
        match &expr.kind {
            Kind::Literal(_) | Kind::Broken => Range::fixed(0),
            Kind::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.to_string()], |local| local.path.clone());
                self.paths.insert(expr.id, path);
                Range::fixed(1)
            }
            Kind::Select { operand, test: true, .. } => self.cost(operand),
            Kind::Select { operand, field, .. } => {
                let mut sum = self.cost(operand);
                if matches!(self.ty(operand), Type::Map(_) | Type::Struct(_) | Type::Param(_)) {
                    sum = sum.plus(Range::fixed(1));
                }
                let path = self.below(operand, field);
                self.paths.insert(expr.id, path);
                sum
            }
            Kind::Call { target, function, args } => self.call(expr, target.as_deref(), function, args),
            Kind::List(items) => self.list(expr, items),
            Kind::Map(entries) => self.map(expr, entries),
            Kind::Struct { fields, .. } => {
                let sum = fields.iter().fold(Range::fixed(0), |sum, f| sum.plus(self.cost(&f.value)));
                sum.plus(Range::fixed(charge::STRUCT))
            }
            Kind::Comprehension(of) if of.is_bind() => {
                let sum = self.cost(&of.range).plus(self.cost(&of.start)).plus(Range::fixed(0));
                self.push_value(&of.accumulator, &of.start);
                let sum = sum.plus(self.cost(&of.result));
                self.pop(&of.accumulator);
                self.copy_sizes(expr.id, &of.result);
                sum
            }
            Kind::Comprehension(of) => self.comprehension(expr, of),
        }
    }

    fn ty(&self, expr: &Expr) -> &'e Type {
        &self.checked.types[expr.id]
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.get(name).and_then(|stack| stack.last())
    }

    fn path(&self, expr: &Expr) -> Vec<String> {
        if let Some(local) = expr.as_ident().and_then(|name| self.local(name)) {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn below(&self, expr: &Expr, step: &str) -> Vec<String> {
        let mut path = self.path(expr);
        path.push(step.to_owned());
        path
    }

    fn push(&mut self, name: &str, local: Local) {
        self.locals.entry(name.to_owned()).or_default().push(local);
    }

    fn pop(&mut self, name: &str) {
        if let Some(stack) = self.locals.get_mut(name) {
            stack.pop();
        }
    }

    fn push_value(&mut self, name: &str, value: &Expr) {
        let (path, size, entries) = (self.path(value), self.size(value), self.entries_of(value));
        self.push(name, Local { path, size, entries });
    }

    /// A variable that goes through the keys or the values of a container.
    fn push_round(&mut self, name: &str, range: &Expr, values: bool, single: bool) {
        let entries = self.entries_of(range);
        let list = entries.map_or(matches!(self.ty(range), Type::List(_)), |e| e.list);
        let values = values || (single && list);
        let step = match (values, list) {
            (true, true) => "@items",
            (true, false) => "@values",
            (false, true) => "@indices",
            (false, false) => "@keys",
        };
        let size = entries.map(|e| if values { e.value } else { e.key });
        let path = self.below(range, step);
        self.push(name, Local { path, size, entries: None });
    }

    fn list(&mut self, expr: &Expr, items: &[Item]) -> Range {
        let (mut sum, mut held) = (Range::fixed(0), Range::empty(items.is_empty()));
        for item in items {
            sum = sum.plus(self.cost(&item.value));
            held = held.union(self.size_or_unknown(&item.value));
        }
        self.entries.insert(expr.id, Entries { list: true, key: Range::fixed(1), value: held });
        sum.plus(Range::fixed(charge::LIST))
    }

    fn map(&mut self, expr: &Expr, members: &[Entry]) -> Range {
        let none = Range::empty(members.is_empty());
        let (mut sum, mut key, mut value) = (Range::fixed(0), none, none);
        for member in members {
            sum = sum.plus(self.cost(&member.key)).plus(self.cost(&member.value));
            key = key.union(self.size_or_unknown(&member.key));
            value = value.union(self.size_or_unknown(&member.value));
        }
        self.entries.insert(expr.id, Entries { list: false, key, value });
        sum.plus(Range::fixed(charge::MAP))
    }

    fn comprehension(&mut self, expr: &Expr, of: &Comprehension) -> Range {
        let mut sum = self.cost(&of.range).plus(self.cost(&of.start));
        self.push_value(&of.accumulator, &of.start);
        match &of.second {
            Some(second) => {
                self.push_round(&of.variable, &of.range, false, false);
                self.push_round(second, &of.range, true, false);
            }
            None => self.push_round(&of.variable, &of.range, false, true),
        }
        let (condition, step) = (self.cost(&of.condition), self.cost(&of.step));
        self.pop(&of.variable);
        if let Some(second) = &of.second {
            self.pop(second);
        }
        sum = sum.plus(self.cost(&of.result));
        self.pop(&of.accumulator);
        let count = self.size_or_unknown(&of.range);
        sum = sum.plus(count.times(step.plus(condition)));
        match &of.start.kind {
            Kind::Literal(_) => {
                let size = self.size(&of.start);
                self.set_size(expr.id, size);
            }
            Kind::List(_) | Kind::Map(_) => {
                self.set_size(expr.id, Some(count));
                if let Some(entries) = self.entries_of(&of.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum
    }

    fn set_size(&mut self, id: Id, size: Option<Range>) {
        if let Some(size) = size {
            self.sizes.insert(id, size);
        }
    }

    fn copy_sizes(&mut self, id: Id, from: &Expr) {
        let (size, entries) = (self.size(from), self.entries_of(from));
        self.set_size(id, size);
        self.entries.extend(entries.map(|e| (id, e)));
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    fn size(&mut self, expr: &Expr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        if let Some(size) = written_size(expr) {
            return Some(Range::fixed(size));
        }
        if let Some(size) = self.size_at(&self.path(expr)) {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if self.ty(expr).is_scalar() {
            return Some(Range::fixed(1));
        }
        expr.as_ident().and_then(|name| self.local(name)).and_then(|local| local.size)
    }

    /// The size of what is there in the root, as its limits say.
    fn size_at(&self, path: &[String]) -> Option<Range> {
        let (first, rest) = path.split_first()?;
        if first == ACCUMULATOR && rest.is_empty() {
            return Some(Range { min: 0, max: self.root.max });
        }
        let found = rest.iter().try_fold(self.root, |shape, step| shape.part(step))?;
        Some(Range { min: 0, max: found.max })
    }

    fn entries_of(&self, expr: &Expr) -> Option<Entries> {
        let known = self.entries.get(&expr.id).copied();
        known.or_else(|| expr.as_ident().and_then(|name| self.local(name)).and_then(|local| local.entries))
    }
}

/// The size of what an expression says word by word.
fn written_size(expr: &Expr) -> Option<u64> {
    Some(match &expr.kind {
        Kind::Literal(Literal::String(text)) => text.chars().count() as u64,
        Kind::Literal(Literal::Bytes(bytes)) => bytes.len() as u64,
        Kind::Literal(_) => 1,
        Kind::List(items) => items.len() as u64,
        Kind::Map(entries) => entries.len() as u64,
        _ => return None,
    })
}
