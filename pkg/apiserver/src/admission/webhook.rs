//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: asks the cluster's own webhooks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::join_all;
use kube1_api::codec::FieldValidation;
use kube1_api::status::Status;
use parking_lot::Mutex;
use serde_json::Value;

use super::attributes::ordered;
use super::subject::{Facts, Versioned, View, all_hold, complete, is_configuration};
use super::{Attributes, Configured, Plugin};
use crate::dial::{self, Address, Target, Trust};
use crate::metrics::WebhookCall;
use crate::reader::StorageReader;
use crate::webhook::{Answer, ClientConfig, FailurePolicy, Hook, hooks};

const GROUP: &str = "admissionregistration.k8s.io";
/// Bytes of a webhook's error page that are told on.
const SAID_MAX: usize = 2048;

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

/// A webhook that a write concerns, and what it is asked about.
struct Invocation<'a> {
    hook: &'a Hook,
    versioned: Arc<Versioned>,
}

/// What came of asking a webhook.
#[derive(Default)]
struct Asked {
    annotations: BTreeMap<String, String>,
    warnings: Vec<String>,
    /// The object in the request's version, if the webhook patched it.
    patched: Option<Value>,
    /// What changed it.
    patch: Option<Value>,
    /// It failed, which its failurePolicy ignores.
    failed_open: bool,
    refused: Option<Status>,
}

impl Asked {
    fn refused(status: Status) -> Self {
        Self { refused: Some(status), ..Self::default() }
    }
}

impl Configured {
    /// Whether a write concerns a webhook. `known` holds the objects in versions that others asked for.
    async fn invocation<'a>(
        &self,
        hook: &'a Hook,
        view: &View<'_>,
        known: &mut Vec<Arc<Versioned>>,
    ) -> Result<Option<Invocation<'a>>, Status> {
        if !view.in_namespaces(&hook.namespace_selector) || !view.selects_object(&hook.object_selector) {
            return Ok(None);
        }
        let Some((group, version)) = hook.rules.find(&view.subject()) else { return Ok(None) };
        let is_it = |v: &&Arc<Versioned>| (v.row.group.as_str(), v.row.version.as_str()) == (group, version);
        let versioned = match known.iter().find(is_it) {
            Some(versioned) => versioned.clone(),
            None => {
                let made = view.in_version(&self.resolver, group, version).await;
                let made = Arc::new(made.map_err(|status| Status::internal(status.message()))?);
                known.push(made.clone());
                made
            }
        };
        if !hook.conditions.is_empty() {
            let options = view.attributes.options.clone().unwrap_or_default();
            let review = view.review(hook.version, &versioned, &options);
            match all_hold(&hook.conditions, &Facts::new(&review, &self.authorizer).activation()) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(_) if hook.failure_policy == FailurePolicy::Ignore => return Ok(None),
                Err(error) => {
                    let (resource, name) = (view.attributes.group_resource(), &view.attributes.name);
                    return Err(Status::forbidden(&resource, name, error));
                }
            }
        }
        Ok(Some(Invocation { hook, versioned }))
    }

    /// Asks one webhook.
    async fn ask(&self, invocation: &Invocation<'_>, view: &View<'_>, mutating: bool) -> Asked {
        let (Invocation { hook, versioned }, attributes) = (invocation, view.attributes);
        if attributes.dry_run && hook.has_side_effects {
            let text = format!("admission webhook \"{}\" does not support dry run", hook.name);
            return Asked::refused(Status::bad_request(text));
        }
        let options = attributes.options.clone().unwrap_or_default();
        let review = view.review(hook.version, versioned, &options);
        let call = WebhookCall {
            name: &hook.name,
            kind: if mutating { "admit" } else { "validating" },
            operation: attributes.operation.as_str(),
        };
        let (started, body) = (Instant::now(), review.to_json().to_string());
        let posted = self.post(hook, patience(hook.timeout, attributes.deadline), body);
        let posted = kube1_trace::within(
            if mutating { "Call mutating webhook" } else { "Call validating webhook" },
            || vec![("configuration", hook.configuration.as_str().into()), ("webhook", hook.name.as_str().into())],
            posted,
        );
        let answer = match posted.await.and_then(|body| review.answer(&body, mutating)) {
            Ok(answer) => answer,
            Err(error) => {
                let outcome = failed(hook, &error);
                match &outcome.refused {
                    Some(status) => self.metrics.webhook(call, Some((status.code(), false)), started.elapsed()),
                    None => self.metrics.failed_open(call),
                }
                return outcome;
            }
        };
        let refused = answer.denied(&hook.name);
        self.metrics.webhook(call, refused.as_ref().map(|status| (status.code(), true)), started.elapsed());
        let annotations = answer.audit_annotations.iter();
        let annotations =
            annotations.map(|(k, v)| (format!("{}/{k}", hook.name), v.as_str().unwrap_or_default().to_owned()));
        let warnings = answer.warnings.clone();
        let mut asked = Asked { annotations: annotations.collect(), warnings, refused, ..Asked::default() };
        if asked.refused.is_none() && answer.patch.is_some() {
            match self.patched(invocation, view, &answer).await {
                Ok(object) => asked.patched = Some(object),
                Err(status) => asked.refused = Some(status),
            }
            asked.patch = answer.patch;
        }
        asked
    }

    /// The object with the answer's patch, complete and in the request's version.
    async fn patched(&self, invocation: &Invocation<'_>, view: &View<'_>, answer: &Answer) -> Result<Value, Status> {
        let (hook, versioned) = (invocation.hook, &invocation.versioned);
        let Some(object) = view.object(versioned) else {
            let text = format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                hook.name
            );
            return Err(Status::internal(text));
        };
        let changed = answer.apply(object.clone())?;
        let changed = complete(&versioned.row, changed, FieldValidation::Ignore)?;
        view.back_from(&self.resolver, &versioned.row, changed).await
    }

    async fn post(&self, hook: &Hook, timeout: Duration, body: String) -> Result<bytes::Bytes, String> {
        let trust = Trust::bundle(hook.ca_bundle.clone());
        let seconds = timeout.as_millis().div_ceil(1000);
        let failed = |url: &str, why: &dyn std::fmt::Display| {
            format!("failed to call webhook: Post \"{url}?timeout={seconds}s\": {why}")
        };
        let (address, server_name, port, path, url) = match &hook.client {
            ClientConfig::Service { namespace, name, path, port } => {
                let server_name = format!("{name}.{namespace}.svc");
                let url = format!("https://{server_name}:{port}{}", rooted(path));
                let address = self.resolver.endpoint(namespace, name, &port.to_string());
                let address = address.map_err(|error| failed(&url, &error))?;
                (address.into(), server_name, *port, rooted(path), url)
            }
            ClientConfig::Url(url) => {
                let uri: http::Uri = url.parse().map_err(|e| format!("the URL \"{url}\" is malformed: {e}"))?;
                let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                let port = uri.port_u16().unwrap_or(443);
                (Address::Host(host.clone(), port), host, port, uri.path().to_owned(), url.clone())
            }
        };
        let credential = self.credentials.of(&server_name, port);
        let (identity, headers) = match &credential {
            Some(credential) => (credential.identity.clone(), credential.headers().await),
            None => Default::default(),
        };
        let target = Target { address, server_name, trust, identity };
        let path = format!("{path}?timeout={seconds}s");
        let answered = dial::post_with(&target, &path, &headers, body.into(), timeout).await;
        let response = answered.map_err(|error| failed(&url, &error.with_cause()))?;
        if !response.status.is_success() {
            return Err(format!("failed to call webhook: {}", status_text(response.status, &response.body)));
        }
        Ok(response.body)
    }
}

/// A webhook has no more time than the request that waits for it.
fn patience(timeout: Duration, deadline: Option<Instant>) -> Duration {
    deadline.map_or(timeout, |deadline| timeout.min(deadline.saturating_duration_since(Instant::now())))
}

/// A webhook's HTTP status in the words of Kubernetes' clients.
fn status_text(status: http::StatusCode, body: &[u8]) -> String {
    let said = || String::from_utf8_lossy(&body[..body.len().min(SAID_MAX)]).trim().to_owned();
    match status.as_u16() {
        400 => "the server rejected our request for an unknown reason".into(),
        401 => "the server has asked for the client to provide credentials".into(),
        403 => said(),
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        409 => "the server reported a conflict".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        500 => format!("an error on the server ({:?}) has prevented the request from succeeding", said()),
        503 => "the server is currently unable to handle the request".into(),
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .into()
        }
        code => format!("the server responded with the status code {code} but did not return more information"),
    }
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// A webhook that gives no usable answer.
fn failed(hook: &Hook, error: &str) -> Asked {
    if hook.failure_policy == FailurePolicy::Ignore {
        tracing::warn!(webhook = hook.name, error, "a webhook failed and is ignored, as its failurePolicy says");
        return Asked { failed_open: true, ..Asked::default() };
    }
    Asked::refused(Status::internal(format!("failed calling webhook \"{}\": {error}", hook.name)))
}

/// Whether the request's client has stopped waiting.
fn check_deadline(attributes: &Attributes) -> Result<(), Status> {
    if attributes.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(Status::timeout("request did not complete within requested timeout"));
    }
    Ok(())
}

/// Notes for the audit what a mutating webhook did.
fn annotate(asked: &mut Asked, hook: &Hook, place: &str, changed: bool) {
    if asked.failed_open {
        asked.annotations.insert(format!("failed-open.mutation.{place}"), hook.name.clone());
    }
    let about = |more: &[(&str, Value)]| {
        let hook = [("configuration", hook.configuration.as_str().into()), ("webhook", hook.name.as_str().into())];
        ordered(&[&hook, more].concat())
    };
    asked.annotations.insert(format!("mutation.{place}"), about(&[("mutated", changed.into())]));
    if let Some(patch) = asked.patch.take().filter(|_| asked.patched.is_some()) {
        let patch = about(&[("patch", patch), ("patchType", "JSONPatch".into())]);
        asked.annotations.insert(format!("patch.{place}"), patch);
    }
}

fn note(attributes: &mut Attributes, asked: Asked) -> Result<(), Status> {
    for (key, value) in asked.annotations {
        attributes.annotate(key, value);
    }
    attributes.warnings.extend(asked.warnings);
    asked.refused.map_or(Ok(()), Err)
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
        attributes.rounds.webhooks.begin(again, attributes.object.as_ref());
        let mut known = Vec::new();
        for (index, hook) in hooks.iter().enumerate() {
            let key = format!("{}/{}/{index}", hook.configuration, hook.name);
            let mut asked = {
                let table = self.configured.table.load();
                let view = View::new(attributes, &self.configured.reader, &table);
                let Some(invocation) = self.configured.invocation(hook, &view, &mut known).await? else { continue };
                if again && !attributes.rounds.webhooks.is_wanted(&key) {
                    continue;
                }
                self.configured.ask(&invocation, &view, true).await
            };
            let changed = asked.patched.is_some() && asked.patched != attributes.object;
            let place = format!("webhook.admission.k8s.io/round_{}_index_{index}", u8::from(again));
            annotate(&mut asked, hook, &place, changed);
            if changed {
                attributes.object = asked.patched.take();
                attributes.rounds.webhooks.changed();
                attributes.rounds.needed = true;
                known.clear();
            }
            if hook.reinvoke {
                attributes.rounds.webhooks.note(key);
            }
            let failed_open = asked.failed_open;
            note(attributes, asked)?;
            if failed_open {
                check_deadline(attributes)?;
            }
        }
        attributes.rounds.webhooks.end(attributes.object.as_ref());
        Ok(())
    }
}

#[async_trait]
impl Plugin for MutatingWebhooks {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        !is_configuration(attributes) && !self.configurations.hooks(&self.configured.reader).is_empty()
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let again = attributes.rounds.again;
        self.run(attributes, again).await
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
        !is_configuration(attributes) && !self.configurations.hooks(&self.configured.reader).is_empty()
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let hooks = self.configurations.hooks(&self.configured.reader);
        let asked = {
            let table = self.configured.table.load();
            let view = View::new(attributes, &self.configured.reader, &table);
            let (mut known, mut invocations) = (Vec::new(), Vec::new());
            for hook in hooks.iter() {
                invocations.extend(self.configured.invocation(hook, &view, &mut known).await?);
            }
            if invocations.is_empty() {
                return Ok(());
            }
            check_deadline(attributes)?;
            let asked = join_all(invocations.iter().map(|i| self.configured.ask(i, &view, false))).await;
            asked.into_iter().zip(invocations.into_iter().map(|i| i.hook)).collect::<Vec<_>>()
        };
        let mut refused = None;
        for (index, (mut asked, hook)) in asked.into_iter().enumerate() {
            if asked.failed_open {
                let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
                asked.annotations.insert(key, hook.name.clone());
            }
            if let Err(status) = note(attributes, asked) {
                refused.get_or_insert(status);
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
