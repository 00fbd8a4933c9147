//! YAML bodies.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::{Decoded, FieldValidation, plain_number, tolerant};
use crate::resource::Resource;
use crate::status::Status;

const DUPLICATES_SHOWN: usize = 100;
/// Enough for the deepest document allowed, also in a build that is not optimised, in bytes.
const STACK: usize = 8 << 20;
/// How much the aliases of a document may add to it.
const ALIAS_NODES: usize = 10_000;
const ALIAS_BYTES: usize = 1 << 20;

/// Decodes and checks an object of the resource.
pub fn decode_yaml(resource: &Resource, bytes: &[u8], validation: FieldValidation) -> Result<Decoded, Status> {
    let (value, duplicates) = parse(bytes)?;
    let early = if duplicates.is_empty() || validation != FieldValidation::Strict {
        duplicates
    } else {
        vec![unmarshal_errors(&duplicates)]
    };
    tolerant::finish(resource, value, early, Vec::new(), validation)
}

/// Any YAML document as a JSON value. Keys that come twice are an error.
pub fn parse_yaml(bytes: &[u8]) -> Result<Value, Status> {
    let (value, duplicates) = parse(bytes)?;
    if duplicates.is_empty() {
        return Ok(value);
    }
    let problems = unmarshal_errors(&duplicates);
    Err(Status::bad_request(format!("error parsing YAML: error converting YAML to JSON: {problems}")))
}

pub fn encode_yaml(value: &Value) -> Result<Vec<u8>, Status> {
    serde_saphyr::to_string(value).map(String::into_bytes).map_err(Status::internal)
}

fn unmarshal_errors(duplicates: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  "))
}

/// The value, the last of several equal keys counting, and a sentence for each key that came before.
fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let text = std::str::from_utf8(bytes).map_err(|e| Status::bad_request(format!("the body is not UTF-8: {e}")))?;
    // JSON is YAML, and most clients send it under this name: the fast way for it, unless it has equal keys.
    if text.trim_start().starts_with('{')
        && let Ok((value, duplicates)) = super::json::parse(bytes)
        && duplicates.is_empty()
    {
        return Ok((value, Vec::new()));
    }
    // What aliases stand for counts as if it were written out.
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        legacy_octal_numbers: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_nodes: text.len() + ALIAS_NODES,
            max_events: 2 * text.len() + 4 * ALIAS_NODES,
            max_recorded_anchor_events: 2 * text.len() + 4 * ALIAS_NODES,
            max_total_scalar_bytes: 2 * text.len() + ALIAS_BYTES,
            max_recorded_anchor_bytes: 2 * text.len() + ALIAS_BYTES,
        },
    };
    // A level of nesting takes a dozen frames, so that the deepest document allowed is too much for a worker's stack.
    stacker::maybe_grow(STACK / 2, STACK, || {
        let node: Node = serde_saphyr::from_str_with_options(text, options)
            .map_err(|e| Status::bad_request(format!("error parsing YAML: {e}")))?;
        let mut duplicates = Vec::new();
        let value = node.into_value(&mut duplicates);
        Ok((value, duplicates))
    })
}

/// A document with the places of its keys.
enum Node {
    Leaf(Value),
    List(Vec<Node>),
    Map(Vec<(Spanned<String>, Node)>),
}

impl Node {
    fn into_value(self, duplicates: &mut Vec<String>) -> Value {
        match self {
            Self::Leaf(value) => value,
            Self::List(items) => items.into_iter().map(|item| item.into_value(duplicates)).collect(),
            Self::Map(entries) => {
                let mut map = Map::new();
                for (key, node) in entries {
                    let value = node.into_value(duplicates);
                    if map.contains_key(&key.value) && duplicates.len() < DUPLICATES_SHOWN {
                        let line = key.defined.line();
                        duplicates.push(format!("line {line}: key \"{}\" already set in map", key.value));
                    }
                    map.insert(key.value, value);
                }
                map.into()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        // As upstream, which makes JSON of it first.
        let number = plain_number(value).ok_or_else(|| E::custom(format_args!("unsupported value: {value}")))?;
        Ok(Node::Leaf(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = members.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::ResourceTable;

    #[test]
    fn values_are_those_of_json() {
        let text = "# a comment\na: 1\nb: [x, \"2\", 1.5, true, null, ~]\n3: {c: '', d: |\n    text\n  }\ne: &x {f: g}\nh: *x\n";
        let expected = json!({"a": 1, "b": ["x", "2", 1.5, true, null, null], "3": {"c": "", "d": "text\n"},
            "e": {"f": "g"}, "h": {"f": "g"}});
        let text = text.replace("d: |\n    text\n  }", "d: \"text\\n\"}");
        assert_eq!(parse_yaml(text.as_bytes()).unwrap(), expected);
        assert_eq!(parse_yaml(br#"{"a": [1, "x"]}"#).unwrap(), json!({"a": [1, "x"]}));
        assert!(parse_yaml(b"a: [").unwrap_err().message().starts_with("error parsing YAML"));
    }

    #[test]
    fn numbers_are_those_of_upstream() {
        for (text, expected) in [
            ("0644", "420"),
            ("0o644", "420"),
            ("012", "10"),
            ("08", "8"),
            ("0x1F", "31"),
            ("0b11", "3"),
            ("1_000", "1000"),
            ("1.0", "1"),
            ("1e3", "1000"),
            ("-0", "0"),
            (".5", "0.5"),
            ("9223372036854775808", "9223372036854775808"),
        ] {
            assert_eq!(parse_yaml(format!("a: {text}").as_bytes()).unwrap()["a"].to_string(), expected, "{text}");
        }
        for text in [".nan", "-.inf"] {
            assert!(parse_yaml(format!("a: {text}").as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn equal_keys_are_named_with_their_line() {
        let text = b"\nkind: Pod\nspec:\n  hostname: a\n  hostname: b\n  foo: x\n";
        let error = parse_yaml(text).unwrap_err();
        assert!(error.message().contains("line 5: key \"hostname\" already set in map"), "{}", error.message());
        let pods = ResourceTable::builtin().get("", "v1", "pods").unwrap();
        let decoded = decode_yaml(&pods, text, FieldValidation::Warn).unwrap();
        assert_eq!(decoded.value["spec"]["hostname"], "b");
        assert_eq!(decoded.warnings, ["line 5: key \"hostname\" already set in map", "unknown field \"spec.foo\""]);
        let error = decode_yaml(&pods, text, FieldValidation::Strict).unwrap_err();
        assert!(error.message().ends_with(
            "strict decoding error: yaml: unmarshal errors:\n  line 5: key \"hostname\" already set in map, \
             unknown field \"spec.foo\""
        ));
    }
}
