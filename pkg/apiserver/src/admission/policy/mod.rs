//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: expressions that users configure.

mod config;
mod mutating;
mod params;
mod validating;

use std::sync::Arc;

use kube1_api::cel::{Activation, NAMESPACE, Value as Cel};
use kube1_api::expression::{Budget, OutOfBudget};
use parking_lot::Mutex;
use serde_json::Value;

pub use mutating::MutatingPolicies;
pub use validating::ValidatingPolicies;

use super::Configured;
use super::subject::{Facts, Versioned, View};
use crate::webhook::FailurePolicy;
use config::{Binding, Policy};

const GROUP: &str = "admissionregistration.k8s.io";

/// Policies of one kind with their bindings, compiled once for each change of them.
struct Policies {
    policies: &'static str,
    bindings: &'static str,
    compiled: Mutex<Compiled>,
}

#[derive(Clone, Default)]
struct Compiled {
    revisions: (u64, u64),
    policies: Arc<Vec<Policy>>,
}

impl Policies {
    fn new(policies: &'static str, bindings: &'static str) -> Self {
        Self { policies, bindings, compiled: Mutex::default() }
    }

    /// By name.
    fn get(&self, configured: &Configured) -> Arc<Vec<Policy>> {
        let collection = |plural| configured.reader.collection(GROUP, plural);
        let (Some(policies), Some(bindings)) = (collection(self.policies), collection(self.bindings)) else {
            return Arc::default();
        };
        let revisions = (policies.revision(), bindings.revision());
        let mut compiled = self.compiled.lock();
        if compiled.revisions != revisions {
            let bindings: Vec<Binding> = bindings.all(None).iter().map(|b| Binding::new(&b.value())).collect();
            let policies = policies.all(None).into_iter().map(|p| Policy::new(&p.value(), &bindings)).collect();
            *compiled = Compiled { revisions, policies: Arc::new(policies) };
        }
        compiled.policies.clone()
    }
}

impl Policy {
    /// Whether what makes evaluating impossible refuses the request.
    fn fails(&self) -> bool {
        self.failure == FailurePolicy::Fail
    }

    /// Bindings that are about the request.
    fn bindings_of(&self, view: &View<'_>) -> Vec<&Binding> {
        self.bindings.iter().filter(|b| b.matches.find(view).is_some()).collect()
    }

    /// What an evaluation with one parameter object sees.
    /// Conditions have no view: they do not see the namespace.
    fn activation<'a>(&'a self, facts: &'a Facts<'_>, view: Option<&'a View<'_>>, param: &'a Value) -> Activation<'a> {
        let mut activation = facts.activation();
        activation.set("params", Cel::of_json(param));
        activation.set_composed(&self.variables);
        if let Some(namespace) = view.and_then(|v| v.namespace.as_ref()) {
            activation.set("namespaceObject", Cel::shaped(namespace, &NAMESPACE));
        }
        activation
    }
}

fn facts<'a>(configured: &Configured, view: &'a View<'_>, versioned: &'a Versioned, options: &'a Value) -> Facts<'a> {
    Facts::new(&view.review("v1", versioned, options), &configured.authorizer)
}

/// Evaluates what may not have compiled. The inner error is the expression's.
fn evaluate<'a>(
    expression: &config::Compiled,
    activation: &Activation<'a>,
    budget: &mut Budget,
) -> Result<Result<Cel<'a>, String>, OutOfBudget> {
    match expression {
        Ok(expression) => expression.spend(activation, budget),
        Err(why) => Ok(Err(format!("compilation error: {why}"))),
    }
}
