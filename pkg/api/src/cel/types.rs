//! Types of CEL expressions, and how they relate.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// What an expression gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Known only when it runs.
    Dyn,
    /// Of what is wrong already; agrees with everything.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    Optional(Arc<Type>),
    /// A type whose values have no fields.
    Opaque(Arc<str>),
    /// A type with fields, which the environment knows by name.
    Struct(Arc<str>),
    /// Stands for another type.
    Param(Arc<str>),
    /// The type of types.
    Type(Option<Arc<Type>>),
}

impl Type {
    pub fn list(of: Self) -> Self {
        Self::List(Arc::new(of))
    }

    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    pub fn optional(of: Self) -> Self {
        Self::Optional(Arc::new(of))
    }

    pub fn object(name: &str) -> Self {
        Self::Struct(name.into())
    }

    pub(super) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }

    pub(super) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// What an optional holds, and whether it is one.
    pub(super) fn unwrapped(&self) -> (&Self, bool) {
        match self {
            Self::Optional(of) => (of, true),
            other => (other, false),
        }
    }

    /// Whether values of the type have the size 1 whatever they are.
    pub(super) fn is_scalar(&self) -> bool {
        match self {
            Self::Bool | Self::Double | Self::Duration | Self::Int | Self::Timestamp | Self::Uint => true,
            Self::Optional(of) => of.is_scalar(),
            _ => false,
        }
    }

    fn parts(&self) -> Vec<&Self> {
        match self {
            Self::List(of) | Self::Optional(of) | Self::Type(Some(of)) => vec![of],
            Self::Map(of) => vec![&of.0, &of.1],
            _ => Vec::new(),
        }
    }

    /// The name that `type()` and complaints about a result show.
    pub fn runtime_name(&self) -> String {
        match self {
            Self::Null => "null_type".into(),
            Self::Timestamp => "google.protobuf.Timestamp".into(),
            Self::Duration => "google.protobuf.Duration".into(),
            Self::Type(_) => "type".into(),
            Self::List(_) => "list".into(),
            Self::Map(_) => "map".into(),
            Self::Optional(_) => "optional_type".into(),
            other => other.to_string(),
        }
    }

    /// As complaints about the type of a whole expression show it.
    pub fn declared(&self) -> String {
        let parts = self.parts();
        if parts.is_empty() || matches!(self, Self::Type(_)) {
            return self.runtime_name();
        }
        let inner: Vec<String> = parts.into_iter().map(Self::declared).collect();
        format!("{}({})", self.runtime_name(), inner.join(", "))
    }

    /// Reads a type as function signatures write it: `list(int)`, `map(string, A)`, `net.IP`, `kubernetes.URL`.
    /// Single capital letters stand for any type.
    pub(super) fn read(text: &str) -> Self {
        let text = text.trim();
        if let Some((name, inner)) = text.strip_suffix(')').and_then(|t| t.split_once('(')) {
            return match name {
                "list" => Self::list(Self::read(inner)),
                "optional" => Self::optional(Self::read(inner)),
                "type" => Self::Type(Some(Arc::new(Self::read(inner)))),
                _ => {
                    let mut parts = split_arguments(inner).into_iter().map(Self::read);
                    Self::map(parts.next().unwrap_or(Self::Dyn), parts.next().unwrap_or(Self::Dyn))
                }
            };
        }
        match text {
            "dyn" => Self::Dyn,
            "null" => Self::Null,
            "bool" => Self::Bool,
            "int" => Self::Int,
            "uint" => Self::Uint,
            "double" => Self::Double,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "timestamp" => Self::Timestamp,
            "duration" => Self::Duration,
            "type" => Self::Type(None),
            name if name.len() == 1 => Self::Param(name.into()),
            name if name.starts_with("net.") => Self::Opaque(name.into()),
            name => Self::Struct(name.into()),
        }
    }
}

/// Parts between the commas that are in no brackets.
pub(super) fn split_arguments(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        parts.push(&text[start..]);
    }
    parts
}

impl fmt::Display for Type {
    /// As the messages of the type checker show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Dyn => "dyn",
            Self::Error => "!error!",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Opaque(name) | Self::Struct(name) | Self::Param(name) => name,
            Self::Type(_) => "type",
        };
        f.write_str(name)?;
        for (index, part) in self.parts().into_iter().enumerate() {
            write!(f, "{}{part}", if index == 0 { "(" } else { ", " })?;
        }
        if self.parts().is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

/// What type parameters stand for.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    of: HashMap<Arc<str>, Type>,
}

impl Mapping {
    /// Whether a value of `b` may be where one of `a` is asked for. What that says about parameters is kept if so.
    pub fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        self.all_assignable(&[(a, b)])
    }

    /// Like `assignable` for several at once.
    pub fn all_assignable(&mut self, pairs: &[(&Type, &Type)]) -> bool {
        let mut tried = self.clone();
        let holds = pairs.iter().all(|(a, b)| tried.agree(a, b));
        if holds {
            *self = tried;
        }
        holds
    }

    fn agree(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Param(name) = b {
            match self.substitute_for(name, b, a) {
                (true, _) => return true,
                (false, true) => return false,
                _ => {}
            }
        }
        if let Type::Param(name) = a {
            return self.substitute_for(name, a, b).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null | Type::Optional(_) | Type::Opaque(_) | Type::Struct(_) | Type::Duration | Type::Timestamp
            ),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.agree(a, b),
            (Type::Map(a), Type::Map(b)) => self.agree(&a.0, &b.0) && self.agree(&a.1, &b.1),
            _ => a == b,
        }
    }

    /// Whether the parameter may stand for the type, and whether it stood for one already.
    fn substitute_for(&mut self, name: &Arc<str>, param: &Type, stands_for: &Type) -> (bool, bool) {
        if param == stands_for {
            return (true, true);
        }
        if let Some(known) = self.of.get(name).cloned() {
            if known == *stands_for {
                return (true, true);
            }
            if self.agree(stands_for, &known) {
                let general = most_general(stands_for, &known);
                if !self.refers(name, &general) {
                    self.of.insert(name.clone(), general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.refers(name, stands_for) {
            return (false, false);
        }
        self.of.insert(name.clone(), stands_for.clone());
        (true, false)
    }

    /// Whether the parameter is within the type.
    fn refers(&self, name: &Arc<str>, within: &Type) -> bool {
        match within {
            Type::Param(other) if other == name => true,
            Type::Param(other) => self.of.get(other).is_some_and(|t| self.refers(name, t)),
            other => other.parts().into_iter().any(|p| self.refers(name, p)),
        }
    }

    /// The type with parameters replaced; those that stand for nothing become dyn if asked for.
    pub fn substitute(&self, of: &Type, to_dyn: bool) -> Type {
        match of {
            Type::Param(name) => match self.of.get(name) {
                Some(known) => self.substitute(known, to_dyn),
                None if to_dyn => Type::Dyn,
                None => of.clone(),
            },
            Type::List(of) => Type::list(self.substitute(of, to_dyn)),
            Type::Optional(of) => Type::optional(self.substitute(of, to_dyn)),
            Type::Map(of) => Type::map(self.substitute(&of.0, to_dyn), self.substitute(&of.1, to_dyn)),
            Type::Type(Some(of)) => Type::Type(Some(Arc::new(self.substitute(of, to_dyn)))),
            other => other.clone(),
        }
    }

    pub fn set(&mut self, name: &Arc<str>, stands_for: Type) {
        self.of.insert(name.clone(), stands_for);
    }
}

/// The one of two types that agree which says less.
pub(super) fn most_general(a: &Type, b: &Type) -> Type {
    if less_specific(a, b) { a.clone() } else { b.clone() }
}

fn less_specific(a: &Type, b: &Type) -> bool {
    if a.is_dyn() || matches!(a, Type::Param(_)) {
        return true;
    }
    if b.is_dyn() || matches!(b, Type::Param(_)) {
        return false;
    }
    match (a, b) {
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => less_specific(a, b),
        (Type::Map(a), Type::Map(b)) => less_specific(&a.0, &b.0) && less_specific(&a.1, &b.1),
        (Type::Type(_), Type::Type(_)) => true,
        _ => a == b,
    }
}
