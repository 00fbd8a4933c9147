//! Properties that hold for every object of every resource, tried with random ones made from the field table.

#![allow(clippy::unwrap_used)]

use kube1_api::codec::protobuf::ListEncoder;
use kube1_api::codec::{FieldValidation, check_value, encode_canonical, normalize, protobuf};
use kube1_api::default::apply_defaults;
use kube1_api::resource::{Resource, ResourceTable};
use kube1_api::schema::{self, Scalar, Shape};
use kube1_api::table::{self, TableOptions};
use serde_json::{Map, Value, json};

/// A small generator of pseudo-random numbers, the same in every run.
struct Random {
    state: u64,
    /// Leaves are already as the server would write them.
    canonical: bool,
}

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % below
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.next(all.len() as u64) as usize]
    }
}

/// A value of the shape, with few members where it gets deep.
fn value(random: &mut Random, shape: Shape, depth: u64) -> Value {
    match shape {
        Shape::Scalar(scalar) => match scalar {
            Scalar::String => {
                random.pick(&["", "a", "ClusterIP", "Always", "nginx:latest", "LoadBalancer", "ü"]).into()
            }
            Scalar::Bool => (random.next(2) == 0).into(),
            Scalar::Int32 => random.pick(&[0, 1, -1, i32::MAX]).into(),
            Scalar::Int64 => random.pick(&[0, 1, -1, i64::MIN]).into(),
            Scalar::Double => {
                kube1_api::codec::plain_number(random.pick(&[0.0, 1.5, -2.25, 0.1, 123_456.789_012_345_67])).into()
            }
            Scalar::Bytes => random.pick(&["", "YQ=="]).into(),
            Scalar::Quantity if random.canonical => random.pick(&["0", "1500m", "1Gi", "3n", "12e6", "-2"]).into(),
            Scalar::Quantity => random.pick(&["0", "1500m", "1Gi", "0.1", "3n", "1e3", "0.5Mi"]).into(),
            Scalar::Time if random.canonical => "2026-01-02T03:04:05Z".into(),
            Scalar::Time => random.pick(&["2026-01-02T03:04:05Z", "1969-12-31T23:00:00+02:00", ""]).into(),
            Scalar::MicroTime => "2026-01-02T03:04:05.000006Z".into(),
            Scalar::Duration => random.pick(&["1h0m0s", "1.5s"]).into(),
            Scalar::IntOrString => {
                random.pick(&[Some(0), Some(8080), Some(i32::MIN), None]).map_or("http".into(), Value::from)
            }
        },
        Shape::Struct(ty) => {
            let mut members = Map::new();
            for field in ty.fields.iter().filter(|f| !f.inline) {
                if random.next(2 + depth) < 2 && depth < 12 {
                    members.insert(field.name.into(), value(random, field.shape(), depth + 1));
                }
            }
            members.into()
        }
        // Protobuf has no empty list; only where an empty one is left out does it come back the same.
        Shape::List(field) => (0..random.next(3).max(u64::from(!field.omit_empty)))
            .map(|_| value(random, field.element(), depth + 1))
            .collect(),
        Shape::Map(field) => {
            let keys = ["b", "a", "cpu"];
            let some = random.next(3).max(u64::from(!field.omit_empty)) as usize;
            let entries = keys[..some].iter().map(|key| ((*key).into(), value(random, field.element(), depth + 1)));
            entries.collect::<Map<_, _>>().into()
        }
        Shape::Strings => json!(["x"]),
        // A schema is also what any free part may hold.
        Shape::Any if random.next(2) == 0 => json!({"type": "object", "nullable": true, "maxItems": 5}),
        Shape::Any => Value::Null,
    }
}

/// A decoded and defaulted object, as it would be stored.
fn stored(random: &mut Random, row: &Resource) -> Value {
    let object = value(random, row.shape(), 0);
    let decoded = check_value(row, object, FieldValidation::Strict);
    let mut object = decoded.unwrap_or_else(|e| panic!("{}: {}", row.plural, e.message())).value;
    apply_defaults(row, &mut object);
    object
}

#[test]
fn objects_keep_their_meaning() {
    let mut random = Random { state: 0x2545_f491_4f6c_dd1d, canonical: false };
    let table = ResourceTable::builtin();
    for row in table.iter().filter(|r| r.ty.is_some()) {
        let mut list = ListEncoder::new(&row.api_version(), &row.list_kind);
        for _ in 0..40 {
            let object = stored(&mut random, row);
            let mut again = object.clone();
            apply_defaults(row, &mut again);
            assert_same(&again, &object, &format!("defaulting {} twice", row.plural));
            normalize(row.shape(), &mut again);
            assert_same(&again, &object, &format!("normal form of {}", row.plural));
            let checked = check_value(row, object.clone(), FieldValidation::Strict);
            let checked = checked.unwrap_or_else(|e| panic!("{}: {}", row.plural, e.message())).value;
            assert_same(&checked, &object, &format!("checking {} twice", row.plural));
            let bytes = protobuf::encode_object(&object).unwrap_or_else(|| panic!("{} has no protobuf", row.plural));
            if let Some(list) = &mut list {
                let mut item = Vec::new();
                list.message(&mut item, object.to_string().as_bytes());
                assert!(item == message(&bytes), "{} in a list: {object}", row.plural);
            }
            let decoded = protobuf::decode_object(&bytes).unwrap_or_else(|e| panic!("{}: {}", row.plural, e.message()));
            assert_same(&same_kinds(decoded.value), &same_kinds(object), &format!("{} through protobuf", row.plural));
        }
    }
}

/// The message inside an envelope.
fn message(enveloped: &[u8]) -> &[u8] {
    let part = |bytes: &'_ [u8]| {
        let end = 1 + bytes[1..].iter().position(|b| b & 0x80 == 0).unwrap() + 1;
        let length = bytes[1..end].iter().rev().fold(0, |n, b| n << 7 | usize::from(b & 0x7f));
        (end, length)
    };
    let rest = &enveloped[protobuf::MAGIC.len()..];
    let (start, length) = part(rest);
    let rest = &rest[start + length..];
    let (start, length) = part(rest);
    &rest[start..start + length]
}

#[test]
fn every_type_goes_through_protobuf_and_fields_of_the_future_are_skipped() {
    let mut random = Random { state: 0x0123_4567_89ab_cdef, canonical: true };
    let mut types = 0;
    for ty in schema::all().filter(|ty| matches!(ty.shape(), Shape::Struct(_))) {
        // Types that only JSON has.
        if ty.fields.iter().any(|field| field.number == 0) {
            continue;
        }
        types += 1;
        for _ in 0..4 {
            let mut object = value(&mut random, ty.shape(), 5);
            normalize(ty.shape(), &mut object);
            let enveloped = protobuf::encode(ty, "v1", "Any", &object);
            let bytes = message(&enveloped);
            let decoded = protobuf::decode(ty, bytes).unwrap_or_else(|e| panic!("{}: {e}", ty.name));
            assert_same(&same_kinds(decoded.clone()), &same_kinds(object.clone()), ty.name);
            // Field 4000 as a number, as text and as 8 bytes.
            let future =
                [bytes, b"\x80\xfa\x01\x07", b"\x82\xfa\x01\x02hi", b"\x81\xfa\x01\x00\x00\x00\x00\x00\x00\x00\x00"];
            let later = protobuf::decode(ty, &future.concat()).unwrap_or_else(|e| panic!("{}: {e}", ty.name));
            assert_same(&later, &decoded, ty.name);
        }
    }
    // Of 951 in all; the others are JSON only.
    assert!(types > 640, "{types}");
}

/// Fails with the first place where two values differ.
fn assert_same(left: &Value, right: &Value, path: &str) {
    match (left, right) {
        (Value::Object(one), Value::Object(other)) => {
            for key in one.keys().chain(other.keys()) {
                assert_same(&left[key], &right[key], &format!("{path}.{key}"));
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter().zip(other).for_each(|(one, other)| assert_same(one, other, &format!("{path}[]")));
        }
        // A list of names is a message of its own, which is there without any.
        (Value::Array(none), Value::Null) if none.is_empty() && path.ends_with(".verbs") => {}
        // Rules that scale by none are not those that do not say, but never stored.
        (Value::Null, Value::Array(none)) if none.is_empty() && path.ends_with(".policies") => {}
        _ => assert_eq!(left, right, "{path}"),
    }
}

/// Claim templates say their kind in JSON only.
fn same_kinds(mut object: Value) -> Value {
    for claim in object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten() {
        for member in ["apiVersion", "kind"] {
            claim.as_object_mut().and_then(|claim| claim.remove(member));
        }
    }
    object
}

#[test]
fn every_object_can_be_shown() {
    let mut random = Random { state: 0x9e37_79b9_7f4a_7c15, canonical: false };
    let table = ResourceTable::builtin();
    for row in table.iter() {
        for _ in 0..20 {
            let object = stored(&mut random, row);
            let table = table::render(row, &[&object], &json!({}), &TableOptions::default());
            assert!(table["rows"][0]["cells"].is_array());
            let canonical: Value = serde_json::from_slice(&encode_canonical(&object)).unwrap_or_default();
            assert_eq!(canonical, object);
        }
    }
}
