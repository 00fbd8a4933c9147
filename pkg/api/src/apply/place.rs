//! How values merge: the same view of the field table, of a custom resource's schema, and of values without either.

use serde_json::{Map, Value};

use crate::quantity::Quantity;
use crate::resource::Resource;
use crate::schema::{self, Field, Scalar, Shape};
use crate::structural::{JsonType, ListType, Schema};

/// A place in an object.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Typed {
        shape: Shape,
        /// The field says that its struct or map is owned as a whole.
        atomic: bool,
    },
    Structural(&'a Schema),
    /// The root of a custom resource: metadata is typed, the rest follows the schema if there is one.
    Root(Option<&'a Schema>),
    /// No schema: objects merge by member, lists are atomic.
    Deduced,
}

/// How the value at a place merges.
pub(super) enum Form {
    /// As a whole.
    Leaf,
    /// By member.
    Members,
    /// By item.
    Items,
}

impl<'a> Place<'a> {
    pub fn of(resource: &'a Resource, schema: Option<&'a Schema>) -> Self {
        match resource.ty {
            Some(ty) => Self::Typed { shape: ty.shape(), atomic: false },
            None => Self::Root(schema.or_else(|| resource.custom_schema.as_ref().map(|s| s.schema()))),
        }
    }

    fn field(field: &'static Field) -> Self {
        let of_type = if let Shape::Struct(ty) = field.shape() { ty.map_type } else { "" };
        Self::Typed { shape: field.shape(), atomic: field.map_type == "atomic" || of_type == "atomic" }
    }

    pub fn form(self, value: &Value) -> Form {
        match self {
            Self::Typed { atomic: true, .. } => Form::Leaf,
            Self::Typed { shape, .. } => match shape {
                Shape::Struct(_) | Shape::Map(_) => Form::Members,
                Shape::List(field) if matches!(field.list_type, "map" | "set") => Form::Items,
                Shape::Any => Self::Deduced.form(value),
                _ => Form::Leaf,
            },
            Self::Structural(schema) => match value {
                Value::Object(_) if !schema.map_atomic => Form::Members,
                Value::Array(_) if schema.list_type != ListType::Atomic => Form::Items,
                _ => Form::Leaf,
            },
            Self::Root(_) => Form::Members,
            Self::Deduced => {
                if value.is_object() {
                    Form::Members
                } else {
                    Form::Leaf
                }
            }
        }
    }

    /// Whether lists or maps here are declared to merge as a whole.
    pub fn is_atomic(self) -> bool {
        match self {
            Self::Typed { atomic, .. } => atomic,
            Self::Structural(schema) => match schema.json_type {
                Some(JsonType::Object) => schema.map_atomic,
                Some(JsonType::Array) => schema.list_type == ListType::Atomic,
                _ => false,
            },
            Self::Root(_) | Self::Deduced => false,
        }
    }

    /// The member of that name; `None` where no such member may be.
    pub fn member(self, name: &str) -> Option<Self> {
        match self {
            Self::Typed { shape: Shape::Any, .. } | Self::Deduced => Some(Self::Deduced),
            Self::Typed { shape, .. } => match shape.field(name) {
                Some(field) => Some(Self::field(field)),
                None => shape.member(name).map(|shape| Self::Typed { shape, atomic: false }),
            },
            Self::Structural(schema) => {
                let of_every_object = if schema.embedded_resource { embedded(name) } else { None };
                of_every_object
                    .or_else(|| schema.member(name).map(Self::Structural))
                    .or_else(|| schema.takes_any_member.then_some(Self::Deduced))
            }
            Self::Root(schema) => match embedded(name) {
                Some(place) => Some(place),
                None => match schema {
                    Some(schema) => Self::Structural(schema).member(name),
                    None => Some(Self::Deduced),
                },
            },
        }
    }

    /// Whether a null is a value here, to be judged by the schema.
    pub fn keeps_null(self) -> bool {
        !matches!(self, Self::Typed { .. })
    }

    /// Whether no schema says how values there merge.
    pub fn is_free(self) -> bool {
        matches!(self, Self::Deduced | Self::Typed { shape: Shape::Any, .. })
    }

    /// Whether the member is a declared field, rather than a key of a map.
    pub fn is_field(self, name: &str) -> bool {
        match self {
            Self::Typed { shape, .. } => matches!(shape, Shape::Struct(_)) && shape.member(name).is_some(),
            Self::Structural(schema) => {
                schema.properties.contains_key(name) || (schema.embedded_resource && embedded(name).is_some())
            }
            Self::Root(schema) => embedded(name).is_some() || schema.is_some_and(|s| s.properties.contains_key(name)),
            Self::Deduced => false,
        }
    }

    pub fn item(self) -> Self {
        match self {
            Self::Typed { shape, .. } => Self::Typed { shape: shape.item(), atomic: false },
            Self::Structural(schema) => schema.items.as_deref().map_or(Self::Deduced, Self::Structural),
            Self::Root(_) | Self::Deduced => Self::Deduced,
        }
    }

    /// The name by which an item of the list is known among the others; none when it has no keys.
    pub fn element(self, item: &Value) -> Option<String> {
        match self {
            Self::Typed { shape: Shape::List(field), .. } if field.list_type == "map" => {
                keyed(item, field.list_map_keys.iter().copied(), |key| {
                    field.element().field(key).and_then(|f| f.default.as_ref())
                })
            }
            Self::Structural(Schema { list_type: ListType::Map(keys), items, .. }) => {
                keyed(item, keys.iter().map(String::as_str), |key| items.as_deref()?.member(key)?.default.as_ref())
            }
            _ => Some(format!("v:{item}")),
        }
    }

    /// What an object of the type holds when nobody has set anything.
    pub fn zero(self) -> Value {
        let mut zero = Value::Object(Map::new());
        if let Self::Typed { shape, .. } = self {
            crate::codec::normalize(shape, &mut zero);
            add_null_lists(shape, &mut zero);
        }
        zero
    }

    /// Brings a scalar of an applied configuration to the form in which it is stored.
    pub fn canonical(self, value: &mut Value) {
        let Self::Typed { shape: Shape::Scalar(Scalar::Quantity), .. } = self else { return };
        let text = match &*value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return,
        };
        if let Ok(quantity) = Quantity::parse(&text) {
            *value = quantity.to_string().into();
        }
    }
}

/// Typed clients write lists and maps that are not optional as null: those are there from the beginning, too.
fn add_null_lists(shape: Shape, value: &mut Value) {
    let (Shape::Struct(ty), Value::Object(members)) = (shape, value) else { return };
    for field in ty.fields.iter().filter(|f| (f.repeated || f.is_map()) && !f.omit_empty && !f.inline) {
        members.entry(field.name).or_insert(Value::Null);
    }
    for (name, member) in members.iter_mut() {
        if let Some(shape) = shape.member(name) {
            add_null_lists(shape, member);
        }
    }
}

/// Members that every object has.
fn embedded<'a>(name: &str) -> Option<Place<'a>> {
    let shape = match name {
        "apiVersion" | "kind" => Shape::Scalar(Scalar::String),
        "metadata" => schema::find("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")?.shape(),
        _ => return None,
    };
    Some(Place::Typed { shape, atomic: false })
}

/// The keys that the item has or that have a default.
fn keyed<'k>(
    item: &Value,
    keys: impl Iterator<Item = &'k str>,
    default: impl Fn(&str) -> Option<&'k Value>,
) -> Option<String> {
    let mut named = Map::new();
    for key in keys {
        if let Some(value) = item.get(key).filter(|v| !v.is_null()).or_else(|| default(key)) {
            named.insert(key.to_owned(), value.clone());
        }
    }
    (!named.is_empty()).then(|| format!("k:{}", Value::Object(named)))
}
