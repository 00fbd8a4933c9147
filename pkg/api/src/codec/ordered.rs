//! JSON with its members in the order in which upstream's types declare them; members of maps and of custom objects by name.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;
use smallvec::SmallVec;

use super::number::{write_compact, write_pretty};
use crate::schema::{self, Shape, Type};

/// Members of the documents that the field table does not have, at every depth.
const TABLE: &[&str] = &[
    "kind",
    "apiVersion",
    "metadata",
    "resourceVersion",
    "continue",
    "remainingItemCount",
    "columnDefinitions",
    "rows",
    "name",
    "type",
    "format",
    "description",
    "priority",
    "status",
    "reason",
    "message",
    "cells",
    "conditions",
    "object",
];
const JSON_SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// Compact JSON.
pub fn write_json(out: &mut Vec<u8>, value: &Value) {
    write_compact(out, &Ordered { value, order: Order::of(value) });
}

/// JSON for people.
pub fn write_pretty_json(out: &mut Vec<u8>, value: &Value) {
    write_pretty(out, &Ordered { value, order: Order::of(value) });
}

/// Compact JSON of a document whose members have this order, at every depth; others follow by name.
pub fn write_json_as(out: &mut Vec<u8>, value: &Value, names: &[&str]) {
    write_compact(out, &Ordered { value, order: Order::Listed(names) });
}

/// As [`write_json_as`], for people.
pub fn write_pretty_json_as(out: &mut Vec<u8>, value: &Value, names: &[&str]) {
    write_pretty(out, &Ordered { value, order: Order::Listed(names) });
}

/// What says in which order members come.
#[derive(Clone, Copy)]
enum Order<'o> {
    Typed(Shape),
    Listed(&'o [&'o str]),
    ByName,
}

struct Ordered<'a, 'o> {
    value: &'a Value,
    order: Order<'o>,
}

impl<'o> Order<'o> {
    /// By what an object says it is.
    fn of(value: &Value) -> Self {
        let member = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = member("kind");
        if kind.is_empty() {
            return Self::ByName;
        }
        match schema::by_kind(member("apiVersion"), kind) {
            Some(ty) => Self::Typed(Shape::Struct(ty)),
            None if kind == "Table" && member("apiVersion").starts_with("meta.k8s.io/") => Self::Listed(TABLE),
            None => Self::ByName,
        }
    }

    /// The place of a member, and the order of its own members.
    fn member(self, name: &str, value: &Value) -> (u16, Self) {
        match self {
            Self::Typed(Shape::Struct(ty)) => match ty.placed_field(name) {
                Some((place, field)) => (place + 2, Self::of_shape(field.shape(), field.target())),
                None if ty.type_meta && name == "kind" => (0, Self::ByName),
                None if ty.type_meta && name == "apiVersion" => (1, Self::ByName),
                None => (u16::MAX, Self::ByName),
            },
            Self::Typed(Shape::Map(field)) => (0, Self::of_shape(field.element(), field.target())),
            Self::Listed(_) if name == "object" => (u16::MAX, Self::of(value)),
            Self::Listed(names) => (names.iter().position(|n| *n == name).map_or(u16::MAX, |p| p as u16), self),
            Self::Typed(_) | Self::ByName => (0, Self::ByName),
        }
    }

    fn item(self) -> Self {
        match self {
            Self::Typed(Shape::List(field)) => Self::of_shape(field.element(), field.target()),
            // Schemas in a list where one may stand alone.
            Self::Typed(Shape::Struct(_)) | Self::Listed(_) => self,
            _ => Self::ByName,
        }
    }

    fn of_shape(shape: Shape, target: Option<&'static Type>) -> Self {
        match shape {
            Shape::Any if target.is_some_and(|ty| ty.encoding().starts_with("schemaOr")) => {
                schema::find(JSON_SCHEMA).map_or(Self::ByName, |ty| Self::Typed(Shape::Struct(ty)))
            }
            shape => Self::Typed(shape),
        }
    }
}

impl Serialize for Ordered<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let order = match self.order {
            Order::Typed(Shape::Any) => Order::of(self.value),
            order => order,
        };
        match self.value {
            value @ (Value::Object(_) | Value::Array(_)) if matches!(order, Order::ByName) => {
                value.serialize(serializer)
            }
            Value::Object(members) => {
                let mut sorted: SmallVec<[(u16, &String, Ordered); 16]> = SmallVec::new();
                for (name, value) in members {
                    let (place, order) = order.member(name, value);
                    sorted.push((place, name, Ordered { value, order }));
                }
                // Those of one place stay in the order of their names.
                if !matches!(order, Order::Typed(Shape::Map(_))) {
                    sorted.sort_by_key(|(place, ..)| *place);
                }
                let mut map = serializer.serialize_map(Some(sorted.len()))?;
                for (_, name, value) in &sorted {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
            Value::Array(items) => {
                let order = order.item();
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for value in items {
                    list.serialize_element(&Ordered { value, order })?;
                }
                list.end()
            }
            scalar => scalar.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let mut out = Vec::new();
        write_json(&mut out, &value);
        String::from_utf8(out).unwrap_or_default()
    }

    #[test]
    fn members_come_as_upstream_declares_them() {
        for text in [
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","namespace":"n","uid":"u","resourceVersion":"1","creationTimestamp":null,"labels":{"a":"1","b":"2"},"managedFields":[{"manager":"m","operation":"Update","apiVersion":"v1","time":null,"fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{},"f:spec":{}}}]},"spec":{"volumes":[{"name":"v","emptyDir":{"medium":"","sizeLimit":"1"}}],"initContainers":[],"containers":[{"name":"c","image":"i","env":[{"name":"A","valueFrom":{"configMapKeyRef":{"name":"m","key":"k","optional":true}}}],"resources":{"limits":{"cpu":"1"},"requests":{"cpu":"1"}},"livenessProbe":{"exec":{},"timeoutSeconds":1},"imagePullPolicy":"Always"}],"restartPolicy":"Always","hostNetwork":true},"status":{"phase":"Running","podIP":"1"}}"#,
            r#"{"kind":"PersistentVolume","apiVersion":"v1","spec":{"capacity":{"storage":"1"},"hostPath":{"path":"p","type":""},"accessModes":[],"volumeMode":"Block"}}"#,
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"m","reason":"NotFound","details":{"name":"n","kind":"k","causes":[{"reason":"r","message":"m","field":"f"}]},"code":404}"#,
            r#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"1","continue":"c"},"columnDefinitions":[{"name":"Name","type":"string","format":"name","description":"d","priority":0}],"rows":[{"cells":["a"],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a","annotations":{}}}}]}"#,
            r#"{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1","spec":{"group":"g","versions":[{"name":"v1","schema":{"openAPIV3Schema":{"type":"object","properties":{"a":{"type":"array","items":{"type":"string","maxLength":1}}}}}}]}}"#,
            r#"{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":[{"clientCIDR":"0.0.0.0/0","serverAddress":"a"}]}"#,
            r#"{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"v1","resources":[{"name":"a","singularName":"","namespaced":true,"kind":"A","verbs":["get"],"shortNames":["x"],"categories":["all"],"storageVersionHash":"h"}]}"#,
            r#"{"apiVersion":"example.com/v1","data":1,"kind":"Foo","metadata":{"labels":{},"name":"a"}}"#,
        ] {
            assert_eq!(written(text), text);
        }
    }
}
