//! ValidatingAdmissionPolicy.

use async_trait::async_trait;
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::config::Validation;
use super::{Policies, Run, denied, each_run};
use crate::admission::subject::{View, is_exempt};
use crate::admission::{Attributes, Configured, Plugin};

const KIND: &str = "ValidatingAdmissionPolicy";
const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";

/// Judges by the expressions of policies.
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
    failures: Vec<Value>,
    annotations: Vec<(String, String)>,
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
        if !findings.failures.is_empty() {
            attributes.audit_annotations.insert(FAILURES.into(), json!(findings.failures).to_string());
        }
        findings.refusal.map_or(Ok(()), Err)
    }
}

impl ValidatingPolicies {
    async fn judge(&self, attributes: &Attributes, policies: &[super::Policy]) -> Result<Findings, Status> {
        let table = self.configured.table.load();
        let view = View::new(attributes, &self.configured.reader, &table);
        let findings = std::cell::RefCell::new(Findings::default());
        for policy in policies {
            let Some((group, version)) = policy.matches.find(&view) else { continue };
            let versioned = view.in_version(&self.configured.resolver, group, version).await?;
            each_run(
                &self.configured,
                &view,
                policy,
                &versioned,
                &mut |run| evaluate(attributes, run, &mut findings.borrow_mut()),
                &mut |binding, why| {
                    let status = denied(attributes, KIND, &policy.name, &binding.name, &why, 422);
                    findings.borrow_mut().refusal.get_or_insert(status);
                },
            );
        }
        Ok(findings.into_inner())
    }
}

fn evaluate(attributes: &Attributes, run: &Run<'_>, findings: &mut Findings) {
    let (policy, binding) = (run.policy, run.binding);
    for (index, validation) in policy.validations.iter().enumerate() {
        let Some(message) = verdict(run, validation) else { continue };
        if binding.acts("Deny") {
            let status = denied(attributes, KIND, &policy.name, &binding.name, &message, validation.code);
            findings.refusal.get_or_insert(status);
        }
        if binding.acts("Warn") {
            findings.warnings.push(format!(
                "Validation failed for {KIND} '{}' with binding '{}': {message}",
                policy.name, binding.name
            ));
        }
        if binding.acts("Audit") {
            findings.failures.push(json!({"message": message, "policy": policy.name, "binding": binding.name,
                "expressionIndex": index, "validationActions": binding.actions}));
        }
    }
    for (key, expression) in &policy.annotations {
        let value = expression.as_ref().ok().and_then(|e| e.evaluate(&run.bindings).ok());
        if let Some(Value::String(text)) = value {
            findings.annotations.push((format!("{}/{key}", policy.name), text));
        }
    }
}

/// The message of a validation that does not hold.
fn verdict(run: &Run<'_>, validation: &Validation) -> Option<String> {
    match validation.expression.as_ref().map_err(Clone::clone).and_then(|e| e.holds(&run.bindings)) {
        Ok(true) => None,
        Ok(false) => Some(message(run, validation)),
        Err(why) => run.failure(&why),
    }
}

fn message(run: &Run<'_>, validation: &Validation) -> String {
    let made = validation.message_expression.as_ref().and_then(|e| e.as_ref().ok()?.evaluate(&run.bindings).ok());
    match made.as_ref().and_then(Value::as_str).map(str::trim) {
        Some(text) if !text.is_empty() && !text.contains('\n') => text.to_owned(),
        _ if !validation.message.is_empty() => validation.message.clone(),
        _ => format!("failed expression: {}", validation.text),
    }
}
