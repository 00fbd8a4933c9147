//! Hostile requests over HTTPS: each gets its refusal, changes nothing, and takes no more memory than it should.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;

use futures::StreamExt;
use kube::client::Body;
use serde_json::{Value, json};
use support::TestServer;
use support::wire::Wire;

const JSON: &str = "application/json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const KEPT: &str = "/api/v1/namespaces/default/configmaps/kept";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const FOOS: &str = "/apis/g.io/v1/namespaces/default/foos";
/// What all of them together may add to the memory of the process, in bytes: builds for tests are not thrifty.
const MEMORY: u64 = 1 << 30;

async fn send(client: &kube::Client, method: &str, path: &str, media: &str, body: Vec<u8>) -> (u16, String) {
    let request = http::Request::builder().method(method).uri(path).header("content-type", media);
    let response = client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    (code, String::from_utf8_lossy(&response.into_body().collect_bytes().await.unwrap()).into_owned())
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn map(name: &str, data: &str) -> Vec<u8> {
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"k":{data}}}}}"#).into()
}

/// An object that nests, in the place of a value.
fn nested(levels: usize) -> String {
    format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels))
}

fn foo(name: &str, spec: &str) -> Vec<u8> {
    format!(r#"{{"apiVersion":"g.io/v1","kind":"Foo","metadata":{{"name":"{name}"}},"spec":{spec}}}"#).into()
}

async fn prepared() -> (TestServer, kube::Client) {
    let server = TestServer::start().await;
    let client = server.admin().await;
    assert_eq!(send(&client, "POST", MAPS, JSON, map("kept", "\"v\"")).await.0, 201);
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "foos.g.io"},
        "spec": {"group": "g.io", "names": {"plural": "foos", "kind": "Foo"}, "scope": "Namespaced", "versions": [{"name": "v1",
        "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
        "x-kubernetes-preserve-unknown-fields": true}, "lists": {"type": "object", "additionalProperties": {"type": "array",
        "items": {"type": "object", "properties": {"n": {"type": "integer"}}}}}}}}}]}});
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(send(&client, "POST", path, JSON, definition.to_string().into()).await.0, 201);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while send(&client, "GET", FOOS, JSON, Vec::new()).await.0 != 200 {
        assert!(tokio::time::Instant::now() < deadline, "the definition is not served");
        tokio::task::yield_now().await;
    }
    assert_eq!(send(&client, "POST", FOOS, JSON, foo("kept", r#"{"a":{}}"#)).await.0, 201);
    (server, client)
}

/// Method, path, media type, body, and the codes of which one is right.
type Case = (&'static str, String, &'static str, Vec<u8>, &'static [u16]);

fn cases() -> Vec<Case> {
    const JSON_PATCH: &str = "application/json-patch+json";
    const MERGE: &str = "application/merge-patch+json";
    const STRATEGIC: &str = "application/strategic-merge-patch+json";
    const APPLY: &str = "application/apply-patch+yaml";
    const YAML: &str = "application/yaml";
    let mega = 3 * 1024 * 1024;
    let deep = || nested(10_000).into_bytes();
    let kept_foo = format!("{FOOS}/kept");
    let applied = format!("{KEPT}?fieldManager=m");
    let bomb = (b'b'..=b'i').fold("a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, letter| {
        let (own, before) = (char::from(letter), char::from(letter - 1));
        format!("{text}{own}: &{own} [{}]\n", vec![format!("*{before}"); 10].join(","))
    });
    let operations = |count: usize, one: &str| format!("[{}]", vec![one; count].join(",")).into_bytes();
    let test = r#"{"op":"test","path":"/data/k","value":"other"}"#;
    let twice = |name: &str| {
        let members = vec!["\"a\":1"; 100_000].join(",");
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"x"}},"{name}":{{{members}}}}}"#)
    };
    let long = "n".repeat(1 << 20);
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let dry = format!("{MAPS}?dryRun=All");
    let items = vec!["{\"n\":\"x\",\"m\":1}"; 100_000].join(",");
    let mut cases: Vec<Case> = vec![
        // Too much.
        ("POST", MAPS.into(), JSON, map("x", &format!("\"{}\"", "a".repeat(mega))), &[413]),
        ("PATCH", KEPT.into(), MERGE, vec![b' '; mega + 1], &[413]),
        ("POST", MAPS.into(), JSON, map("x", &format!("\"{}\"", "a".repeat(1_200_000))), &[422]),
        ("PATCH", KEPT.into(), JSON_PATCH, operations(10_001, test), &[413]),
        ("PATCH", KEPT.into(), JSON_PATCH, operations(10_000, test), &[422]),
        ("PATCH", KEPT.into(), JSON_PATCH, operations(60_000, test), &[413]),
        // Deep.
        ("POST", MAPS.into(), JSON, map("x", &nested(10_000)), &[400]),
        ("POST", MAPS.into(), YAML, deep(), &[400]),
        ("POST", MAPS.into(), YAML, "- ".repeat(10_000).into(), &[400]),
        ("POST", MAPS.into(), JSON, "[".repeat(1_000_000).into(), &[400]),
        ("POST", FOOS.into(), JSON, foo("x", &nested(10_000)), &[400]),
        ("POST", FOOS.into(), JSON, foo("x", &nested(110)), &[400]),
        ("PATCH", KEPT.into(), MERGE, deep(), &[400]),
        ("PATCH", KEPT.into(), STRATEGIC, deep(), &[400]),
        ("PATCH", applied.clone(), APPLY, deep(), &[400]),
        ("PATCH", KEPT.into(), JSON_PATCH, "[".repeat(100_000).into(), &[400]),
        ("DELETE", KEPT.into(), JSON, deep(), &[400]),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews".into(), JSON, deep(), &[400]),
        (
            "PATCH",
            kept_foo.clone(),
            JSON_PATCH,
            operations(9_000, r#"{"op":"copy","from":"/spec/a","path":"/spec/a/a"}"#),
            &[422],
        ),
        (
            "PATCH",
            kept_foo.clone(),
            JSON_PATCH,
            operations(9_000, r#"{"op":"copy","from":"/spec","path":"/spec/b"}"#),
            &[422],
        ),
        // What multiplies.
        ("POST", MAPS.into(), YAML, bomb.clone().into(), &[400]),
        ("PATCH", applied.clone(), APPLY, bomb.into(), &[400]),
        ("POST", strict.clone(), JSON, twice(&long).into(), &[400]),
        ("POST", dry.clone(), JSON, twice(&long).into(), &[201]),
        ("POST", strict.clone(), YAML, twice(&long).into(), &[400]),
        (
            "POST",
            FOOS.into(),
            JSON,
            format!(
                r#"{{"apiVersion":"g.io/v1","kind":"Foo","metadata":{{"name":"x"}},"lists":{{"{long}":[{items}]}}}}"#
            )
            .into(),
            &[422],
        ),
        // What is no text, no number, no name.
        ("POST", MAPS.into(), JSON, b"{\"metadata\":{\"name\":\"\xff\xfe\"}}".to_vec(), &[400]),
        ("POST", MAPS.into(), YAML, b"metadata: {name: \"\xff\"}".to_vec(), &[400]),
        ("POST", MAPS.into(), JSON, vec![0; 1000], &[400]),
        ("POST", MAPS.into(), YAML, vec![0; 1000], &[400]),
        ("POST", MAPS.into(), JSON, map("a\\u0000b", "\"v\""), &[422]),
        ("POST", MAPS.into(), JSON, map("\\ud800", "\"v\""), &[400]),
        ("POST", MAPS.into(), JSON, map("x", "1e400"), &[400]),
        ("POST", MAPS.into(), JSON, map("x", "99999999999999999999999"), &[400]),
        (
            "POST",
            strict,
            JSON,
            br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x","name":"y"}}"#.to_vec(),
            &[400],
        ),
        (
            "POST",
            "/apis/apps/v1/namespaces/default/deployments".into(),
            JSON,
            br#"{"metadata":{"name":"x"},"spec":{"replicas":3000000000}}"#.to_vec(),
            &[400],
        ),
        ("GET", format!("{MAPS}/a%00b"), JSON, Vec::new(), &[404]),
        ("GET", format!("{MAPS}/..%2f..%2fsecrets"), JSON, Vec::new(), &[404]),
        ("GET", format!("{MAPS}?labelSelector=a%00b"), JSON, Vec::new(), &[400]),
        ("GET", format!("{MAPS}?limit=99999999999999999999"), JSON, Vec::new(), &[400]),
        ("GET", format!("{MAPS}?resourceVersion=-1"), JSON, Vec::new(), &[400]),
        ("GET", format!("{MAPS}?continue=%ff%fe"), JSON, Vec::new(), &[400]),
        ("DELETE", KEPT.into(), JSON, br#"{"gracePeriodSeconds":"soon"}"#.to_vec(), &[400]),
        ("DELETE", KEPT.into(), JSON, br#"{"kind":"Pod","apiVersion":"v1"}"#.to_vec(), &[400]),
        (
            "POST",
            MAPS.into(),
            "application/vnd.kubernetes.protobuf",
            [b"k8s\0".as_slice(), &[0xff; 1000]].concat(),
            &[400],
        ),
        // Many.
        ("GET", format!("{MAPS}?labelSelector={}", vec!["a!%3Db"; 1000].join(",")), JSON, Vec::new(), &[200, 414, 431]),
        (
            "GET",
            format!("{MAPS}?fieldSelector={}", vec!["metadata.name!%3Db"; 500].join(",")),
            JSON,
            Vec::new(),
            &[200, 414, 431],
        ),
        ("GET", format!("{MAPS}?{}", vec!["a=b"; 3000].join("&")), JSON, Vec::new(), &[200, 414, 431]),
    ];
    let quoted = "\"'\\".repeat(50_000);
    cases.push(("POST", dry, JSON, map("x", &Value::from(quoted).to_string()), &[201]));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_refused_and_change_nothing() {
    let (server, client) = prepared().await;
    let state = async || {
        let maps = send(&client, "GET", MAPS, JSON, Vec::new()).await.1;
        let foos = send(&client, "GET", FOOS, JSON, Vec::new()).await.1;
        let items = |list: &str| serde_json::from_str::<Value>(list).unwrap()["items"].clone();
        (items(&maps), items(&foos))
    };
    let (before, memory) = (state().await, peak());
    for (method, path, media, body, codes) in cases() {
        let length = body.len();
        let (code, answer) = send(&client, method, &path, media, body).await;
        let shown: String = path.chars().take(80).collect();
        let said: String = answer.chars().take(300).collect();
        assert!(codes.contains(&code), "{method} {shown} {media} of {length} bytes: {code} {said}");
        assert!(answer.len() < 3 << 20, "{method} {shown}: an answer of {} bytes", answer.len());
    }
    assert_eq!(state().await, before);
    let used = peak() - memory;
    assert!(used < MEMORY, "{used} bytes of memory");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_hostile_requests_at_once_leave_the_server_working() {
    let (server, client) = prepared().await;
    let memory = peak();
    let long = "n".repeat(1 << 20);
    let twice = format!(r#"{{"{long}":{{{}}}}}"#, vec!["\"a\":1"; 100_000].join(","));
    let requests = (0..64).map(async |index| {
        let path = if index % 2 == 0 { format!("{MAPS}?dryRun=All") } else { FOOS.to_owned() };
        send(&client, "POST", &path, JSON, twice.clone().into_bytes()).await.0
    });
    let codes: Vec<u16> = futures::stream::iter(requests).buffer_unordered(16).collect().await;
    assert!(codes.iter().all(|code| (400..500).contains(code)), "{codes:?}");
    assert_eq!(send(&client, "GET", KEPT, JSON, Vec::new()).await.0, 200);
    let used = peak() - memory;
    assert!(used < MEMORY, "{used} bytes of memory");
    server.stop().await;
}

/// Method, path, headers, body, the code and a part of the message.
type Refusal = (&'static str, String, &'static [(&'static str, &'static str)], Vec<u8>, u16, &'static str);

fn gzip_bomb() -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..200 {
        packed.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    packed.finish().unwrap()
}

/// A definition of bars whose schema has `part` in it.
fn definition(part: &str) -> Vec<u8> {
    format!(
        r#"{{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{{"name":"bars.g.io"}},"spec":{{"group":"g.io","names":{{"plural":"bars","kind":"Bar"}},"scope":"Namespaced","versions":[{{"name":"v1","served":true,"storage":true,"schema":{{"openAPIV3Schema":{{"type":"object","properties":{{"a":{part}}}}}}}}}]}}}}"#
    )
    .into()
}

fn refusals() -> Vec<Refusal> {
    const AS_JSON: &[(&str, &str)] = &[("content-type", JSON)];
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let many = |item: &str, count: usize| {
        let items = vec![item; count].join(",");
        let template = format!(r#"{{"metadata":{{"labels":{{"a":"b"}}}},"spec":{{"containers":[{items}]}}}}"#);
        format!(
            r#"{{"metadata":{{"name":"x"}},"spec":{{"selector":{{"matchLabels":{{"a":"b"}}}},"template":{template}}}}}"#
        )
    };
    let values: Vec<String> = (0..8_000).map(|n| format!("v{n}")).collect();
    let selector = format!("labelSelector=a+in+({})", values.join(","));
    let nested = |depth: usize| {
        let open = r#"{"type":"object","properties":{"a":"#;
        format!("{}{{\"type\":\"string\"}}{}", open.repeat(depth), "}}".repeat(depth))
    };
    vec![
        // What is packed is not unpacked.
        ("POST", MAPS.into(), &[("content-type", JSON), ("content-encoding", "gzip")], gzip_bomb(), 400, ""),
        ("POST", MAPS.into(), &[("content-type", "application/gzip")], gzip_bomb(), 415, "unknown format"),
        ("POST", MAPS.into(), &[("content-type", "text/plain")], map("x", "\"v\""), 415, "unknown format"),
        ("POST", MAPS.into(), &[("content-type", "a/b/c;;=")], map("x", "\"v\""), 415, "unknown format"),
        ("PATCH", KEPT.into(), AS_JSON, b"{}".to_vec(), 415, "unknown format"),
        ("GET", MAPS.into(), &[("accept", "image/png")], Vec::new(), 406, "accepted"),
        // Queries: the first value counts, what is no escape is left out, as Go reads them.
        ("GET", format!("{MAPS}?limit=x&limit=1"), &[], Vec::new(), 400, ""),
        ("GET", format!("{MAPS}?limit=1&limit=x"), &[], Vec::new(), 200, ""),
        ("GET", format!("{MAPS}?labelSelector=%zz"), &[], Vec::new(), 200, ""),
        ("GET", format!("{MAPS}?{selector}"), &[], Vec::new(), 200, ""),
        ("GET", format!("{MAPS}/%zz"), &[], Vec::new(), 400, "invalid URL escape"),
        ("GET", format!("{MAPS}?watch=1&timeoutSeconds=1&limit=-9223372036854775808"), &[], Vec::new(), 200, ""),
        // Lists of a million.
        ("POST", DEPLOYMENTS.into(), AS_JSON, many("{}", 300_000).into(), 422, "containers"),
        ("POST", DEPLOYMENTS.into(), AS_JSON, many("1", 1_000_000).into(), 400, ""),
        // Expressions that grow.
        (
            "POST",
            DEFINITIONS.into(),
            AS_JSON,
            definition(r#"{"type":"string","pattern":"((a{1000}){1000}){1000}"}"#),
            422,
            "pattern",
        ),
        (
            "POST",
            DEFINITIONS.into(),
            AS_JSON,
            definition(
                r#"{"type":"string","x-kubernetes-validations":[{"rule":"self.matches('((a{1000}){1000}){1000}')"}]}"#,
            ),
            422,
            "rule",
        ),
        ("POST", DEFINITIONS.into(), AS_JSON, definition(&nested(5_000)), 400, ""),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_packed_mislabelled_or_grows_is_refused() {
    let (server, client) = prepared().await;
    let (wire, memory) = (Wire(client), peak());
    let before = wire.get(MAPS).await.value()["items"].clone();
    let mut wrong = Vec::new();
    for (method, path, headers, body, code, part) in refusals() {
        let length = body.len();
        let answer = wire.send(method, &path, headers, body).await;
        let right = answer.code == code && answer.text().contains(part) && answer.bytes.len() < 3 << 20;
        let shown: String = path.chars().take(80).collect();
        let said: String = answer.text().chars().take(300).collect();
        let text =
            || format!("{method} {shown} {headers:?} of {length} bytes: {} not {code} {part}: {said}", answer.code);
        wrong.extend((!right).then(text));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(wire.get(MAPS).await.value()["items"], before);
    let used = peak() - memory;
    assert!(used < MEMORY, "{used} bytes of memory");
    server.stop().await;
}
