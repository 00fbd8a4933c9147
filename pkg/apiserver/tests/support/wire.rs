//! Requests as they go over the wire.

use std::time::{Duration, Instant};

use http::HeaderMap;
use kube::client::Body;
use serde_json::{Value, json};

use super::TestServer;

/// A client that adds nothing to what it is told to send.
pub struct Wire(pub kube::Client);

#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The body, if it is JSON.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The message of a Status, else the text.
    pub fn message(&self) -> String {
        self.value()["message"].as_str().map_or_else(|| self.text(), str::to_owned)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The texts of the warnings.
    pub fn warnings(&self) -> Vec<String> {
        let all = self.headers.get_all("warning").iter();
        all.map(|v| v.to_str().unwrap().trim_start_matches("299 - ").trim_matches('"').to_owned()).collect()
    }

    /// The body of a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.code < 300, "{}", self.text());
        self.value()
    }
}

impl Wire {
    /// As an administrator.
    pub async fn admin(server: &TestServer) -> Self {
        Self(server.admin().await)
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.0.send(request.body(Body::from(body.into())).unwrap()).await.unwrap();
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { code, headers, bytes: response.into_body().collect_bytes().await.unwrap().to_vec() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub async fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send(method, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn apply(&self, path: &str, manager: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/apply-patch+yaml")];
        self.send("PATCH", &format!("{path}?fieldManager={manager}"), &headers, body.to_string()).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, &[("content-type", "application/merge-patch+json")], body.to_string()).await
    }

    /// Asks until the answer is as wished.
    pub async fn until(&self, path: &str, wished: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.get(path).await;
            if wished(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "waited too long: {path}: {} {}", answer.code, answer.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Creates a definition of `KIND.example.com` and waits until its versions are served.
    pub async fn define(&self, kind: &str, versions: &Value, conversion: &Value) -> String {
        let plural = format!("{}s", kind.to_lowercase());
        let mut definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.example.com")}, "spec": {"group": "example.com",
                "scope": "Namespaced", "versions": versions, "names": {"plural": plural, "kind": kind}}});
        if conversion.is_object() {
            definition["spec"]["conversion"] = conversion.clone();
        }
        self.json("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await.ok();
        for version in versions.as_array().unwrap().iter().filter(|v| v["served"] == true) {
            let version = version["name"].as_str().unwrap();
            self.until(&format!("/apis/example.com/{version}/{plural}"), |answer| answer.code == 200).await;
        }
        plural
    }
}
