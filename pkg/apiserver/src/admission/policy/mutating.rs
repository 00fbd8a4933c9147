//! MutatingAdmissionPolicy.

use async_trait::async_trait;
use kube1_api::apply;
use kube1_api::patch::json_patch;
use kube1_api::status::Status;
use serde_json::Value;

use super::config::{Mutation, Policy};
use super::{Policies, Run, denied, each_run};
use crate::admission::subject::{Versioned, View, is_exempt};
use crate::admission::{Attributes, Configured, Plugin};
use crate::webhook::FailurePolicy;

const KIND: &str = "MutatingAdmissionPolicy";

/// Changes objects by the expressions of policies, one policy after the other.
pub struct MutatingPolicies {
    configured: Configured,
    policies: Policies,
}

impl MutatingPolicies {
    pub fn new(configured: Configured) -> Self {
        let policies = Policies::new("mutatingadmissionpolicies", "mutatingadmissionpolicybindings");
        Self { configured, policies }
    }

    async fn run(&self, attributes: &mut Attributes, again: bool) -> Result<(), Status> {
        let policies = self.policies.get(&self.configured);
        for policy in policies.iter().filter(|p| !again || p.reinvoke) {
            // Each mutation sees what those before it did.
            for index in 0..policy.mutations.len() {
                if let Some(changed) = self.mutation(attributes, policy, index).await? {
                    attributes.object = Some(changed);
                }
            }
        }
        Ok(())
    }

    /// The object after one mutation of a policy, through all its bindings.
    async fn mutation(&self, attributes: &Attributes, policy: &Policy, index: usize) -> Result<Option<Value>, Status> {
        let table = self.configured.table.load();
        let view = View::new(attributes, &self.configured.reader, &table);
        let Some((group, version)) = policy.matches.find(&view) else { return Ok(None) };
        let versioned = view.in_version(&self.configured.resolver, group, version).await?;
        let Some(object) = self.evaluated(&view, &versioned, policy, index)? else { return Ok(None) };
        view.back_from(&self.configured.resolver, &versioned.row, object).await.map(Some)
    }

    /// What the mutation makes of the object in the policy's version.
    fn evaluated(
        &self,
        view: &View<'_>,
        versioned: &Versioned,
        policy: &Policy,
        index: usize,
    ) -> Result<Option<Value>, Status> {
        let changed = std::cell::RefCell::new(None);
        let refusal = std::cell::RefCell::new(None);
        let refuse = |binding: &str, why: &str| {
            let status = denied(view.attributes, KIND, &policy.name, binding, why, 403);
            refusal.borrow_mut().get_or_insert(status);
        };
        each_run(
            &self.configured,
            view,
            policy,
            versioned,
            &mut |run| {
                let before = changed.borrow_mut().take().or_else(|| run.versioned.object.clone());
                let Some(before) = before else { return };
                match mutate(run, &policy.mutations[index], &before) {
                    Ok(after) => *changed.borrow_mut() = Some(after),
                    Err(why) => {
                        *changed.borrow_mut() = Some(before);
                        if policy.failure == FailurePolicy::Fail {
                            refuse(&run.binding.name, &why);
                        }
                    }
                }
            },
            &mut |binding, why| refuse(&binding.name, &why),
        );
        if let Some(status) = refusal.into_inner() {
            return Err(status);
        }
        Ok(changed.into_inner())
    }
}

fn mutate(run: &Run<'_>, mutation: &Mutation, object: &Value) -> Result<Value, String> {
    match mutation {
        Mutation::Apply(expression) => {
            let config = expression.as_ref().map_err(Clone::clone)?.evaluate(&run.bindings)?;
            if !config.is_object() {
                return Err("an apply configuration must be an Object".into());
            }
            Ok(apply::merge(&run.versioned.row, object, &config))
        }
        Mutation::Patch(expression) => {
            let patch = expression.as_ref().map_err(Clone::clone)?.evaluate(&run.bindings)?;
            json_patch(object, &patch).map_err(|error| error.to_string())
        }
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
