//! Pod templates: equality as the API means it, and hashes for names.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::Serialize;
use serde_json::Value;

/// Label by which the pods of a Deployment's ReplicaSets are told apart.
pub const HASH_LABEL: &str = "pod-template-hash";

/// Characters of hashes in names: no vowels, so that no words come out.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The value as JSON without nulls and empty parts: two objects are equal to the API if these are.
pub fn normalized(value: &impl Serialize) -> Value {
    // A struct of the API always has a JSON form.
    let mut value = serde_json::to_value(value).unwrap_or(Value::Null);
    prune(&mut value);
    value
}

fn prune(value: &mut Value) {
    let is_empty = |v: &Value| match v {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, v| !is_empty(v));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// Whether two templates make the same pods, whatever hash labels they carry.
pub fn equal_but_hash(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
            labels.remove(HASH_LABEL);
        }
        template
    };
    let (a, b) = (plain(a), plain(b));
    a == b || normalized(&a) == normalized(&b)
}

/// A short hash of `value` that is safe in names; another one for each collision count.
pub fn hash(value: &impl Serialize, collisions: Option<i32>) -> String {
    let mut text = normalized(value).to_string();
    if let Some(collisions) = collisions {
        text.push_str(&collisions.to_string());
    }
    encode(fnv32a(text.as_bytes()))
}

fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn encode(hash: u32) -> String {
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_differ_by_what_they_make_only() {
        let template = |labels: Value, image: &str, extra: Value| -> PodTemplateSpec {
            serde_json::from_value(json!({"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": image, "resources": extra}]}}))
            .unwrap()
        };
        let base = template(json!({"app": "a"}), "i:1", json!({}));
        let hashed = template(json!({"app": "a", HASH_LABEL: "x"}), "i:1", Value::Null);
        assert!(equal_but_hash(&base, &hashed));
        assert!(!equal_but_hash(&base, &template(json!({"app": "a"}), "i:2", json!({}))));
        assert_eq!(hash(&base, None), hash(&base.clone(), None));
        assert_ne!(hash(&base, None), hash(&base, Some(1)));
    }
}
