//! Metadata that belongs to the server.

use jiff::Timestamp;
use rand::seq::IndexedRandom;
use serde_json::Value;

use super::{remove, set, time_text};

const SUFFIX_CHARACTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
const LONGEST_BASE: usize = 58;

/// Drops what only the server may set. First step of a create, before admission.
pub fn wipe_system_fields(object: &mut Value) {
    for member in ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        remove(&mut object["metadata"], member);
    }
}

/// Sets uid and creationTimestamp, and makes the name where only generateName is given.
pub fn fill_system_fields(object: &mut Value, now: Timestamp) {
    let metadata = &mut object["metadata"];
    metadata["uid"] = uuid::Uuid::new_v4().to_string().into();
    metadata["creationTimestamp"] = time_text(now).into();
    let base = metadata["generateName"].as_str().unwrap_or_default();
    if metadata["name"].as_str().unwrap_or_default().is_empty() && !base.is_empty() {
        metadata["name"] = generate_name(base).into();
    }
}

/// A name that begins with `base` and ends randomly.
pub fn generate_name(base: &str) -> String {
    let mut random = rand::rng();
    let suffix = (0..SUFFIX_LENGTH).filter_map(|_| SUFFIX_CHARACTERS.choose(&mut random)).map(|b| char::from(*b));
    base.chars().take(LONGEST_BASE).chain(suffix).collect()
}

/// Puts back what an update may not touch.
pub(super) fn restore(new: &mut Value, old: &Value) {
    let old = &old["metadata"];
    for member in ["generation", "creationTimestamp"] {
        set(new, &["metadata", member], old[member].clone());
    }
    // Where these were not set, nobody but a deletion sets them.
    for member in ["deletionTimestamp", "deletionGracePeriodSeconds"].into_iter().filter(|m| !old[*m].is_null()) {
        set(new, &["metadata", member], old[member].clone());
    }
    remove(&mut new["metadata"], "selfLink");
    if new["metadata"]["uid"].as_str().unwrap_or_default().is_empty() {
        set(new, &["metadata", "uid"], old["uid"].clone());
    }
}
