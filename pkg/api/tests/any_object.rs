//! Properties that hold for every object of every resource, tried with random ones made from the field table.

use kube1_api::codec::{FieldValidation, check_value, encode_canonical, normalize, protobuf};
use kube1_api::default::apply_defaults;
use kube1_api::resource::{Resource, ResourceTable};
use kube1_api::schema::{Scalar, Shape};
use kube1_api::table::{self, TableOptions};
use serde_json::{Map, Value, json};

/// A small generator of pseudo-random numbers, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
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
            Scalar::Double => random.pick(&[0.0, 1.5, -2.25]).into(),
            Scalar::Bytes => random.pick(&["", "YQ=="]).into(),
            Scalar::Quantity => random.pick(&["0", "1500m", "1Gi", "0.1", "3n"]).into(),
            Scalar::Time => random.pick(&["2026-01-02T03:04:05Z", "1969-12-31T23:00:00+02:00"]).into(),
            Scalar::MicroTime => "2026-01-02T03:04:05.000006Z".into(),
            Scalar::Duration => random.pick(&["1h0m0s", "1.5s"]).into(),
            Scalar::IntOrString => random.pick(&[json!(0).as_i64(), Some(8080)]).map_or("http".into(), Value::from),
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
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let table = ResourceTable::builtin();
    for row in table.iter().filter(|r| r.ty.is_some()) {
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
            let decoded = protobuf::decode_object(&bytes).unwrap_or_else(|e| panic!("{}: {}", row.plural, e.message()));
            assert_same(&same_kinds(decoded.value), &same_kinds(object), &format!("{} through protobuf", row.plural));
        }
    }
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
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
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
