#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::facts;

/// Objects in both forms, as upstream writes them.
fn fixtures() -> Vec<(String, Value, Vec<u8>)> {
    let Some(folder) = facts::path("fixtures") else { return Vec::new() };
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let json = names.into_iter().filter(|p| p.extension().is_some_and(|e| e == "json"));
    json.map(|path| {
        let value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let bytes = std::fs::read(path.with_extension("pb")).unwrap();
        (path.file_stem().unwrap().to_string_lossy().into_owned(), value, bytes)
    })
    .collect()
}

#[test]
fn fixtures_are_written_byte_for_byte_and_read_back() {
    let all = fixtures();
    let mut known = 0;
    for (name, value, bytes) in &all {
        let member = |name: &str| value[name].as_str().unwrap_or_default();
        if schema::by_kind(member("apiVersion"), member("kind")).is_none() {
            assert!(
                name.contains("alpha") || name.contains("beta") || name.contains("WatchEvent"),
                "{name} has no type"
            );
            continue;
        }
        known += 1;
        let decoded = decode_object(bytes).unwrap_or_else(|e| panic!("{name}: {}", e.message()));
        assert_eq!(without_constants(decoded.value), without_constants(value.clone()), "{name}");
        let written = encode_object(value).unwrap();
        assert!(written == *bytes, "{name}: {}", difference(&written, bytes));
        // Once more, with what is remembered of it.
        let text = encode_text(member("apiVersion"), member("kind"), value.to_string().as_bytes()).unwrap();
        assert!(text == *bytes, "{name}: {}", difference(&text, bytes));
    }
    assert!(all.is_empty() || known > 80, "{known} fixtures compared");
}

/// Claim templates show their kind in JSON only: that is for defaulting to fill in.
fn without_constants(mut value: Value) -> Value {
    for claim in value.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten() {
        for member in ["apiVersion", "kind"] {
            claim.as_object_mut().unwrap().remove(member);
        }
    }
    value
}

fn difference(left: &[u8], right: &[u8]) -> String {
    let at = left.iter().zip(right).position(|(a, b)| a != b).unwrap_or(left.len().min(right.len()));
    let part =
        |bytes: &[u8]| String::from_utf8_lossy(&bytes[at.saturating_sub(40)..bytes.len().min(at + 40)]).into_owned();
    format!("differ at {at} of {} and {}: {:?} / {:?}", left.len(), right.len(), part(left), part(right))
}

#[test]
fn lists_and_watch_frames_wrap_objects() {
    let mut encoder = ListEncoder::new("v1", "PodList").unwrap();
    // Lengths of one, two and three bytes.
    let pods: Vec<String> = [1, 200, 20_000]
        .map(|n| json!({"metadata": {"name": "a".repeat(n)}, "spec": {"containers": []}}).to_string())
        .to_vec();
    let sizes = [0, 1, 2].map(|index: usize| {
        let mut message = Vec::new();
        encoder.message(&mut message, pods[index].as_bytes());
        ListEncoder::item_size(message.len())
    });
    let mut bytes = Vec::new();
    encoder.open(&mut bytes, "v1", "PodList", &json!({"resourceVersion": "7"}), sizes.iter().sum());
    for (pod, size) in pods.iter().zip(sizes) {
        let before = bytes.len();
        encoder.item(&mut bytes, pod.as_bytes());
        assert_eq!(bytes.len() - before, size);
    }
    ListEncoder::close(&mut bytes);
    let list = decode_object(&bytes).unwrap();
    assert_eq!(list.kind, "PodList");
    assert_eq!(list.value["metadata"]["resourceVersion"], "7");
    assert_eq!(list.value["items"][1]["metadata"]["name"], "a".repeat(200));
    assert_eq!(bytes, encode_object(&list.value).unwrap());
    assert!(ListEncoder::new("example.com/v1", "FooList").is_none());
    let frame = watch_frame("ADDED", b"object");
    assert_eq!(frame, b"\0\0\0\x11\x0a\x05ADDED\x12\x08\x0a\x06object");
}

#[test]
fn kinds_of_meta_v1_are_known_in_every_group() {
    for (api_version, kind) in [
        ("v1", "Status"),
        ("policy/v1", "DeleteOptions"),
        ("v1", "DeleteOptions"),
        ("meta.k8s.io/v1", "PartialObjectMetadataList"),
        ("meta.k8s.io/v1beta1", "PartialObjectMetadata"),
        ("v1", "APIGroupList"),
        ("", "APIVersions"),
        ("apps/v1", "DeploymentList"),
        ("rbac.authorization.k8s.io/v1", "RoleList"),
        ("apidiscovery.k8s.io/v2", "APIGroupDiscoveryList"),
    ] {
        assert!(schema::by_kind(api_version, kind).is_some(), "{api_version} {kind}");
    }
    assert!(schema::by_kind("example.com/v1", "Foo").is_none());
}

/// A small generator of pseudo-random numbers, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"a": "b"},
        "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": [{"name": "c", "resources":
        {"limits": {"cpu": "1"}}, "livenessProbe": {"httpGet": {"port": 80}}}]}});
    let good = encode_object(&pod).unwrap();
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=random.next() % 4 {
            let at = 4 + random.next() as usize % (bytes.len() - 4);
            bytes[at] = random.next() as u8;
        }
        bytes.truncate(4 + random.next() as usize % (bytes.len() - 4));
        let _ = decode_object(&bytes);
        let noise: Vec<u8> = (0..random.next() % 64).map(|_| random.next() as u8).collect();
        for ty in [schema::by_kind("v1", "Pod").unwrap(), schema::by_kind("v1", "Event").unwrap()] {
            let _ = decode(ty, &noise);
        }
    }
}

#[test]
fn deep_and_long_messages_are_refused() {
    let schema = schema::find("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
    let not = schema.field("not").unwrap().number;
    let mut bytes = Vec::new();
    for _ in 0..1000 {
        let inner = std::mem::take(&mut bytes);
        write_bytes(&mut bytes, not, &inner);
    }
    assert_eq!(decode(schema, &bytes), Err(WireError::Depth));
    let pod = schema::by_kind("v1", "PodList").unwrap();
    let many = [0x12, 0].repeat(600_000);
    assert_eq!(decode(pod, &many), Err(WireError::Elements));
    assert!(decode_object(b"{}").is_err() && decode_object(MAGIC).is_err());
}

#[test]
fn what_is_no_object_of_the_kind_is_said_as_far_as_it_can_be() {
    let text = |json: &str| encode_text("v1", "Pod", json.as_bytes());
    let as_value = |json: &str| encode_object(&serde_json::from_str(json).unwrap());
    let kind = r#""apiVersion":"v1","kind":"Pod""#;
    for (given, same) in [
        // The last of equal members counts, null is none at all, and maps are in order.
        (r#""metadata":{"name":"a","name":"b","name":null}"#, r#""metadata":{"name":"b"}"#),
        (
            r#""spec":{"hostNetwork":true,"dnsPolicy":"x","unknown":[{"}":"]"}]}"#,
            r#""spec":{"dnsPolicy":"x","hostNetwork":true}"#,
        ),
        (r#""metadata":{"labels":{"b":"1","\u0061":"2"}}"#, r#""metadata":{"labels":{"a":"2","b":"1"}}"#),
        // What has another shape than the field says nothing, or zero.
        (r#""metadata":{"labels":[1],"finalizers":{"a":1},"generation":"x","name":7}"#, r#""metadata":{"name":""}"#),
        (r#""metadata":[{"name":"x"}],"spec":5"#, r#""metadata":{},"spec":{}"#),
        (r#""spec":{"containers":[null,{"image":"i"}]}"#, r#""spec":{"containers":[{},{"image":"i"}]}"#),
    ] {
        let (given, same) = (format!("{{{kind},{given}}}"), format!("{{{kind},{same}}}"));
        let decoded = |bytes: Option<Vec<u8>>| decode_object(&bytes.unwrap()).unwrap().value;
        assert_eq!(decoded(text(&given)), decoded(as_value(&same)), "{given}");
    }
    let escaped = format!(r#"{{{kind},"metadata":{{"annotations":{{"a\"b":"\u00fc\\","c":"\n"}},"name":"x"}}}}"#);
    assert_eq!(text(&escaped), as_value(&escaped));
    for bad in
        ["", "{", r#"{"a"}"#, r#"{"spec":{}"#, "[1,]x", r#"{"a":1}}"#, r#"{1:2}"#, &"[".repeat(200), "\"a", "{\"a\\"]
    {
        assert_eq!(text(bad), None, "{bad}");
    }
    let deep = r#"{"not":"#.repeat(200) + "{}" + &"}".repeat(200);
    let ty = schema::find("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
    assert_eq!(Encoder::default().message(&mut Vec::new(), ty, deep.as_bytes()), None);
}

#[test]
fn items_of_lists_are_written_as_if_they_were_alone() {
    let mut encoder = ListEncoder::new("v1", "PodList").unwrap();
    let long = "l".repeat(100);
    for number in 0..2000 {
        // Members that are the same for long, that come in turns, that never come twice, and that begin alike.
        let env: Vec<Value> = (0..number % 3).map(|n| json!({"name": format!("E{n}"), "value": long})).collect();
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("p{number}"), "annotations": {"a": long, "n": format!("{number}")}},
            "spec": {"containers": [{"name": "c", "image": format!("i{}", number / 500), "env": env}],
                "nodeSelector": {"long": long, "short": "x".repeat(number % 7)}}});
        let text = pod.to_string();
        let mut item = Vec::new();
        encoder.item(&mut item, text.as_bytes());
        let mut alone = Vec::new();
        let ty = schema::by_kind("v1", "Pod").unwrap();
        write_part(&mut alone, 2, |out| Encoder::default().message(out, ty, text.as_bytes()).unwrap());
        assert!(item == alone, "{number}: {}", difference(&item, &alone));
    }
}
