//! The field table of the built-in types.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use crate::name::split_api_version;

static TYPES: LazyLock<Types> = LazyLock::new(Types::load);

struct Types {
    list: Vec<Type>,
    by_name: HashMap<&'static str, u16>,
}

/// A message type: a struct of fields, or something with a JSON form of its own.
#[derive(Debug, Deserialize)]
pub struct Type {
    #[serde(rename = "n")]
    pub name: &'static str,
    /// Custom JSON form; empty for ordinary structs.
    #[serde(rename = "e", default)]
    encoding: &'static str,
    /// apiVersion and kind are members in JSON.
    #[serde(rename = "m", default)]
    pub type_meta: bool,
    #[serde(rename = "mt", default)]
    pub map_type: &'static str,
    /// In rising order of protobuf number.
    #[serde(rename = "f", default)]
    pub fields: Vec<Field>,
    /// Positions of the fields in the order that their members have in JSON, unless it is this one.
    #[serde(rename = "jo", default)]
    json_order: Vec<u16>,
    /// Positions of the fields in the order of their names, each with its place in JSON.
    #[serde(skip)]
    by_name: Vec<(u16, u16)>,
    #[serde(skip)]
    index: u16,
}

/// A field of a struct.
#[derive(Debug, Deserialize)]
pub struct Field {
    #[serde(rename = "n")]
    pub name: &'static str,
    #[serde(rename = "i", default)]
    pub number: u32,
    #[serde(rename = "t", default)]
    pub proto: &'static str,
    #[serde(rename = "r", default)]
    pub reference: &'static str,
    #[serde(rename = "l", default)]
    pub repeated: bool,
    #[serde(rename = "k", default)]
    map_key: &'static str,
    /// Inline messages that lead to this JSON member, outermost first.
    #[serde(rename = "v", default)]
    pub via: Vec<&'static str>,
    /// The message's members are the parent's in JSON.
    #[serde(rename = "in", default)]
    pub inline: bool,
    #[serde(rename = "p", default)]
    pub pointer: bool,
    #[serde(rename = "q", default)]
    pub required: bool,
    #[serde(rename = "o", default)]
    pub omit_empty: bool,
    #[serde(rename = "z", default)]
    pub omit_zero: bool,
    #[serde(rename = "lt", default)]
    pub list_type: &'static str,
    #[serde(rename = "lk", default)]
    pub list_map_keys: Vec<&'static str>,
    #[serde(rename = "mt", default)]
    pub map_type: &'static str,
    #[serde(rename = "ps", default)]
    patch_strategy: &'static str,
    #[serde(rename = "pk", default)]
    pub patch_merge_key: &'static str,
    #[serde(rename = "d", default)]
    pub default: Option<Value>,
    #[serde(rename = "en", default)]
    pub values: Vec<&'static str>,
    #[serde(rename = "ie", default)]
    pub item_values: Vec<&'static str>,
    /// What `proto` and `reference` mean.
    #[serde(skip)]
    target: Target,
}

#[derive(Clone, Copy, Debug, Default)]
enum Target {
    #[default]
    Unknown,
    Scalar(Scalar),
    /// Position of the type in the table.
    Type(u16),
}

/// JSON forms of leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    Bytes,
    Quantity,
    Time,
    MicroTime,
    Duration,
    IntOrString,
}

/// A cheap view of what a value may look like.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Scalar(Scalar),
    Struct(&'static Type),
    /// A list; the field tells how it merges.
    List(&'static Field),
    Map(&'static Field),
    /// A list of strings with no field of its own (map values).
    Strings,
    /// Anything, kept as it is.
    Any,
}

impl Types {
    fn load() -> Self {
        let mut list: Vec<Type> =
            serde_json::from_str(include_str!("data/types.json")).expect("the generated table is valid");
        let by_name: HashMap<_, _> = list.iter().enumerate().map(|(i, t)| (t.name, i as u16)).collect();
        for (index, ty) in list.iter_mut().enumerate() {
            ty.index = index as u16;
            for field in &mut ty.fields {
                field.target = Target::of(field, &by_name);
            }
            ty.by_name = (0..ty.fields.len() as u16).map(|index| (index, index)).collect();
            for (place, index) in std::mem::take(&mut ty.json_order).into_iter().enumerate() {
                ty.by_name[usize::from(index)].1 = place as u16;
            }
            let fields = &ty.fields;
            ty.by_name.sort_unstable_by_key(|(index, _)| fields[usize::from(*index)].name);
        }
        Self { list, by_name }
    }
}

/// A type by its full name.
pub fn find(name: &str) -> Option<&'static Type> {
    TYPES.by_name.get(name).map(|i| &TYPES.list[usize::from(*i)])
}

/// The type of an apiVersion and kind, also of lists, options and other kinds that no resource has.
pub fn by_kind(api_version: &str, kind: &str) -> Option<&'static Type> {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
    let (group, version) = split_api_version(api_version);
    // What clients of before v1 ask views by is the same in v1.
    let version = if (group, version) == ("meta.k8s.io", "v1beta1") { "v1" } else { version };
    let package = match group {
        "" => "io.k8s.api.core".to_owned(),
        "meta.k8s.io" => "io.k8s.apimachinery.pkg.apis.meta".to_owned(),
        "apiextensions.k8s.io" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions".to_owned(),
        "metrics.k8s.io" => "io.k8s.metrics.pkg.apis.metrics".to_owned(),
        "apiregistration.k8s.io" => "io.k8s.kube-aggregator.pkg.apis.apiregistration".to_owned(),
        _ => format!("io.k8s.api.{}", group.split('.').next().unwrap_or(group)),
    };
    // Names of other groups may begin alike: only those of Kubernetes are in the table.
    let ours = !group.contains('.') || group.ends_with(".k8s.io");
    let of_group = || find(&format!("{package}.{version}.{kind}")).filter(|ty| ours && ty.type_meta);
    // What `/api` and `/api/v1` answer are the objects that name no version.
    let unversioned = version.is_empty() && matches!(kind, "APIVersions" | "APIResourceList");
    let is_shared = version == "v1" || kind.ends_with("Options") || unversioned;
    let shared = || is_shared.then(|| find(&format!("{META}.{kind}"))).flatten();
    of_group().or_else(|| shared().filter(|ty| ours && ty.type_meta))
}

/// Every type.
pub fn all() -> impl Iterator<Item = &'static Type> {
    TYPES.list.iter()
}

impl Type {
    /// A member by its JSON name.
    pub fn field(&'static self, name: &str) -> Option<&'static Field> {
        self.placed_field(name).map(|(_, field)| field)
    }

    /// A member by its JSON name, with its place among the members in JSON.
    pub fn placed_field(&'static self, name: &str) -> Option<(u16, &'static Field)> {
        let at = self.by_name.binary_search_by_key(&name, |(index, _)| self.fields[usize::from(*index)].name).ok()?;
        let (index, place) = self.by_name[at];
        Some((place, &self.fields[usize::from(index)])).filter(|(_, field)| !field.inline)
    }

    /// Its position among [`all`].
    pub fn index(&self) -> usize {
        self.index.into()
    }

    pub fn encoding(&self) -> &'static str {
        self.encoding
    }

    pub fn shape(&'static self) -> Shape {
        match self.encoding {
            "" => Shape::Struct(self),
            "quantity" => Shape::Scalar(Scalar::Quantity),
            "time" => Shape::Scalar(Scalar::Time),
            "microtime" => Shape::Scalar(Scalar::MicroTime),
            "duration" => Shape::Scalar(Scalar::Duration),
            "intorstring" => Shape::Scalar(Scalar::IntOrString),
            "list" => Shape::Strings,
            _ => Shape::Any,
        }
    }
}

impl Target {
    fn of(field: &Field, types: &HashMap<&str, u16>) -> Self {
        Self::Scalar(match field.proto {
            "string" => Scalar::String,
            "bool" => Scalar::Bool,
            "int32" => Scalar::Int32,
            "int64" => Scalar::Int64,
            "double" => Scalar::Double,
            "bytes" => Scalar::Bytes,
            _ => return types.get(field.reference).map_or(Self::Unknown, |index| Self::Type(*index)),
        })
    }
}

impl Field {
    pub fn shape(&'static self) -> Shape {
        if self.repeated {
            Shape::List(self)
        } else if self.is_map() {
            Shape::Map(self)
        } else {
            self.element()
        }
    }

    /// Shape of an item of the list, of a value of the map, or of the field itself.
    pub fn element(&'static self) -> Shape {
        match self.target {
            Target::Scalar(scalar) => Shape::Scalar(scalar),
            _ => self.target().map_or(Shape::Any, Type::shape),
        }
    }

    /// The type of the message, item or map value.
    pub fn target(&self) -> Option<&'static Type> {
        match self.target {
            Target::Type(index) => Some(&TYPES.list[usize::from(index)]),
            _ => None,
        }
    }

    pub fn is_map(&self) -> bool {
        !self.map_key.is_empty()
    }

    /// Whether strategic merge merges this list or struct rather than replacing it.
    pub fn merges(&self) -> bool {
        self.patch_strategy.split(',').any(|s| s == "merge")
    }

    /// Whether strategic merge replaces this struct whole.
    pub fn replaces(&self) -> bool {
        self.patch_strategy.split(',').any(|s| s == "replace")
    }

    /// The strategy as clients are told it: `merge`, `retainKeys`, both, or nothing.
    pub fn patch_strategy(&self) -> &'static str {
        self.patch_strategy
    }

    pub fn retains_keys(&self) -> bool {
        self.patch_strategy.split(',').any(|s| s == "retainKeys")
    }
}

impl Shape {
    /// The shape of a member; `None` when it is unknown.
    pub fn member(self, name: &str) -> Option<Shape> {
        match self {
            Self::Struct(ty) => match ty.field(name) {
                Some(field) => Some(field.shape()),
                None if ty.type_meta && matches!(name, "apiVersion" | "kind") => Some(Self::Scalar(Scalar::String)),
                None => None,
            },
            Self::Map(field) => Some(field.element()),
            Self::Any => Some(Self::Any),
            _ => None,
        }
    }

    /// The field of a struct's member.
    pub fn field(self, name: &str) -> Option<&'static Field> {
        if let Self::Struct(ty) = self { ty.field(name) } else { None }
    }

    pub fn item(self) -> Shape {
        match self {
            Self::List(field) => field.element(),
            Self::Strings => Self::Scalar(Scalar::String),
            _ => Self::Any,
        }
    }
}

#[cfg(test)]
mod tests;
