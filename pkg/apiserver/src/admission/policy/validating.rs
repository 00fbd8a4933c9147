//! ValidatingAdmissionPolicy.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kube1_api::cel::{Activation, BUDGET, MESSAGE_MAX, Value as Cel};
use kube1_api::expression::{Budget, OutOfBudget};
use kube1_api::status::Status;
use serde_json::Value;

use super::config::{Binding, Policy};
use super::{Policies, evaluate, facts, params};
use crate::admission::attributes::ordered;
use crate::admission::subject::{Facts, View, all_hold, is_exempt};
use crate::admission::{Attributes, Configured, Plugin};
use crate::metrics::policy as metrics;

const KIND: &str = "ValidatingAdmissionPolicy";
const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";
/// Bytes of the longest value of an audit annotation.
const ANNOTATION_MAX: usize = 10 << 10;

pub struct ValidatingPolicies {
    configured: Configured,
    policies: Policies,
}

impl ValidatingPolicies {
    pub fn new(configured: Configured) -> Self {
        let policies = Policies::new("validatingadmissionpolicies", "validatingadmissionpolicybindings");
        Self { configured, policies }
    }
}

/// What the policies found.
#[derive(Default)]
struct Findings {
    refusal: Option<Status>,
    warnings: Vec<String>,
    /// The first one, which is the one that is noted.
    failure: Option<String>,
    annotations: Vec<(String, String)>,
}

/// A validation that does not hold, or what stands for all of them where none can be had.
struct Denial {
    index: usize,
    message: String,
    code: u16,
}

impl Findings {
    fn refuse(&mut self, attributes: &Attributes, policy: &str, binding: Option<&Binding>, message: &str, code: u16) {
        let binding = binding.map_or(String::new(), |b| format!(" with binding '{}'", b.name));
        let text = format!("{KIND} '{policy}'{binding} denied request: {message}");
        let status = || attributes.forbidden(&text).with_code(code).with_cause("", &text, "");
        self.refusal.get_or_insert_with(status);
    }

    /// Does what the binding says is to be done.
    fn deny(&mut self, attributes: &Attributes, policy: &Policy, binding: &Binding, denial: &Denial) {
        let Denial { index, message, code } = denial;
        if binding.acts("Deny") {
            self.refuse(attributes, &policy.name, Some(binding), message, *code);
        }
        if binding.acts("Warn") {
            let (policy, binding) = (&policy.name, &binding.name);
            self.warnings.push(format!("Validation failed for {KIND} '{policy}' with binding '{binding}': {message}"));
        }
        if binding.acts("Audit") {
            let about = || {
                ordered(&[
                    ("message", message.as_str().into()),
                    ("policy", policy.name.as_str().into()),
                    ("binding", binding.name.as_str().into()),
                    ("expressionIndex", (*index).into()),
                    ("validationActions", binding.actions.clone().into()),
                ])
            };
            self.failure.get_or_insert_with(about);
        }
    }
}

#[async_trait]
impl Plugin for ValidatingPolicies {
    fn name(&self) -> &'static str {
        KIND
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        !is_exempt(attributes) && !self.policies.get(&self.configured).is_empty()
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let policies = self.policies.get(&self.configured);
        let findings = self.judge(attributes, &policies).await?;
        attributes.warnings.extend(findings.warnings);
        attributes.audit_annotations.extend(findings.annotations);
        if let Some(first) = findings.failure {
            attributes.annotate(FAILURES, format!("[{first}]"));
        }
        findings.refusal.map_or(Ok(()), Err)
    }
}

impl ValidatingPolicies {
    async fn judge(&self, attributes: &Attributes, policies: &[Policy]) -> Result<Findings, Status> {
        let table = self.configured.table.load();
        let view = View::new(attributes, &self.configured.reader, &table);
        let options = attributes.options.clone().unwrap_or_default();
        let mut findings = Findings::default();
        for policy in policies {
            let Some((group, version)) = policy.matches.find(&view) else { continue };
            let row = match params::row(&self.configured, policy) {
                Ok(row) => row,
                Err(why) => {
                    if policy.fails() {
                        let why = format!("failed to configure policy: {why}");
                        findings.refuse(attributes, &policy.name, None, &why, 422);
                    }
                    continue;
                }
            };
            let bindings = policy.bindings_of(&view);
            if bindings.is_empty() {
                continue;
            }
            let versioned = view.in_version(&self.configured.resolver, group, version).await?;
            let facts = facts(&self.configured, &view, &versioned, &options);
            let mut annotations = Annotations::default();
            for binding in bindings {
                let found = match params::find(&self.configured, row.as_deref(), binding, attributes) {
                    Ok(found) => found,
                    Err(why) => {
                        if policy.fails() {
                            let why = format!("failed to configure binding: {why}");
                            findings.refuse(attributes, &policy.name, Some(binding), &why, 422);
                        }
                        continue;
                    }
                };
                for param in &found {
                    let run = Run { policy, binding, facts: &facts, view: &view, param };
                    run.judge(attributes, &mut findings, &mut annotations);
                }
            }
            let named = |(key, values): (String, Vec<String>)| (format!("{}/{key}", policy.name), values.join(", "));
            findings.annotations.extend(annotations.0.into_iter().map(named));
        }
        Ok(findings)
    }
}

/// Values of audit annotations, each once.
#[derive(Default)]
struct Annotations(BTreeMap<String, Vec<String>>);

impl Annotations {
    fn add(&mut self, key: &str, value: &str) {
        let fits = |at: &usize| *at <= ANNOTATION_MAX;
        let ends = value.char_indices().map(|(at, character)| at + character.len_utf8());
        let value = &value[..ends.take_while(fits).last().unwrap_or(0)];
        let values = self.0.entry(key.to_owned()).or_default();
        if !values.iter().any(|v| v == value) {
            values.push(value.to_owned());
        }
    }
}

/// One evaluation of a policy: through one binding, with one parameter object.
struct Run<'a> {
    policy: &'a Policy,
    binding: &'a Binding,
    facts: &'a Facts<'a>,
    view: &'a View<'a>,
    param: &'a Value,
}

impl Run<'_> {
    fn judge(&self, attributes: &Attributes, findings: &mut Findings, annotations: &mut Annotations) {
        let started = Instant::now();
        let evaluated = self.evaluated();
        self.note(&evaluated, started.elapsed());
        match evaluated {
            Ok(None) => {}
            Ok(Some((denials, made))) => {
                for denial in denials {
                    findings.deny(attributes, self.policy, self.binding, &denial);
                }
                for (key, value) in made {
                    match value {
                        Ok(Some(value)) => annotations.add(&key, &value),
                        Ok(None) => {}
                        Err(why) if self.policy.fails() => {
                            findings.refuse(attributes, &self.policy.name, Some(self.binding), &why, 422);
                        }
                        Err(_) => {}
                    }
                }
            }
            Err(message) if self.policy.fails() => {
                let denial = Denial { index: 0, message, code: 422 };
                findings.deny(attributes, self.policy, self.binding, &denial);
            }
            Err(_) => {}
        }
    }

    /// Counts the evaluation, once for each action that it leads to.
    fn note(&self, evaluated: &Result<Option<Evaluated>, String>, took: Duration) {
        metrics::evaluated(took);
        let (error, failed) = match evaluated {
            Ok(None) => return,
            Ok(Some((denials, _))) => ("no_error", !denials.is_empty()),
            Err(_) => ("invalid_error", self.policy.fails()),
        };
        let count = |action| metrics::checked(&self.policy.name, &self.binding.name, error, action, took);
        if !failed {
            return count("allow");
        }
        for (name, action) in [("Deny", "deny"), ("Warn", "warn"), ("Audit", "audit")] {
            if self.binding.acts(name) {
                count(action);
            }
        }
    }

    /// What does not hold and the audit annotations; none if the policy is not about the request. The error stands for
    /// all of it.
    fn evaluated(&self) -> Result<Option<Evaluated>, String> {
        if !all_hold(&self.policy.conditions, &self.policy.activation(self.facts, None, self.param))? {
            return Ok(None);
        }
        let (mut budget, mut outcomes) = (Budget::new(BUDGET), Vec::new());
        let activation = self.policy.activation(self.facts, Some(self.view), self.param);
        for validation in &self.policy.validations {
            let outcome = evaluate(&validation.expression, &activation, &mut budget).map_err(|e| e.to_string())?;
            outcomes.push(outcome.map(|value| matches!(value, Cel::Bool(true))));
        }
        let messages = self.messages(&mut budget);
        let mut denials = Vec::new();
        for (index, (validation, outcome)) in self.policy.validations.iter().zip(outcomes).enumerate() {
            let failed = match (outcome, &messages) {
                (Err(message), _) => Err(message),
                (Ok(_), Err(why)) => Err(format!("failed messageExpression: {why}")),
                (Ok(true), Ok(_)) => continue,
                (Ok(false), Ok(messages)) => Ok(messages[index].clone()),
            };
            match failed {
                Ok(message) => denials.push(Denial { index, message, code: validation.code }),
                Err(message) if self.policy.fails() => denials.push(Denial { index, message, code: 422 }),
                Err(_) => {}
            }
        }
        Ok(Some((denials, self.annotations()?)))
    }

    /// Messages and annotations are made without it.
    fn without_authorizer(&self) -> Activation<'_> {
        let mut activation = self.policy.activation(self.facts, Some(self.view), self.param);
        for name in ["authorizer", "authorizer.requestResource"] {
            activation.unset(name);
        }
        activation
    }

    /// What is said of each validation if it does not hold.
    fn messages(&self, budget: &mut Budget) -> Result<Vec<String>, OutOfBudget> {
        let activation = self.without_authorizer();
        let mut messages = Vec::new();
        for validation in &self.policy.validations {
            let made = match &validation.message_expression {
                Some(expression) => evaluate(expression, &activation, budget)?.ok(),
                None => None,
            };
            let text = made.as_ref().and_then(Cel::as_text).map(str::trim);
            let text = text.filter(|t| !t.is_empty() && t.len() <= MESSAGE_MAX && !t.contains('\n'));
            messages.push(match (text, validation.message.as_str()) {
                (Some(text), _) => text.to_owned(),
                (None, "") => format!("failed expression: {}", validation.text),
                (None, message) => message.to_owned(),
            });
        }
        Ok(messages)
    }

    fn annotations(&self) -> Result<Vec<(String, Annotation)>, String> {
        let (mut budget, mut made) = (Budget::new(BUDGET), Vec::new());
        let activation = self.without_authorizer();
        for (key, expression) in &self.policy.annotations {
            let value = evaluate(expression, &activation, &mut budget).map_err(|e| e.to_string())?;
            let value = value.map(|v| v.as_text().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()));
            made.push((key.clone(), value));
        }
        Ok(made)
    }
}

/// An audit annotation's value, if it has one.
type Annotation = Result<Option<String>, String>;
type Evaluated = (Vec<Denial>, Vec<(String, Annotation)>);
