//! MutatingAdmissionPolicy.

use async_trait::async_trait;
use kube1_api::apply;
use kube1_api::cel::{Activation, BUDGET, Value as Cel};
use kube1_api::codec::FieldValidation;
use kube1_api::expression::Budget;
use kube1_api::patch::json_patch;
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use serde_json::Value;

use super::config::{Binding, Compiled, Mutation, Policy};
use super::{Policies, facts, params};
use crate::admission::subject::{Versioned, View, all_hold, complete, is_exempt};
use crate::admission::{Attributes, Configured, Operation, Plugin};

const KIND: &str = "MutatingAdmissionPolicy";

/// Changes objects by the expressions of policies, one policy after the other.
pub struct MutatingPolicies {
    configured: Configured,
    policies: Policies,
}

/// What made evaluating impossible, in the order in which it was met.
#[derive(Default)]
struct Failures(Vec<(String, Option<&'static str>)>);

impl Failures {
    fn add(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str, reason: Option<&'static str>) {
        if !policy.fails() {
            return;
        }
        let name = &policy.name;
        let message = match binding {
            Some(binding) => format!("policy '{name}' with binding '{}' denied request: {why}", binding.name),
            None => format!("policy {name:?} denied request: {why}"),
        };
        self.0.push((message, reason));
    }

    fn into_result(self, attributes: &Attributes) -> Result<(), Status> {
        let Some((first, reason)) = self.0.first() else { return Ok(()) };
        let status = attributes.forbidden("admission request denied by policy").with_message(first);
        let status = status.with_reason(reason.unwrap_or("Forbidden"));
        Err(self.0.iter().fold(status, |status, (message, _)| status.with_cause("", message, "")))
    }
}

/// A policy that a write concerns, through one binding and with one parameter object.
struct Invocation<'p> {
    policy: &'p Policy,
    binding: &'p Binding,
    param: Value,
    group: String,
    version: String,
}

impl Invocation<'_> {
    fn key(&self) -> String {
        let metadata = &self.param["metadata"];
        let text = |member: &str| metadata[member].as_str().unwrap_or_default();
        format!("{}/{}/{}/{}", self.policy.name, self.binding.name, text("namespace"), text("name"))
    }
}

/// What one mutation came to.
enum Failed {
    /// The policy says whether it refuses the request.
    Policy(String),
    Request(Status),
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self::Policy(why)
    }
}

impl MutatingPolicies {
    pub fn new(configured: Configured) -> Self {
        let policies = Policies::new("mutatingadmissionpolicies", "mutatingadmissionpolicybindings");
        Self { configured, policies }
    }

    async fn run(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let (policies, mut failures) = (self.policies.get(&self.configured), Failures::default());
        let again = attributes.rounds.again;
        let invocations = self.invocations(attributes, &policies, &mut failures);
        if !invocations.is_empty() {
            attributes.rounds.policies.begin(again, attributes.object.as_ref());
            for invocation in &invocations {
                self.invoke(attributes, invocation, &mut failures).await?;
            }
            attributes.rounds.policies.end(attributes.object.as_ref());
        }
        failures.into_result(attributes)
    }

    /// Which policies concern the write as it is before the first of them changes it.
    fn invocations<'p>(
        &self,
        attributes: &Attributes,
        policies: &'p [Policy],
        failures: &mut Failures,
    ) -> Vec<Invocation<'p>> {
        let table = self.configured.table.load();
        let view = View::new(attributes, &self.configured.reader, &table);
        let mut invocations = Vec::new();
        for policy in policies {
            let Some((group, version)) = policy.matches.find(&view) else { continue };
            let row = match params::row(&self.configured, policy) {
                Ok(row) => row,
                Err(why) => {
                    failures.add(policy, None, &format!("failed to configure policy: {why}"), None);
                    continue;
                }
            };
            for binding in policy.bindings_of(&view) {
                let found = params::find(&self.configured, row.as_deref(), binding, attributes);
                let found = found.unwrap_or_else(|why| {
                    failures.add(policy, Some(binding), &format!("failed to configure binding: {why}"), None);
                    Vec::new()
                });
                let (group, version) = (group.to_owned(), version.to_owned());
                let with =
                    |param| Invocation { policy, binding, param, group: group.clone(), version: version.clone() };
                invocations.extend(found.into_iter().map(with));
            }
        }
        invocations
    }

    /// Lets the mutations of a policy see what those before them did.
    async fn invoke(
        &self,
        attributes: &mut Attributes,
        invocation: &Invocation<'_>,
        failures: &mut Failures,
    ) -> Result<(), Status> {
        let Invocation { policy, binding, param, .. } = invocation;
        let table = self.configured.table.load();
        let view = View::new(attributes, &self.configured.reader, &table);
        let mut versioned =
            match view.in_version(&self.configured.resolver, &invocation.group, &invocation.version).await {
                Ok(versioned) => versioned,
                Err(status) => {
                    failures.add(policy, None, &format!("failed to configure policy: {}", status.message()), None);
                    return Ok(());
                }
            };
        let options = attributes.options.clone().unwrap_or_default();
        {
            let facts = facts(&self.configured, &view, &versioned, &options);
            match all_hold(&policy.conditions, &policy.activation(&facts, None, param)) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(why) => {
                    failures.add(policy, Some(binding), &why, Some("Invalid"));
                    return Ok(());
                }
            }
        }
        let key = invocation.key();
        if attributes.rounds.again && !attributes.rounds.policies.is_wanted(&key) {
            return Ok(());
        }
        let mut applied = false;
        for mutation in &policy.mutations {
            let facts = facts(&self.configured, &view, &versioned, &options);
            let activation = policy.activation(&facts, Some(&view), param);
            let Some(object) = &versioned.object else { break };
            match mutate(mutation, &versioned.row, object, &activation) {
                Ok(changed) => {
                    drop(activation);
                    drop(facts);
                    versioned.object = Some(changed);
                    applied = true;
                }
                Err(Failed::Policy(why)) => failures.add(policy, Some(binding), &why, Some("Invalid")),
                Err(Failed::Request(status)) => return Err(status),
            }
        }
        let Versioned { row, object, .. } = versioned;
        let object = match object.filter(|_| applied) {
            Some(object) => Some(view.back_from(&self.configured.resolver, &row, object).await?),
            None => None,
        };
        if policy.reinvoke {
            attributes.rounds.policies.note(key);
        }
        if let Some(object) = object {
            attributes.object = Some(object);
            // Even those that changed nothing may want to see what others do with the result.
            attributes.rounds.policies.changed();
            attributes.rounds.needed = true;
        }
        Ok(())
    }
}

fn mutate(mutation: &Mutation, row: &Resource, object: &Value, activation: &Activation<'_>) -> Result<Value, Failed> {
    let mut budget = Budget::new(BUDGET);
    let mut value = |expression: &Compiled| match expression {
        Ok(expression) => expression.spend(activation, &mut budget).map_err(|e| e.to_string())?,
        Err(why) => Err(why.clone()),
    };
    match mutation {
        Mutation::Apply(expression) => {
            let made = value(expression)?;
            check_names(&made, "Object").map_err(|why| format!("type mismatch: {why}"))?;
            let mut config = made.to_json().ok_or("the apply configuration is no plain object".to_owned())?;
            for member in ["apiVersion", "kind"] {
                config[member] = object[member].clone();
            }
            let merged = apply::merge(row, object, config).map_err(|why| format!("error applying patch: {why}"))?;
            complete(row, merged, FieldValidation::Ignore).map_err(Failed::Request)
        }
        Mutation::Patch(expression) => {
            let made = value(expression)?;
            if let Cel::List(operations) = &made {
                for operation in operations.iter() {
                    if let Cel::Struct(operation) = &operation
                        && let Some(value) = operation.fields.get("value")
                        && let Cel::Struct(of) = value
                    {
                        check_names(value, &of.name).map_err(|why| format!("type mismatch: {why}"))?;
                    }
                }
            }
            let patch = made.to_json();
            let patch = patch
                .ok_or("JSONPath valueExpression evaluated to a type that could not marshal to JSON".to_owned())?;
            match json_patch(object, &patch) {
                Ok(changed) => complete(row, changed, FieldValidation::Strict).map_err(Failed::Request),
                // A test that does not hold leaves the object as it is.
                Err(error) if error.to_string().ends_with("test failed") => Ok(object.clone()),
                Err(error) => Err(Failed::Policy(format!("JSON Patch: {error}"))),
            }
        }
    }
}

/// Types of objects are named by where they are: what is in the field `spec` of an `Object` is an `Object.spec`.
fn check_names(value: &Cel<'_>, expected: &str) -> Result<(), String> {
    match value {
        Cel::Struct(of) => {
            if *of.name != *expected {
                let found = &of.name;
                return Err(format!(
                    "unexpected type name {found:?}, expected {expected:?}, which matches field name path from root Object type"
                ));
            }
            of.fields.iter().try_for_each(|(name, value)| check_names(value, &format!("{expected}.{name}")))
        }
        Cel::List(list) => list.iter().try_for_each(|item| check_names(&item, expected)),
        Cel::Map(map) => map.iter().try_for_each(|(_, value)| check_names(&value, expected)),
        _ => Ok(()),
    }
}

#[async_trait]
impl Plugin for MutatingPolicies {
    fn name(&self) -> &'static str {
        KIND
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        let is_write = attributes.operation != Operation::Delete && !is_exempt(attributes);
        is_write && !self.policies.get(&self.configured).is_empty()
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        self.run(attributes).await
    }
}
