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
        match self.0.get(name).and_then(|(_, fields)| fields.get(field)) {
            Some(text) => text,
            None => generic(field),
        }
    }
}

/// Fields that many types have and that mean the same everywhere.
fn generic(field: &str) -> &'static str {
    match field {
        "apiVersion" => "The group and version of the API that this object is written in.",
        "kind" => "The kind of this object.",
        "metadata" => "Metadata that every object or list has.",
        "items" => "The objects of the list.",
        _ => "",
    }
}
