//! resourceVersion, resourceVersionMatch, limit and continue in every combination, over HTTPS.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use futures::StreamExt;
use http_body_util::BodyExt;
use kube::client::Body;
use kube1_apiserver::user::UserInfo;
use serde_json::{Value, json};
use support::TestServer;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn send(client: &kube::Client, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
    let body = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
    let response = client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    (code, serde_json::from_slice(&response.into_body().collect_bytes().await.unwrap()).unwrap_or_default())
}

async fn get(client: &kube::Client, path: &str) -> (u16, Value) {
    send(client, "GET", path, None).await
}

async fn put(client: &kube::Client, name: &str, value: &str) -> u64 {
    let map = json!({"metadata": {"name": name, "labels": {"v": value}}, "data": {"k": value}});
    let path = format!("{MAPS}/{name}");
    let (code, stored) = match get(client, &path).await.0 {
        404 => send(client, "POST", MAPS, Some(map)).await,
        _ => send(client, "PUT", &path, Some(map)).await,
    };
    assert!(code < 300, "{stored}");
    version(&stored)
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn values(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items.map(|i| format!("{}{}", i["metadata"]["name"].as_str().unwrap(), i["data"]["k"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_the_state_that_is_asked_for() {
    let server = TestServer::start().await;
    let client = server.admin().await;
    for name in ["a", "b", "c"] {
        put(&client, name, "1").await;
    }
    let then = put(&client, "d", "1").await;
    put(&client, "a", "2").await;
    send(&client, "DELETE", &format!("{MAPS}/b"), None).await;
    let now = put(&client, "e", "1").await;
    let (old, new) = (["a1", "b1", "c1", "d1"], ["a2", "c1", "d1", "e1"]);
    let ahead = now + 1_000_000;
    // Clients over HTTPS try again and again what takes too long.
    let tester = UserInfo::authenticated("tester", &["system:masters"]);
    let once = kube1_client::in_process(server.api.in_process(tester));
    for (query, expected) in [
        ("".to_owned(), Ok(&new[..])),
        ("resourceVersion=".into(), Ok(&new)),
        ("resourceVersion=0".into(), Ok(&new)),
        (format!("resourceVersion={then}"), Ok(&new)),
        (format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan"), Ok(&new)),
        (format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan&limit=9"), Ok(&new)),
        ("resourceVersion=0&resourceVersionMatch=NotOlderThan".into(), Ok(&new)),
        (format!("resourceVersion={then}&resourceVersionMatch=Exact"), Ok(&old)),
        (format!("resourceVersion={then}&limit=9"), Ok(&old)),
        (format!("resourceVersion={then}&resourceVersionMatch=Exact&labelSelector=v%3D1"), Ok(&old)),
        ("labelSelector=v+in+(2)".into(), Ok(&new[..1])),
        ("fieldSelector=metadata.name%3Dc".into(), Ok(&new[1..2])),
        (
            "fieldSelector=metadata.name!%3Dc,metadata.namespace%3D%3Ddefault&labelSelector=v%3D1".into(),
            Ok(&["d1", "e1"][..]),
        ),
        (
            "resourceVersionMatch=NotOlderThan".into(),
            Err((422, "resourceVersionMatch is forbidden unless resourceVersion is provided")),
        ),
        (
            "resourceVersionMatch=Exact".into(),
            Err((422, "resourceVersionMatch is forbidden unless resourceVersion is provided")),
        ),
        (
            "resourceVersion=0&resourceVersionMatch=Exact".into(),
            Err((422, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")),
        ),
        (
            format!("resourceVersion={then}&resourceVersionMatch=Newest"),
            Err((422, "resourceVersionMatch: Unsupported value: \"Newest\"")),
        ),
        ("sendInitialEvents=true".into(), Err((422, "sendInitialEvents is forbidden for list"))),
        ("resourceVersion=x".into(), Err((400, "\"x\""))),
        (
            "continue=x&resourceVersion=0&resourceVersionMatch=Exact".into(),
            Err((422, "resourceVersionMatch is forbidden when continue is provided")),
        ),
        ("continue=x".into(), Err((400, "continue key is not valid"))),
        ("fieldSelector=data.k%3D1".into(), Err((400, "\"data.k\" is not a known field selector"))),
        ("fieldSelector=metadata.name".into(), Err((400, ""))),
        (format!("resourceVersion={ahead}"), Err((504, "Too large resource version"))),
        (format!("resourceVersion={ahead}&resourceVersionMatch=Exact"), Err((504, "Too large resource version"))),
    ] {
        let client = if query.contains(&ahead.to_string()) { &once } else { &client };
        let (code, list) = get(client, &format!("{MAPS}?{query}")).await;
        match expected {
            Ok(expected) => {
                assert_eq!((code, values(&list)), (200, expected.iter().map(|v| (*v).to_owned()).collect()), "{query}");
                let exact = expected == old;
                assert!(
                    if exact { version(&list) == then } else { version(&list) >= now },
                    "{query}: {}",
                    version(&list)
                );
            }
            Err((expected, text)) => {
                let message = list["message"].as_str().unwrap_or_default();
                assert!(code == expected && message.contains(text), "{query}: {code} {list}");
            }
        }
        if code == 504 {
            assert_eq!(list["reason"], "Timeout");
            assert_eq!(list["details"]["retryAfterSeconds"], 1);
            assert_eq!(list["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
            assert_eq!(
                list["message"],
                format!(
                    "Timeout: Too large resource version: {ahead}, current: {}",
                    server.api.server().storage.revision()
                )
            );
        }
    }
    for (query, code) in [("", 200), ("resourceVersion=0", 200), ("resourceVersion=x", 500)] {
        assert_eq!(get(&client, &format!("{MAPS}/a?{query}")).await.0, code, "{query}");
    }
    assert_eq!(get(&once, &format!("{MAPS}/a?resourceVersion={ahead}")).await.0, 504);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_of_one_state() {
    let server = TestServer::start().await;
    let client = server.admin().await;
    for index in 0..7 {
        put(&client, &format!("m{index}"), "1").await;
    }
    let page = async |query: &str| {
        let (code, list) = get(&client, &format!("{MAPS}?limit=3{query}")).await;
        let token = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        (code, list, token)
    };
    let (_, first, token) = page("").await;
    assert_eq!(
        (values(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["m01".into(), "m11".into(), "m21".into()], &json!(4))
    );
    // Later changes are not in later pages.
    put(&client, "m4", "2").await;
    put(&client, "m9", "1").await;
    send(&client, "DELETE", &format!("{MAPS}/m3"), None).await;
    let (_, second, next) = page(&format!("&continue={token}")).await;
    assert_eq!(
        (values(&second), &second["metadata"]["remainingItemCount"]),
        (vec!["m31".into(), "m41".into(), "m51".into()], &json!(1))
    );
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let (_, third, end) = page(&format!("&continue={next}")).await;
    assert_eq!(
        (values(&third), end.as_str(), &third["metadata"]["remainingItemCount"]),
        (vec!["m61".into()], "", &Value::Null)
    );
    // Selections do not know how many follow.
    let (_, some, token_of_some) = page("&labelSelector=v%3D1").await;
    assert_eq!((some["items"].as_array().unwrap().len(), &some["metadata"]["remainingItemCount"]), (3, &Value::Null));
    assert!(!token_of_some.is_empty());
    let version = version(&first);
    assert_eq!(page(&format!("&continue={token}&resourceVersion={version}")).await.0, 400);
    assert_eq!(page(&format!("&continue={token}&resourceVersion=0")).await.0, 200);
    // After a restart the state of the token is forgotten; what it gives instead goes on with the newest.
    let server = server.restart().await;
    let client = server.admin().await;
    let page = async |query: &str| get(&client, &format!("{MAPS}?limit=3{query}")).await;
    let (code, expired) = page(&format!("&continue={token}")).await;
    assert_eq!((code, &expired["reason"]), (410, &json!("Expired")));
    let inconsistent = expired["metadata"]["continue"].as_str().unwrap();
    let (code, rest) = page(&format!("&continue={inconsistent}")).await;
    assert_eq!((code, values(&rest)), (200, vec!["m42".into(), "m51".into(), "m61".into()]));
    let (code, gone) = page(&format!("&resourceVersion={version}&resourceVersionMatch=Exact")).await;
    assert_eq!((code, &gone["reason"]), (410, &json!("Expired")));
    let (code, _) = page(&format!("&resourceVersion={version}&resourceVersionMatch=NotOlderThan")).await;
    assert_eq!(code, 200);
    server.stop().await;
}

/// A client that lists and watches as informers do, and starts anew when it is told to.
struct Follower {
    path: &'static str,
    selector: &'static str,
    objects: BTreeMap<String, Value>,
    version: String,
}

impl Follower {
    async fn list(&mut self, client: &kube::Client) {
        let mut token = String::new();
        self.objects.clear();
        loop {
            let (code, list) = get(client, &format!("{}?limit=5&continue={token}&{}", self.path, self.selector)).await;
            if code == 410 {
                token.clear();
                self.objects.clear();
                continue;
            }
            assert_eq!(code, 200, "{list}");
            for item in list["items"].as_array().unwrap() {
                self.put(item.clone());
            }
            self.version = list["metadata"]["resourceVersion"].as_str().unwrap().into();
            token = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                return;
            }
        }
    }

    fn put(&mut self, mut object: Value) {
        for member in ["apiVersion", "kind"] {
            object.as_object_mut().unwrap().remove(member);
        }
        self.objects.insert(object["metadata"]["name"].as_str().unwrap().into(), object);
    }

    /// Watches for a second; false when it must list again.
    async fn watch(&mut self, client: &kube::Client) -> bool {
        let path = format!("{}?watch=1&timeoutSeconds=1&resourceVersion={}&{}", self.path, self.version, self.selector);
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        let Ok(response) = client.send(request).await else { return true };
        assert!(response.status().is_success() || response.status().is_server_error(), "{}", response.status());
        let mut body = response.into_body().into_data_stream();
        let mut text = Vec::new();
        while let Some(Ok(bytes)) = body.next().await {
            text.extend_from_slice(&bytes);
        }
        // A server that goes away may cut the last line.
        for line in text.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n")) {
            let event: Value = serde_json::from_slice(line).unwrap();
            let object = event["object"].clone();
            if event["type"] == "ERROR" || event["kind"] == "Status" {
                return false;
            }
            let (seen, known) = (version(&object), self.version.parse::<u64>().unwrap());
            assert!(seen > known, "{seen} came after {known}");
            self.version = seen.to_string();
            if event["type"] == "DELETED" {
                self.objects.remove(object["metadata"]["name"].as_str().unwrap());
            } else {
                self.put(object);
            }
        }
        true
    }
}

/// Writes at random until the deadline.
async fn write(client: &kube::Client, seed: u64, until: tokio::time::Instant) {
    let mut random = seed;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    while tokio::time::Instant::now() < until {
        let (name, value) = (format!("w{}", next(12)), next(3));
        let path = format!("{MAPS}/{name}");
        let map = json!({"metadata": {"name": name, "labels": {"v": value.to_string()}}, "data": {"k": next(1000).to_string()}});
        let request = |method: &str, path: &str, body: &Value| {
            let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
            request.body(Body::from(body.to_string().into_bytes())).unwrap()
        };
        let request = match next(4) {
            0 => request("DELETE", &path, &json!({})),
            1 => request("POST", MAPS, &map),
            _ => request("PUT", &path, &map),
        };
        // Conflicts, and a server that is away, are part of it.
        if client.send(request).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn list_then_watch_equals_the_state_under_concurrent_writers_and_restarts() {
    let mut server = TestServer::start().await;
    let selectors = ["", "labelSelector=v%3D1", "labelSelector=v+notin+(0),v", "fieldSelector=metadata.name!%3Dw3"];
    let mut followers: Vec<Follower> = selectors
        .iter()
        .map(|selector| Follower { path: MAPS, selector, objects: BTreeMap::new(), version: String::new() })
        .collect();
    let client = server.admin().await;
    for follower in &mut followers {
        follower.list(&client).await;
    }
    for round in 0..4 {
        let client = server.admin().await;
        let until = tokio::time::Instant::now() + std::time::Duration::from_millis(1500);
        let writers =
            futures::future::join_all((1..5).map(|seed| write(&client, seed * 7919 + round * 104_729, until)));
        let following = futures::future::join_all(followers.iter_mut().map(async |follower| {
            while tokio::time::Instant::now() < until {
                if !follower.watch(&client).await {
                    follower.list(&client).await;
                }
            }
        }));
        futures::future::join(writers, following).await;
        if round % 2 == 1 {
            server = server.restart().await;
        }
        let client = server.admin().await;
        for follower in &mut followers {
            if !follower.watch(&client).await {
                follower.list(&client).await;
            }
            let (_, list) = get(&client, &format!("{MAPS}?{}", follower.selector)).await;
            let items = list["items"].as_array().unwrap();
            let state: BTreeMap<String, Value> =
                items.iter().map(|i| (i["metadata"]["name"].as_str().unwrap().into(), i.clone())).collect();
            assert_eq!(follower.objects, state, "round {round}, {}", follower.selector);
        }
    }
    server.stop().await;
}
