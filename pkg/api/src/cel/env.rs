//! What an expression may refer to.

use std::collections::HashMap;
use std::sync::Arc;

use super::shape::{ObjectShape, Shape};
use super::types::Type;

/// The type of the variable `variables`.
pub(super) const VARIABLES: &str = "kubernetes.variables";

/// Types with fields that Kubernetes' own functions give; their fields are not seen.
const CLOSED: [&str; 9] = [
    "kubernetes.URL",
    "kubernetes.Quantity",
    "kubernetes.Semver",
    "kubernetes.NamedFormat",
    "kubernetes.authorization.Authorizer",
    "kubernetes.authorization.PathCheck",
    "kubernetes.authorization.GroupCheck",
    "kubernetes.authorization.ResourceCheck",
    "kubernetes.authorization.Decision",
];

/// Variables and types.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: Vec<(Arc<str>, Type)>,
    objects: HashMap<Arc<str>, Arc<ObjectShape>>,
    composed: Option<Vec<(String, Type)>>,
    /// Whether `Object{}`, `JSONPatch{}` and `jsonpatch.escapeKey` are there.
    patches: bool,
    /// Whether there is the macro `cel.bind`.
    binds: bool,
}

impl Env {
    #[must_use]
    pub fn with(mut self, name: &str, ty: Type) -> Self {
        self.variables.push((name.into(), ty));
        self
    }

    /// A variable of this shape, and the types in it.
    #[must_use]
    pub fn with_shape(mut self, name: &str, shape: &Shape) -> Self {
        self.add_types(shape);
        self.with(name, shape.ty())
    }

    /// The types in the shape.
    pub fn add_types(&mut self, shape: &Shape) {
        shape.each_object(&mut |object| {
            self.objects.insert(object.name.clone(), object.clone());
        });
    }

    /// The variable `variables`, which has no members yet.
    #[must_use]
    pub fn composing(mut self) -> Self {
        self.composed = Some(Vec::new());
        self.with("variables", Type::object(VARIABLES))
    }

    /// The other environment with the members of `variables` of this one.
    pub fn share_composed(&self, mut other: Self) -> Self {
        other.composed.clone_from(&self.composed);
        other
    }

    /// One more member of `variables`.
    pub fn compose(&mut self, name: &str, ty: Type) {
        self.composed.get_or_insert_default().push((name.to_owned(), ty));
    }

    #[must_use]
    pub fn patching(mut self) -> Self {
        self.patches = true;
        self
    }

    /// The same with the macro `cel.bind`.
    #[must_use]
    pub fn binding(mut self) -> Self {
        self.binds = true;
        self
    }

    pub(super) fn binds(&self) -> bool {
        self.binds
    }

    pub(super) fn has_function(&self, name: &str) -> bool {
        self.patches || name != "jsonpatch.escapeKey"
    }

    /// The type of a name: of a variable, or of the type of this name.
    pub(super) fn resolve(&self, name: &str) -> Option<Named> {
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some((_, ty)) = self.variables.iter().rev().find(|(known, _)| **known == *name) {
            return Some(Named::Variable(ty.clone()));
        }
        // What functions give has types that cannot be named.
        self.type_of(name).filter(|_| !CLOSED.contains(&name)).map(Named::Type)
    }

    /// The type of this name.
    pub(super) fn type_of(&self, name: &str) -> Option<Type> {
        let name = name.strip_prefix('.').unwrap_or(name);
        Some(match name {
            "bool" => Type::Bool,
            "bytes" => Type::Bytes,
            "double" => Type::Double,
            "dyn" => Type::Dyn,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "string" => Type::String,
            "null_type" => Type::Null,
            "type" => Type::Type(None),
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "optional_type" => Type::optional(Type::Dyn),
            "google.protobuf.Timestamp" => Type::Timestamp,
            "google.protobuf.Duration" => Type::Duration,
            "net.IP" | "net.CIDR" => Type::Opaque(name.into()),
            _ if CLOSED.contains(&name) || self.objects.contains_key(name) || self.is_patch_type(name) => {
                Type::object(name)
            }
            _ => return None,
        })
    }

    fn is_patch_type(&self, name: &str) -> bool {
        self.patches && (name == "Object" || name == "JSONPatch" || name.starts_with("Object."))
    }

    /// The type of a field; none where there is no such field. The error says that there is no such type.
    pub(super) fn field(&self, of: &str, field: &str) -> Result<Option<Type>, ()> {
        if of == VARIABLES {
            let composed = self.composed.as_deref().unwrap_or_default();
            return Ok(composed.iter().rev().find(|(name, _)| name == field).map(|(_, ty)| ty.clone()));
        }
        if self.is_patch_type(of) {
            return Ok(match (of, field) {
                ("JSONPatch", "op" | "path" | "from") => Some(Type::String),
                ("JSONPatch", "value") => Some(Type::Dyn),
                ("JSONPatch", _) => None,
                _ => Some(Type::Dyn),
            });
        }
        match self.objects.get(of) {
            Some(object) => Ok(object.field(field).map(|f| f.shape.ty())),
            None if CLOSED.contains(&of) => Ok(None),
            None => Err(()),
        }
    }
}

pub(super) enum Named {
    Variable(Type),
    Type(Type),
}
