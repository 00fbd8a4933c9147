//! Config maps and secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::at::{At, same};
use super::{Errors, format};

const MAX_BYTES: usize = 1024 * 1024;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";

pub(super) fn config_map(object: &At, old: Option<&At>, errors: &mut Errors) {
    let (data, binary) = (object.get("data"), object.get("binaryData"));
    fixed(object, old, &["data", "binaryData"], errors);
    let mut size = 0;
    for (key, value) in data.entries() {
        for problem in format::config_key(key) {
            value.invalid_value(errors, key, problem);
        }
        if binary.value.get(key).is_some() {
            value.invalid_value(errors, key, "duplicate of key present in binaryData");
        }
        size += value.text().len();
    }
    for (key, value) in binary.entries() {
        for problem in format::config_key(key) {
            value.invalid_value(errors, key, problem);
        }
        size += decoded_length(value.text());
    }
    if size > MAX_BYTES {
        object.too_long(errors, MAX_BYTES);
    }
}

pub(super) fn secret(object: &At, old: Option<&At>, errors: &mut Errors) {
    let data = object.get("data");
    if let Some(old) = old {
        object.get("type").immutable(&old.get("type"), errors);
    }
    fixed(object, old, &["data"], errors);
    let mut size = 0;
    for (key, value) in data.entries() {
        for problem in format::config_key(key) {
            value.invalid_value(errors, key, problem);
        }
        size += decoded_length(value.text());
    }
    if size > MAX_BYTES {
        data.too_long(errors, MAX_BYTES);
    }
    typed_secret(object, &data, errors);
}

/// What the well-known types promise to their readers.
fn typed_secret(object: &At, data: &At, errors: &mut Errors) {
    let keys: &[&str] = match object.str("type") {
        "kubernetes.io/service-account-token" => {
            let annotations = object.get("metadata.annotations");
            annotations.key("kubernetes.io/service-account.name").need(errors);
            &[]
        }
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/basic-auth" if !has(data, "username") && !has(data, "password") => &["username", "password"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    };
    for key in keys {
        let value = data.key(key);
        let empty_key = *key == "ssh-privatekey" && value.text().is_empty();
        if !has(data, key) || empty_key {
            value.required(errors, "");
        } else if key.starts_with(".docker") {
            let bytes = STANDARD.decode(value.text()).unwrap_or_default();
            if let Err(problem) = serde_json::from_slice::<Value>(&bytes) {
                value.invalid_value(errors, "<secret contents redacted>", problem.to_string());
            }
        }
    }
}

/// Whether there is such a key; its value may be empty.
fn has(data: &At, key: &str) -> bool {
    data.value.get(key).is_some()
}

fn decoded_length(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

/// What was stored as immutable stays as it is, and stays immutable.
fn fixed(object: &At, old: Option<&At>, fields: &[&str], errors: &mut Errors) {
    let Some(old) = old.filter(|old| old.get("immutable").is_true()) else { return };
    if !object.get("immutable").is_true() {
        object.get("immutable").forbidden(errors, IMMUTABLE);
    }
    for field in fields {
        if !same(object.get(field).value, old.get(field).value) {
            object.get(field).forbidden(errors, IMMUTABLE);
        }
    }
}
