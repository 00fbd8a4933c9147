//! MutatingAdmissionPolicy.

use async_trait::async_trait;
use kube1_api::apply;
use kube1_api::cel::{Activation, BUDGET, Value as Cel};
use kube1_api::expression::Budget;
use kube1_api::patch::json_patch;
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use serde_json::Value;

use super::config::{Binding, Mutation, Policy};
use super::{Policies, evaluate, facts, params};
use crate::admission::subject::{Versioned, View, all_hold, is_exempt};
use crate::admission::{Attributes, Configured, Plugin};

const KIND: &str = "MutatingAdmissionPolicy";

/// Changes objects by the expressions of policies, one policy after the other.
pub struct MutatingPolicies {
    configured: Configured,
    policies: Policies,
}

/// What made evaluating impossible, in the order in which it was met.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn add(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str) {
        if !policy.fails() {
            return;
        }
        let name = &policy.name;
        self.0.push(match binding {
            Some(binding) => format!("policy '{name}' with binding '{}' denied request: {why}", binding.name),
            None => format!("policy {name:?} denied request: {why}"),
        });
    }

    fn into_result(self, attributes: &Attributes) -> Result<(), Status> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let status = attributes.forbidden("admission request denied by policy").with_message(first);
        Err(self.0.iter().fold(status, |status, message| status.with_cause("", message, "")))
    }
}

impl MutatingPolicies {
    pub fn new(configured: Configured) -> Self {
        let policies = Policies::new("mutatingadmissionpolicies", "mutatingadmissionpolicybindings");
        Self { configured, policies }
    }

    async fn run(&self, attributes: &mut Attributes, again: bool) -> Result<(), Status> {
        let (policies, mut failures) = (self.policies.get(&self.configured), Failures::default());
        for policy in policies.iter().filter(|p| !again || p.reinvoke) {
            if let Some(changed) = self.policy(attributes, policy, &mut failures).await? {
                attributes.object = Some(changed);
            }
        }
        failures.into_result(attributes)
    }

    /// The object after the mutations of a policy through all its bindings; none if it stays as it is.
    async fn policy(
        &self,
        attributes: &Attributes,
        policy: &Policy,
        failures: &mut Failures,
    ) -> Result<Option<Value>, Status> {
        let table = self.configured.table.load();
        let view = View::new(attributes, &self.configured.reader, &table);
        let Some((group, version)) = policy.matches.find(&view) else { return Ok(None) };
        let row = match params::row(&self.configured, policy) {
            Ok(row) => row,
            Err(why) => {
                failures.add(policy, None, &why);
                return Ok(None);
            }
        };
        let mut versioned = None;
        for binding in policy.bindings_of(&view) {
            let found = match params::find(&self.configured, row.as_deref(), binding, attributes) {
                Ok(found) => found,
                Err(why) => {
                    failures.add(policy, Some(binding), &why);
                    continue;
                }
            };
            if versioned.is_none() {
                versioned = Some(view.in_version(&self.configured.resolver, group, version).await?);
            }
            let Some(versioned) = &mut versioned else { continue };
            for param in &found {
                self.mutations(&view, versioned, policy, param, &mut |why| failures.add(policy, Some(binding), &why));
            }
        }
        let Some(Versioned { row, object: Some(object), .. }) = versioned else { return Ok(None) };
        view.back_from(&self.configured.resolver, &row, object).await.map(Some)
    }

    /// Lets each mutation see what those before it did.
    fn mutations(
        &self,
        view: &View<'_>,
        versioned: &mut Versioned,
        policy: &Policy,
        param: &Value,
        failed: &mut dyn FnMut(String),
    ) {
        let options = view.attributes.options.clone().unwrap_or_default();
        for (index, mutation) in policy.mutations.iter().enumerate() {
            let facts = facts(&self.configured, view, versioned, &options);
            let activation = policy.activation(&facts, view, param);
            if index == 0 {
                match all_hold(&policy.conditions, &activation) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(why) => return failed(why),
                }
            }
            let Some(object) = &versioned.object else { return };
            match mutate(mutation, &versioned.row, object, &activation) {
                Ok(changed) => {
                    drop(activation);
                    drop(facts);
                    versioned.object = Some(changed);
                }
                Err(why) => failed(why),
            }
        }
    }
}

fn mutate(mutation: &Mutation, row: &Resource, object: &Value, activation: &Activation<'_>) -> Result<Value, String> {
    let mut budget = Budget::new(BUDGET);
    let mut value = |expression| evaluate(expression, activation, &mut budget).map_err(|e| e.to_string())?;
    match mutation {
        Mutation::Apply(expression) => {
            let made = value(expression)?;
            check_names(&made, "Object").map_err(|why| format!("type mismatch: {why}"))?;
            let mut config = made.to_json().ok_or("the apply configuration is no plain object")?;
            for member in ["apiVersion", "kind"] {
                config[member] = object[member].clone();
            }
            apply::merge(row, object, config).map_err(|why| format!("error applying patch: {why}"))
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
            let patch =
                made.to_json().ok_or("JSONPath valueExpression evaluated to a type that could not marshal to JSON")?;
            match json_patch(object, &patch) {
                Ok(changed) => Ok(changed),
                // A test that does not hold leaves the object as it is.
                Err(error) if error.to_string().ends_with("test failed") => Ok(object.clone()),
                Err(error) => Err(format!("JSON Patch: {error}")),
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
        let has_object = attributes.object.is_some() && !is_exempt(attributes);
        has_object && !self.policies.get(&self.configured).is_empty()
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        self.run(attributes, false).await
    }

    async fn mutate_again(&self, attributes: &mut Attributes) -> Result<(), Status> {
        self.run(attributes, true).await
    }
}
