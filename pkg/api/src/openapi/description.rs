//! What types and fields are for, in words.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::GzDecoder;

/// Descriptions of all types. Unpacked for one document and dropped with it, since documents are asked for seldom.
#[derive(Default)]
pub(super) struct Descriptions(HashMap<String, (String, HashMap<String, String>)>);

impl Descriptions {
    pub(super) fn unpack() -> Self {
        let mut text = String::new();
        let packed: &[u8] = include_bytes!("../data/descriptions.json.gz");
        GzDecoder::new(packed).read_to_string(&mut text).expect("the generated file is valid");
        Self(serde_json::from_str(&text).expect("the generated file is valid"))
    }

    pub(super) fn of_type(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |(own, _)| own)
    }

    pub(super) fn of_field(&self, name: &str, field: &str) -> &str {
        let found = |name: &str| self.0.get(name).and_then(|(_, fields)| fields.get(field)).map(String::as_str);
        match (found(name), field) {
            (Some(text), _) => text,
            // The members that all objects have are described alike everywhere.
            (None, "apiVersion" | "kind" | "metadata") => found(PLAIN_OBJECT).unwrap_or_default(),
            (None, "items") => "The objects of the list.",
            _ => "",
        }
    }

    /// Of a member that every object has.
    pub(super) fn of_member(&self, member: &str) -> &str {
        self.of_field(PLAIN_OBJECT, member)
    }
}

const PLAIN_OBJECT: &str = "io.k8s.api.core.v1.ConfigMap";
