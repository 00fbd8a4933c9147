//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: asks the cluster's own webhooks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::join_all;
use kube1_api::status::Status;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::subject::{Facts, View, all_hold, is_exempt};
use super::{Attributes, Configured, Plugin};
use crate::dial::{self, Address, Target, Trust};
use crate::metrics::WebhookCall;
use crate::reader::StorageReader;
use crate::webhook::{ClientConfig, FailurePolicy, Hook, hooks};

const GROUP: &str = "admissionregistration.k8s.io";

/// The hooks of one kind of configuration, compiled once for each change of them.
struct Configurations {
    plural: &'static str,
    compiled: Mutex<(u64, Arc<Vec<Hook>>)>,
}

impl Configurations {
    fn new(plural: &'static str) -> Self {
        Self { plural, compiled: Mutex::default() }
    }

    /// By name of configuration, then as listed.
    fn hooks(&self, reader: &StorageReader) -> Arc<Vec<Hook>> {
        let Some(collection) = reader.collection(GROUP, self.plural) else { return Arc::default() };
        let revision = collection.revision();
        let mut compiled = self.compiled.lock();
        if compiled.0 != revision {
            let all = collection.all(None);
            *compiled = (revision, Arc::new(all.iter().flat_map(|c| hooks(&c.value())).collect()));
        }
        compiled.1.clone()
    }
}

/// What came of asking a webhook.
#[derive(Default)]
struct Asked {
    annotations: BTreeMap<String, String>,
    warnings: Vec<String>,
    /// The object in the request's version, if the webhook changed it.
    changed: Option<Value>,
    /// What changed it.
    patch: Option<Value>,
    /// It failed, which its failurePolicy ignores.
    failed_open: bool,
}

impl Configured {
    /// Asks one webhook if the request concerns it. An error refuses the request.
    async fn ask(&self, hook: &Hook, attributes: &Attributes, mutating: bool) -> Result<Option<Asked>, Status> {
        let table = self.table.load();
        let view = View::new(attributes, &self.reader, &table);
        let Some((group, version)) = hook.rules.find(&view.subject()) else { return Ok(None) };
        if !view.in_namespaces(&hook.namespace_selector) || !view.selects_object(&hook.object_selector) {
            return Ok(None);
        }
        let versioned = match view.in_version(&self.resolver, group, version).await {
            Ok(versioned) => versioned,
            Err(status) => return failed(hook, status.message()),
        };
        let options = attributes.options.clone().unwrap_or_default();
        let review = view.review(hook.version, &versioned, &options);
        if !hook.conditions.is_empty() {
            match all_hold(&hook.conditions, &Facts::new(&review, &self.authorizer).activation()) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(_) if hook.failure_policy == FailurePolicy::Ignore => return Ok(None),
                Err(error) => return Err(attributes.forbidden(error)),
            }
        }
        if attributes.dry_run && hook.has_side_effects {
            let text = format!("admission webhook \"{}\" does not support dry run", hook.name);
            return Err(Status::bad_request(text));
        }
        let call = WebhookCall {
            name: &hook.name,
            kind: if mutating { "admit" } else { "validating" },
            operation: attributes.operation.as_str(),
        };
        let (started, body) = (Instant::now(), review.to_json().to_string());
        let answer = match self
            .post(hook, patience(hook.timeout, attributes.deadline), body)
            .await
            .and_then(|body| review.answer(&body))
        {
            Ok(answer) => answer,
            Err(error) => {
                let outcome = failed(hook, &error);
                match &outcome {
                    Err(status) => self.metrics.webhook(call, Some((status.code(), false)), started.elapsed()),
                    Ok(_) => self.metrics.failed_open(call),
                }
                return outcome;
            }
        };
        let denied = answer.denied(&hook.name);
        self.metrics.webhook(call, denied.as_ref().map(|status| (status.code(), true)), started.elapsed());
        if let Some(denied) = denied {
            return Err(denied);
        }
        let annotations = answer.audit_annotations.iter();
        let annotations =
            annotations.map(|(k, v)| (format!("{}/{k}", hook.name), v.as_str().unwrap_or_default().to_owned()));
        let mut asked =
            Asked { annotations: annotations.collect(), warnings: answer.warnings.clone(), ..Asked::default() };
        if let Some(object) = versioned.object.clone().filter(|_| mutating && answer.patch.is_some()) {
            match answer.apply(object) {
                Ok(changed) => {
                    asked.changed = Some(view.back_from(&self.resolver, &versioned.row, changed).await?);
                    asked.patch = answer.patch;
                }
                Err(error) => return failed(hook, error.message()),
            }
        }
        Ok(Some(asked))
    }

    async fn post(&self, hook: &Hook, timeout: Duration, body: String) -> Result<bytes::Bytes, String> {
        let trust = Trust::bundle(hook.ca_bundle.clone());
        let seconds = timeout.as_millis().div_ceil(1000);
        let (target, path, url) = match &hook.client {
            ClientConfig::Service { namespace, name, path, port } => {
                let address = self.resolver.endpoint(namespace, name, &port.to_string()).map_err(|e| e.to_string())?;
                let server_name = format!("{name}.{namespace}.svc");
                let url = format!("https://{server_name}:{port}{}", rooted(path));
                (Target { address: address.into(), server_name, trust, identity: None }, rooted(path), url)
            }
            ClientConfig::Url(url) => {
                let uri: http::Uri = url.parse().map_err(|e| format!("the URL \"{url}\" is malformed: {e}"))?;
                let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                let address = Address::Host(host.clone(), uri.port_u16().unwrap_or(443));
                (Target { address, server_name: host, trust, identity: None }, uri.path().to_owned(), url.clone())
            }
        };
        let path = format!("{path}?timeout={seconds}s");
        let answered = dial::post(&target, &path, body.into(), timeout).await;
        let failed = |why: String| format!("failed to call webhook: Post \"{url}?timeout={seconds}s\": {why}");
        let response = answered.map_err(|error| failed(error.with_cause()))?;
        if !response.status.is_success() {
            return Err(failed(format!("the server answered {}", response.status)));
        }
        Ok(response.body)
    }
}

/// A webhook has no more time than the request that waits for it.
fn patience(timeout: Duration, deadline: Option<Instant>) -> Duration {
    deadline.map_or(timeout, |deadline| timeout.min(deadline.saturating_duration_since(Instant::now())))
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// A webhook that gives no usable answer.
fn failed(hook: &Hook, error: &str) -> Result<Option<Asked>, Status> {
    if hook.failure_policy == FailurePolicy::Ignore {
        tracing::warn!(webhook = hook.name, error, "a webhook failed and is ignored, as its failurePolicy says");
        return Ok(Some(Asked { failed_open: true, ..Asked::default() }));
    }
    Err(Status::internal(format!("failed calling webhook \"{}\": {error}", hook.name)))
}

/// Notes for the audit what a mutating webhook did.
fn annotate(asked: &mut Asked, hook: &Hook, attributes: &Attributes, place: &str) {
    if asked.failed_open {
        asked.annotations.insert(format!("failed-open.mutation.{place}"), hook.name.clone());
        return;
    }
    let mutated = asked.changed.is_some() && asked.changed != attributes.object;
    let about = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": mutated});
    asked.annotations.insert(format!("mutation.{place}"), about.to_string());
    if let Some(patch) = asked.patch.take().filter(|_| mutated) {
        let about = json!({"configuration": hook.configuration, "webhook": hook.name, "patch": patch,
            "patchType": "JSONPatch"});
        asked.annotations.insert(format!("patch.{place}"), about.to_string());
    }
}

fn note(attributes: &mut Attributes, asked: Asked) {
    attributes.audit_annotations.extend(asked.annotations);
    attributes.warnings.extend(asked.warnings);
}

/// Asks webhooks one after the other; each sees what those before it changed.
pub struct MutatingWebhooks {
    configured: Configured,
    configurations: Configurations,
}

impl MutatingWebhooks {
    pub fn new(configured: Configured) -> Self {
        Self { configured, configurations: Configurations::new("mutatingwebhookconfigurations") }
    }

    async fn run(&self, attributes: &mut Attributes, again: bool) -> Result<(), Status> {
        let hooks = self.configurations.hooks(&self.configured.reader);
        for (index, hook) in hooks.iter().enumerate().filter(|(_, h)| !again || h.reinvoke) {
            let Some(mut asked) = self.configured.ask(hook, attributes, true).await? else { continue };
            let place = format!("webhook.admission.k8s.io/round_{}_index_{index}", u8::from(again));
            annotate(&mut asked, hook, attributes, &place);
            if let Some(changed) = asked.changed.take() {
                attributes.object = Some(changed);
            }
            note(attributes, asked);
        }
        Ok(())
    }
}

#[async_trait]
impl Plugin for MutatingWebhooks {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        !is_exempt(attributes) && !self.configurations.hooks(&self.configured.reader).is_empty()
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        self.run(attributes, false).await
    }

    async fn mutate_again(&self, attributes: &mut Attributes) -> Result<(), Status> {
        self.run(attributes, true).await
    }
}

/// Asks webhooks all at once.
pub struct ValidatingWebhooks {
    configured: Configured,
    configurations: Configurations,
}

impl ValidatingWebhooks {
    pub fn new(configured: Configured) -> Self {
        Self { configured, configurations: Configurations::new("validatingwebhookconfigurations") }
    }
}

#[async_trait]
impl Plugin for ValidatingWebhooks {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        !is_exempt(attributes) && !self.configurations.hooks(&self.configured.reader).is_empty()
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let hooks = self.configurations.hooks(&self.configured.reader);
        let asked = join_all(hooks.iter().map(|hook| self.configured.ask(hook, attributes, false))).await;
        let mut refused = None;
        for (index, outcome) in asked.into_iter().enumerate() {
            match outcome {
                Ok(Some(mut asked)) => {
                    if asked.failed_open {
                        let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
                        asked.annotations.insert(key, hooks[index].name.clone());
                    }
                    note(attributes, asked);
                }
                Ok(None) => {}
                Err(status) => refused = refused.or(Some(status)),
            }
        }
        refused.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_waits_no_longer_than_the_request() {
        let (long, short) = (Duration::from_secs(20), Duration::from_secs(5));
        let deadline = Some(Instant::now() + Duration::from_secs(10));
        assert_eq!(patience(long, None), long);
        assert_eq!(patience(short, deadline), short);
        let left = patience(long, deadline);
        assert!(left <= Duration::from_secs(10) && left.as_millis().div_ceil(1000) == 10, "{left:?}");
    }
}
