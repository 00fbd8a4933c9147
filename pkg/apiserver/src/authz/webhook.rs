//! Authorization by a webhook: SubjectAccessReviews sent to a server outside.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kube1_api::cel::Env;
use kube1_api::expression::{Bindings, Expression};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::config::WebhookConfig;
use super::meters::AuthorizerMetrics;
use super::{Authorizer, Decision, Rules};
use crate::dial::Remote;
use crate::request_info::RequestInfo;
use crate::user::UserInfo;

/// Answers that are remembered; when full, what is outdated goes, or all.
const ENTRIES_MAX: usize = 8192;
/// Longer questions are not remembered: whoever asks chooses what is in them.
const KEY_MAX: usize = 10_000;
const BACKOFF: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 5;

/// Asks one webhook.
pub struct WebhookAuthorizer {
    name: String,
    remote: Remote,
    config: WebhookConfig,
    conditions: Vec<Expression>,
    cache: Mutex<HashMap<String, (Instant, Answer)>>,
    metrics: AuthorizerMetrics,
}

#[derive(Clone, Debug, PartialEq)]
struct Answer {
    allowed: bool,
    denied: bool,
    reason: String,
}

impl WebhookAuthorizer {
    /// `config` must have been checked.
    pub fn new(name: &str, config: WebhookConfig, remote: Remote, metrics: AuthorizerMetrics) -> Result<Self, String> {
        let env = Env::authorization();
        let conditions = config.match_conditions.iter().map(|c| Expression::condition(&c.expression, &env));
        let conditions = conditions.collect::<Result<_, _>>()?;
        Ok(Self { name: name.to_owned(), remote, config, conditions, cache: Mutex::default(), metrics })
    }

    /// Whether the webhook is to be asked; the error is that of a condition.
    fn concerned(&self, spec: &Value) -> Result<bool, String> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let mut bindings = Bindings::new();
        bindings.set("request", complete(spec));
        let mut failed = None;
        for condition in &self.conditions {
            match condition.holds(&bindings) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(true), Err)
    }

    async fn ask(&self, spec: &Value) -> Result<Answer, String> {
        let key = spec.to_string();
        if let Some((until, answer)) = self.cache.lock().get(&key)
            && Instant::now() < *until
        {
            return Ok(answer.clone());
        }
        let started = Instant::now();
        let asked = self.send(spec).await;
        let result = match &asked {
            Ok(_) => "success",
            Err(error) if error.contains("deadline exceeded") => "timeout",
            Err(_) => "error",
        };
        self.metrics.webhook(&self.name, result, started.elapsed());
        let answer = asked?;
        if key.len() < KEY_MAX {
            self.remember(key, answer.clone());
        }
        Ok(answer)
    }

    fn remember(&self, key: String, answer: Answer) {
        let (enabled, ttl) = match answer.allowed {
            true => (self.config.cache_authorized_requests, self.config.authorized_ttl.0),
            false => (self.config.cache_unauthorized_requests, self.config.unauthorized_ttl.0),
        };
        if !enabled.unwrap_or(true) {
            return;
        }
        let mut cache = self.cache.lock();
        if cache.len() >= ENTRIES_MAX {
            let now = Instant::now();
            cache.retain(|_, (until, _)| now < *until);
            if cache.len() >= ENTRIES_MAX {
                cache.clear();
            }
        }
        cache.insert(key, (Instant::now() + ttl, answer));
    }

    async fn send(&self, spec: &Value) -> Result<Answer, String> {
        let mut spec = spec.clone();
        if self.config.subject_access_review_version == "v1beta1"
            && let Some(members) = spec.as_object_mut()
            && let Some(groups) = members.remove("groups")
        {
            members.insert("group".into(), groups);
        }
        let version = format!("authorization.k8s.io/{}", self.config.subject_access_review_version);
        let review = json!({"apiVersion": version, "kind": "SubjectAccessReview", "metadata": {"creationTimestamp": null},
            "spec": spec, "status": {"allowed": false}});
        let sent = self.remote.post_with_retry(review.to_string().into(), self.config.timeout.0, BACKOFF, ATTEMPTS);
        let body = sent.await.map_err(|error| format!("{}: {error}", self.remote.url()))?;
        let answer: Value = serde_json::from_slice(&body).map_err(|e| format!("{}: {e}", self.remote.url()))?;
        let status = &answer["status"];
        let flag = |key: &str| status[key].as_bool().unwrap_or(false);
        let reason = status["reason"].as_str().unwrap_or_default().to_owned();
        let answer = Answer { allowed: flag("allowed"), denied: flag("denied"), reason };
        if answer.allowed && answer.denied {
            return Err("webhook subject access review returned both allow and deny response".into());
        }
        Ok(answer)
    }

    /// What a failure comes to.
    fn failed(&self, error: &str) -> Decision {
        tracing::warn!(webhook = self.name, error, "an authorization webhook failed");
        match self.config.failure_policy.as_str() {
            "Deny" => Decision::Deny(String::new()),
            _ => {
                self.metrics.failed_open(&self.name);
                Decision::NoOpinion(String::new())
            }
        }
    }

    async fn decide(&self, user: &UserInfo, request: &RequestInfo) -> (Decision, String) {
        let spec = spec(user, request);
        match self.concerned(&spec) {
            Ok(true) => {}
            Ok(false) => {
                self.metrics.excluded(&self.name);
                return (Decision::NoOpinion(String::new()), String::new());
            }
            Err(error) => {
                self.metrics.condition_failed(&self.name);
                return (self.failed(&error), String::new());
            }
        }
        match self.ask(&spec).await {
            Ok(Answer { denied: true, reason, .. }) => (Decision::Deny(reason), String::new()),
            Ok(Answer { allowed: true, reason, .. }) => (Decision::Allow, reason),
            Ok(Answer { reason, .. }) => (Decision::NoOpinion(reason), String::new()),
            Err(error) => (self.failed(&error), String::new()),
        }
    }
}

#[async_trait]
impl Authorizer for WebhookAuthorizer {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        self.decide(user, request).await.0
    }

    async fn explain(&self, user: &UserInfo, request: &RequestInfo) -> (Decision, String) {
        self.decide(user, request).await
    }

    async fn rules(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        let errors = vec!["webhook authorizer does not support user rule resolution".into()];
        Rules { incomplete: true, errors, ..Rules::default() }
    }
}

/// The question as the spec of a SubjectAccessReview.
fn spec(user: &UserInfo, request: &RequestInfo) -> Value {
    let mut spec = Map::new();
    let mut attributes = Map::new();
    let mut put = |key: &str, text: &str| {
        if !text.is_empty() {
            attributes.insert(key.to_owned(), text.into());
        }
    };
    put("verb", &request.verb);
    let kind = if request.is_resource {
        put("namespace", &request.namespace);
        put("group", &request.group);
        put("version", &request.version);
        put("resource", &request.resource);
        put("subresource", &request.subresource);
        put("name", &request.name);
        for (key, raw) in [("fieldSelector", &request.field_selector), ("labelSelector", &request.label_selector)] {
            let requirements = requirements(raw, key == "labelSelector");
            if !requirements.is_empty() {
                attributes.insert(key.into(), json!({"requirements": requirements}));
            }
        }
        "resourceAttributes"
    } else {
        put("path", &request.path);
        "nonResourceAttributes"
    };
    spec.insert(kind.into(), attributes.into());
    spec.insert("user".into(), user.name.clone().into());
    spec.insert("groups".into(), user.groups.clone().into());
    if !user.uid.is_empty() {
        spec.insert("uid".into(), user.uid.clone().into());
    }
    if !user.extra.is_empty() {
        spec.insert("extra".into(), json!(user.extra));
    }
    spec.into()
}

/// What of a selector can be told as requirements; what is left out only makes the question wider.
fn requirements(raw: &str, labels: bool) -> Vec<Value> {
    let terms = raw.split(',').map(str::trim).filter(|term| !term.is_empty());
    // A set is told in parentheses, with commas that part nothing.
    if raw.contains('(') {
        return Vec::new();
    }
    let one = |key: &str, operator: &str, value: Option<&str>| {
        let mut requirement = json!({"key": key.trim(), "operator": operator});
        if let Some(value) = value {
            requirement["values"] = json!([value.trim()]);
        }
        requirement
    };
    terms
        .filter_map(|term| {
            if let Some((key, value)) = term.split_once("!=") {
                return Some(one(key, "NotIn", Some(value)));
            }
            if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                return Some(one(key, "In", Some(value)));
            }
            match term.strip_prefix('!') {
                _ if !labels => None,
                Some(key) => Some(one(key, "DoesNotExist", None)),
                None => Some(one(term, "Exists", None)),
            }
        })
        .collect()
}

/// The spec as conditions see it: texts that were left out are empty, so that reading them is no error.
fn complete(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let texts: [(&str, &[&str]); 2] = [
        ("resourceAttributes", &["namespace", "verb", "group", "version", "resource", "subresource", "name"]),
        ("nonResourceAttributes", &["path", "verb"]),
    ];
    for (kind, keys) in texts {
        if let Some(attributes) = spec.get_mut(kind).and_then(Value::as_object_mut) {
            for key in keys {
                attributes.entry(*key).or_insert_with(|| "".into());
            }
        }
    }
    for (key, empty) in [("uid", json!("")), ("extra", json!({}))] {
        if let Some(members) = spec.as_object_mut() {
            members.entry(key).or_insert(empty);
        }
    }
    spec
}
