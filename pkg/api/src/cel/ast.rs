//! Expressions as they are parsed.

use std::sync::Arc;

/// Names an expression within its tree.
pub(super) type Id = usize;

#[derive(Clone, Debug)]
pub(super) struct Expr {
    pub id: Id,
    /// How many levels it has.
    pub depth: u32,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Literal(Literal),
    Ident(Arc<str>),
    /// `has(operand.field)` if it is a test.
    Select {
        operand: Box<Expr>,
        field: Arc<str>,
        test: bool,
    },
    Call {
        target: Option<Box<Expr>>,
        function: Arc<str>,
        args: Vec<Expr>,
    },
    List(Vec<Item>),
    Map(Vec<Entry>),
    Struct {
        name: Arc<str>,
        fields: Vec<Field>,
    },
    Comprehension(Box<Comprehension>),
    /// In place of what could not be parsed.
    Broken,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

#[derive(Clone, Debug)]
pub(super) struct Item {
    pub value: Expr,
    pub optional: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub id: Id,
    pub name: Arc<str>,
    pub value: Expr,
    pub optional: bool,
}

/// What macros such as `all` and `map` become.
#[derive(Clone, Debug)]
pub(super) struct Comprehension {
    pub range: Expr,
    /// Of items of lists or keys of maps; of indices or keys if there is a second one.
    pub variable: Arc<str>,
    /// Of items or values.
    pub second: Option<Arc<str>>,
    pub accumulator: Arc<str>,
    pub start: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

impl Comprehension {
    /// Whether it only binds a value to a name.
    pub fn is_bind(&self) -> bool {
        matches!(&self.range.kind, Kind::List(items) if items.is_empty())
            && matches!(self.condition.kind, Kind::Literal(Literal::Bool(false)))
            && &*self.accumulator != ACCUMULATOR
    }
}

/// What macros gather results in; no name that can be written.
pub(super) const ACCUMULATOR: &str = "@result";

impl Expr {
    /// Calls `tell` with every expression directly within this one.
    pub fn each_child<'a>(&'a self, tell: &mut dyn FnMut(&'a Self)) {
        match &self.kind {
            Kind::Literal(_) | Kind::Ident(_) | Kind::Broken => {}
            Kind::Select { operand, .. } => tell(operand),
            Kind::Call { target, args, .. } => target.as_deref().into_iter().chain(args).for_each(tell),
            Kind::List(items) => items.iter().for_each(|i| tell(&i.value)),
            Kind::Map(entries) => entries.iter().for_each(|e| {
                tell(&e.key);
                tell(&e.value);
            }),
            Kind::Struct { fields, .. } => fields.iter().for_each(|f| tell(&f.value)),
            Kind::Comprehension(c) => {
                [&c.range, &c.start, &c.condition, &c.step, &c.result].into_iter().for_each(tell);
            }
        }
    }

    pub fn as_ident(&self) -> Option<&Arc<str>> {
        match &self.kind {
            Kind::Ident(name) => Some(name),
            _ => None,
        }
    }

    /// `a.b.c` as one name.
    pub fn qualified(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select { operand, field, test: false } => operand.qualified().map(|q| format!("{q}.{field}")),
            _ => None,
        }
    }
}
