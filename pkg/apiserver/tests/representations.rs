//! What clients may ask answers to look like, and what they get, over HTTPS.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Read;

use kube::client::Body;
use kube1_api::codec::protobuf::decode_object;
use serde_json::{Value, json};
use support::TestServer;
use support::wire::Wire;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const ITEM: &str = "/api/v1/namespaces/default/configmaps/a";
const LIST: &str = "/api/v1/namespaces/default/configmaps";
const CBOR_PATCH: &str = "the body of the request was in an unknown format - accepted media types include: \
    application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
    application/apply-patch+yaml";
const MISSING: &str = "/api/v1/namespaces/default/configmaps/none";

struct Answer {
    code: u16,
    media: String,
    bytes: Vec<u8>,
}

impl Answer {
    /// The object, whatever it is written in.
    fn value(&self) -> Value {
        match self.media.split(';').next().unwrap() {
            PROTOBUF => decode_object(&self.bytes).unwrap().value,
            YAML => kube1_api::codec::parse_yaml(&self.bytes).unwrap(),
            JSON => serde_json::from_slice(&self.bytes).unwrap(),
            other => panic!("{other}"),
        }
    }

    /// The events of a watch: each one's type and object.
    fn events(&self) -> Vec<(String, Value)> {
        let json = |event: &[u8]| {
            let event: Value = serde_json::from_slice(event).unwrap();
            (event["type"].as_str().unwrap().to_owned(), event["object"].clone())
        };
        if !self.media.starts_with(PROTOBUF) {
            return self.bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(json).collect();
        }
        let (mut rest, mut events) = (&self.bytes[..], Vec::new());
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let (frame, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
            let magic = frame.windows(4).position(|w| w == b"k8s\0").unwrap();
            let kind = String::from_utf8(frame[2..2 + usize::from(frame[1])].to_vec()).unwrap();
            events.push((kind, decode_object(&frame[magic..]).unwrap().value));
            rest = tail;
        }
        events
    }
}

async fn get(client: &kube::Client, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(client, "GET", path, headers, Vec::new()).await
}

async fn send(client: &kube::Client, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
    let media = response.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let code = response.status().as_u16();
    Answer { code, media, bytes: response.into_body().collect_bytes().await.unwrap().to_vec() }
}

fn meta(media: &str, kind: &str) -> String {
    format!("{media};as={kind};g=meta.k8s.io;v=v1")
}

async fn with_config_map(server: &TestServer) -> kube::Client {
    let client = server.admin().await;
    let object = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}}).to_string().into_bytes();
    assert_eq!(send(&client, "POST", LIST, &[("content-type", JSON)], object).await.code, 201);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_the_form_that_is_accepted() {
    let server = TestServer::start().await;
    let client = with_config_map(&server).await;
    // As client-go's metadata client and informers ask.
    let metadata =
        [meta(PROTOBUF, "PartialObjectMetadata"), meta(JSON, "PartialObjectMetadata"), JSON.into()].join(",");
    let metadata_list =
        [meta(PROTOBUF, "PartialObjectMetadataList"), meta(JSON, "PartialObjectMetadataList"), JSON.into()].join(",");
    let table = [meta(JSON, "Table"), JSON.to_owned()].join(",");
    let both = [PROTOBUF, JSON].join(",");
    for (path, accept, code, media, kind) in [
        (ITEM, "", 200, JSON, "ConfigMap"),
        (ITEM, "*/*", 200, JSON, "ConfigMap"),
        (ITEM, YAML, 200, YAML, "ConfigMap"),
        (ITEM, &both, 200, PROTOBUF, "ConfigMap"),
        (LIST, &both, 200, PROTOBUF, "ConfigMapList"),
        (LIST, YAML, 200, YAML, "ConfigMapList"),
        (ITEM, &table, 200, JSON, "Table"),
        (LIST, &table, 200, JSON, "Table"),
        (LIST, &meta(YAML, "Table"), 200, YAML, "Table"),
        (LIST, &meta(PROTOBUF, "Table"), 406, JSON, "Status"),
        (ITEM, &metadata, 200, PROTOBUF, "PartialObjectMetadata"),
        (LIST, &metadata_list, 200, PROTOBUF, "PartialObjectMetadataList"),
        (LIST, &metadata, 406, JSON, "Status"),
        (ITEM, &metadata_list, 406, JSON, "Status"),
        (ITEM, "application/json;stream=watch", 200, JSON, "ConfigMap"),
        (ITEM, "application/cbor", 406, JSON, "Status"),
        (ITEM, "application/cbor,application/json", 200, JSON, "ConfigMap"),
        (MISSING, &both, 404, PROTOBUF, "Status"),
        (MISSING, YAML, 404, YAML, "Status"),
        (MISSING, &table, 404, JSON, "Status"),
        (MISSING, &metadata, 404, JSON, "Status"),
        (MISSING, "text/html", 406, JSON, "Status"),
        (ITEM, &format!("{ITEM},{PROTOBUF}"), 200, PROTOBUF, "ConfigMap"),
        ("/api/v1/namespaces/none/pods/none/log", PROTOBUF, 404, PROTOBUF, "Status"),
        ("/apis/apps/v1/nothing", PROTOBUF, 404, PROTOBUF, "Status"),
        ("/apis/nothing/v1", PROTOBUF, 404, "text/plain; charset=utf-8", ""),
        ("/api/v1", PROTOBUF, 200, PROTOBUF, "APIResourceList"),
        ("/apis/apps", YAML, 200, YAML, "APIGroup"),
        ("/api/v1/pods?limit=x", PROTOBUF, 400, PROTOBUF, "Status"),
        ("/api/v1/pods?resourceVersionMatch=Exact", &both, 422, PROTOBUF, "Status"),
        ("/api/v1/pods?includeObject=Some", &table, 400, JSON, "Status"),
    ] {
        let headers: &[(&str, &str)] = if accept.is_empty() { &[] } else { &[("accept", accept)] };
        let answer = get(&client, path, headers).await;
        assert_eq!((answer.code, answer.media.as_str()), (code, media), "{path} as {accept}");
        if kind.is_empty() {
            continue;
        }
        let value = answer.value();
        assert_eq!(value["kind"], kind, "{path} as {accept}");
        match kind {
            "Status" => assert_eq!((&value["code"], &value["status"]), (&json!(code), &json!("Failure"))),
            "ConfigMap" => assert_eq!(value["data"]["k"], "v"),
            "PartialObjectMetadata" => assert_eq!(value["metadata"]["labels"]["x"], "y"),
            "PartialObjectMetadataList" => assert_eq!(value["items"][0]["metadata"]["name"], "a"),
            _ => {}
        }
    }
    let items = get(&client, LIST, &[("accept", &meta(JSON, "PartialObjectMetadataList"))]).await.value();
    assert_eq!(items["items"][0]["kind"], "PartialObjectMetadata");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_answer_and_fail_in_the_form_that_is_accepted() {
    let server = TestServer::start().await;
    let client = with_config_map(&server).await;
    let post = async |accept: &str, media: &str, body: Vec<u8>| {
        send(&client, "POST", LIST, &[("accept", accept), ("content-type", media)], body).await
    };
    let named = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let protobuf = |name: &str| kube1_api::codec::protobuf::encode_object(&named(name)).unwrap();
    let created = post(PROTOBUF, PROTOBUF, protobuf("p")).await;
    assert_eq!((created.code, created.media.as_str()), (201, PROTOBUF));
    assert_eq!(created.value()["metadata"]["name"], "p");
    for (accept, media, body, code, reason) in [
        (PROTOBUF, PROTOBUF, protobuf("p"), 409, "AlreadyExists"),
        (PROTOBUF, PROTOBUF, protobuf("Not a name"), 422, "Invalid"),
        (PROTOBUF, JSON, b"{".to_vec(), 400, "BadRequest"),
        (PROTOBUF, "application/cbor", Vec::new(), 415, "UnsupportedMediaType"),
        (YAML, YAML, b"a: [".to_vec(), 400, "BadRequest"),
        ("text/html", JSON, named("q").to_string().into_bytes(), 406, "NotAcceptable"),
    ] {
        let answer = post(accept, media, body).await;
        let expected = if accept == "text/html" { JSON } else { accept };
        assert_eq!((answer.code, answer.media.as_str()), (code, expected), "{media} for {accept}");
        let status = answer.value();
        assert_eq!((status["kind"].as_str(), status["reason"].as_str()), (Some("Status"), Some(reason)));
        if code == 422 {
            assert_eq!(status["details"]["causes"][0]["field"], "metadata.name");
        }
    }
    // Patches in CBOR are behind a feature that is off.
    let patched = send(&client, "PATCH", ITEM, &[("content-type", "application/apply-patch+cbor")], Vec::new()).await;
    assert_eq!((patched.code, patched.value()["message"].as_str().unwrap()), (415, CBOR_PATCH));
    assert_eq!(get(&client, &format!("{LIST}/q"), &[]).await.code, 404, "what cannot be answered is not done");
    let deleted = send(
        &client,
        "DELETE",
        &format!("{LIST}/p"),
        &[("accept", &meta(PROTOBUF, "PartialObjectMetadata"))],
        Vec::new(),
    )
    .await;
    assert_eq!((deleted.code, deleted.media.as_str()), (200, PROTOBUF));
    assert_eq!(deleted.value()["status"], "Success");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_speak_the_form_that_is_accepted() {
    let server = TestServer::start().await;
    with_config_map(&server).await;
    // What was before is forgotten.
    let server = server.restart().await;
    let client = server.admin().await;
    let watch = format!("{LIST}?watch=1&timeoutSeconds=1");
    let initial = format!("{watch}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let old = format!("{watch}&resourceVersion=1");
    let metadata = [meta(PROTOBUF, "PartialObjectMetadata"), meta(JSON, "PartialObjectMetadata")].join(",");
    let stream = format!("{PROTOBUF};stream=watch");
    for (path, accept, media, kinds) in [
        (&watch, JSON, JSON, vec!["ADDED ConfigMap"]),
        (&watch, "application/json;stream=watch", JSON, vec!["ADDED ConfigMap"]),
        (&watch, PROTOBUF, &stream, vec!["ADDED ConfigMap"]),
        (&watch, &stream, &stream, vec!["ADDED ConfigMap"]),
        (&initial, &metadata, &stream, vec!["ADDED PartialObjectMetadata", "BOOKMARK PartialObjectMetadata"]),
        (&initial, &meta(JSON, "Table"), JSON, vec!["ADDED Table", "BOOKMARK Table"]),
        (&old, JSON, JSON, vec!["ERROR Status"]),
        (&old, PROTOBUF, &stream, vec!["ERROR Status"]),
        (&old, &metadata, &stream, vec!["ERROR Status"]),
        (&old, &meta(JSON, "Table"), JSON, vec!["ERROR Status"]),
    ] {
        let answer = get(&client, path, &[("accept", accept)]).await;
        assert_eq!((answer.code, answer.media.as_str()), (200, media), "{path} as {accept}");
        let events = answer.events();
        let seen: Vec<String> =
            events.iter().map(|(kind, object)| format!("{kind} {}", object["kind"].as_str().unwrap())).collect();
        assert!(seen.starts_with(&kinds.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>()), "{seen:?} as {accept}");
        for (kind, object) in &events {
            if kind == "ERROR" {
                assert_eq!((&object["code"], &object["reason"]), (&json!(410), &json!("Expired")));
            }
            if kind == "BOOKMARK" && object["kind"] == "PartialObjectMetadata" && seen.len() == 2 {
                assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
            }
        }
    }
    // Only what is known but has no stream is told of streams.
    let (streams, known) = ("application/json;stream=watch", "application/json, application/yaml");
    for (accept, told) in [(YAML, streams), ("application/cbor", known), ("application/json;stream=other", known)] {
        let answer = get(&client, &watch, &[("accept", accept)]).await;
        let status = answer.value();
        assert_eq!((answer.code, status["reason"].as_str()), (406, Some("NotAcceptable")), "{accept}");
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(told), "{accept}: {message}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_long_answers_are_compressed() {
    let server = TestServer::start().await;
    let client = with_config_map(&server).await;
    let size = 128 * 1024;
    let big = json!({"metadata": {"name": "big"}, "data": {"k": "x".repeat(size)}}).to_string().into_bytes();
    assert_eq!(send(&client, "POST", LIST, &[("content-type", JSON)], big).await.code, 201);
    let big = format!("{LIST}/big");
    for (path, accept, encoding, packed) in [
        (ITEM, JSON, "gzip", false),
        (big.as_str(), JSON, "gzip", true),
        (&big, PROTOBUF, "gzip", true),
        (&big, YAML, "deflate, gzip", true),
        (LIST, JSON, "gzip", true),
        (LIST, PROTOBUF, "gzip", true),
        (LIST, &meta(JSON, "Table"), "gzip", false),
        (&big, JSON, "identity", false),
        (&big, JSON, "gzip;q=0", false),
        ("/openapi/v2", JSON, "gzip", true),
    ] {
        let request = http::Request::get(path).header("accept", accept).header("accept-encoding", encoding);
        let response = client.send(request.body(Body::empty()).unwrap()).await.unwrap();
        let said = response.headers().get("content-encoding").is_some_and(|v| v == "gzip");
        assert_eq!(said, packed, "{path} as {accept} in {encoding}");
        let bytes = response.into_body().collect_bytes().await.unwrap();
        if packed {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
            assert!(plain.len() > size && bytes.len() < plain.len());
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_has_all_its_forms() {
    let server = TestServer::start().await;
    let client = server.admin().await;
    let form = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for media in [JSON, PROTOBUF] {
        for path in ["/api", "/apis"] {
            let answer = get(&client, path, &[("accept", &format!("{media}{form},{media}"))]).await;
            assert_eq!((answer.code, answer.media.as_str()), (200, format!("{media}{form}").as_str()));
            let list = answer.value();
            assert_eq!(list["kind"], "APIGroupDiscoveryList");
            assert!(list["items"][0]["versions"][0]["resources"][0]["verbs"][0].is_string(), "{path}");
        }
    }
    let request = http::Request::get("/apis").header("accept", format!("{JSON}{form}")).body(Body::empty()).unwrap();
    let first = client.send(request).await.unwrap();
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(first.headers()["vary"], "Accept");
    let again = get(&client, "/apis", &[("accept", &format!("{JSON}{form}")), ("if-none-match", &tag)]).await;
    assert_eq!((again.code, again.bytes.len()), (304, 0));
    server.stop().await;
}

/// Numbers as they are sent, and as upstream stores and shows them.
const NUMBERS: [(&str, &str); 8] = [
    ("0.1234567890123456789", "0.12345678901234568"),
    ("4.9406564584124654e-324", "5e-324"),
    ("8.41", "8.41"),
    ("1.0", "1"),
    ("-0.0", "0"),
    ("1e-7", "1e-7"),
    ("1e21", "1e+21"),
    ("9223372036854775808", "9223372036854776000"),
];

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_those_of_upstream() {
    let server = TestServer::start().await;
    let client = Wire::admin(&server).await;
    let number = json!({"type": "number"});
    let schema = json!({"type": "object", "properties": {"n": number, "i": {"type": "integer"}}});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    client.define("Amount", &json!([version]), &Value::Null).await;
    let amounts = "/apis/example.com/v1/namespaces/default/amounts";
    let body = |name: &str, n: &str| {
        let head = r#""apiVersion":"example.com/v1","kind":"Amount""#;
        format!(r#"{{{head},"metadata":{{"name":"{name}"}},"n":{n}}}"#)
    };
    for (index, (given, stored)) in NUMBERS.iter().enumerate() {
        let item = format!("{amounts}/a{index}");
        let shown = |text: String| text.contains(&format!("\"n\":{stored}}}"));
        let media = if index % 2 == 0 { JSON } else { YAML };
        let created = client.send("POST", amounts, &[("content-type", media)], body(&format!("a{index}"), given)).await;
        assert!(shown(created.text()), "{given} created: {}", created.text());
        assert!(shown(client.get(&item).await.text()), "{given}: {}", client.get(&item).await.text());
        let before = client.get(&item).await.ok()["metadata"]["resourceVersion"].clone();
        for (media, patch) in [
            ("application/merge-patch+json", format!(r#"{{"n":{given}}}"#)),
            ("application/json-patch+json", format!(r#"[{{"op":"replace","path":"/n","value":{given}}}]"#)),
        ] {
            let patched = client.send("PATCH", &item, &[("content-type", media)], patch).await;
            assert!(shown(patched.text()), "{given} patched: {}", patched.text());
            assert_eq!(patched.ok()["metadata"]["resourceVersion"], before, "{given} is the same again");
        }
        let headers = [("content-type", "application/apply-patch+yaml")];
        let path = format!("{amounts}/b{index}?fieldManager=m");
        let applied = client.send("PATCH", &path, &headers, body(&format!("b{index}"), given)).await;
        assert!(shown(applied.text()), "{given} applied: {}", applied.text());
        let listed = client.get(amounts).await.text();
        assert_eq!(listed.matches(&format!("\"n\":{stored}}}")).count(), 2, "{given} listed: {listed}");
    }
    for (given, code) in [("2.0", 200), ("1e3", 200), ("2.5", 422), ("9223372036854775808", 422)] {
        let headers = [("content-type", "application/merge-patch+json")];
        let answer = client.send("PATCH", &format!("{amounts}/a0"), &headers, format!(r#"{{"i":{given}}}"#)).await;
        assert_eq!(answer.code, code, "{given}: {}", answer.text());
    }
    // A schema's own numbers, through JSON and protobuf.
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/amounts.example.com";
    let limits = r#"{"maximum":123456.12345678901234,"minimum":-2.0,"default":1.0,"type":"number"}"#;
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/n";
    let patch = format!(r#"[{{"op":"replace","path":"{path}","value":{limits}}}]"#);
    client.send("PATCH", definition, &[("content-type", "application/json-patch+json")], patch).await.ok();
    let expected = r#"{"type":"number","default":1,"maximum":123456.123456789,"minimum":-2}"#;
    assert!(client.get(definition).await.text().contains(expected), "{}", client.get(definition).await.text());
    let protobuf = client.send("GET", definition, &[("accept", PROTOBUF)], "").await;
    let read = decode_object(&protobuf.bytes).unwrap().value;
    let read = read.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/n").unwrap();
    assert_eq!(read, &serde_json::from_str::<Value>(expected).unwrap());
    // Of built-in kinds what is merged by value takes whole numbers however they are written.
    let deployment = "/apis/apps/v1/namespaces/default/deployments/d";
    let headers = [("content-type", "application/apply-patch+yaml")];
    let body = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"replicas":2.0,
        "selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},
        "spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
    let applied = client.send("PATCH", &format!("{deployment}?fieldManager=m"), &headers, body).await;
    assert_eq!(applied.ok()["spec"]["replicas"], 2);
    for (media, code) in [("application/strategic-merge-patch+json", 200), ("application/merge-patch+json", 422)] {
        let patch = r#"{"spec":{"replicas":3.0}}"#;
        let answer = client.send("PATCH", deployment, &[("content-type", media)], patch).await;
        assert_eq!(answer.code, code, "{media}: {}", answer.text());
    }
    server.stop().await;
}
