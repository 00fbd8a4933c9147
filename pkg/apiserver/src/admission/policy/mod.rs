//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: expressions that users configure.

mod config;
mod mutating;
mod params;
mod validating;

use std::sync::Arc;

use kube1_api::expression::Bindings;
use kube1_api::status::Status;
use parking_lot::Mutex;
use serde_json::Value;

pub use mutating::MutatingPolicies;
pub use validating::ValidatingPolicies;

use super::subject::{Versioned, View, all_hold, bindings};
use super::{Attributes, Configured};
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

/// One evaluation of a policy: through one binding, with one parameter object.
struct Run<'a> {
    policy: &'a Policy,
    binding: &'a Binding,
    bindings: Bindings,
    versioned: &'a Versioned,
}

impl Run<'_> {
    /// What a failure to evaluate comes to.
    fn failure(&self, why: &str) -> Option<String> {
        (self.policy.failure == FailurePolicy::Fail).then(|| why.to_owned())
    }
}

/// Calls `each` for every evaluation of the policy that the request is subject to, in the version that it asks for. `refuse` hears of what makes
/// evaluating impossible and is not to be ignored.
fn each_run(
    configured: &Configured,
    view: &View<'_>,
    policy: &Policy,
    versioned: &Versioned,
    each: &mut dyn FnMut(&Run<'_>),
    refuse: &mut dyn FnMut(&Binding, String),
) {
    let options = view.attributes.options.clone().unwrap_or_default();
    for binding in policy.bindings.iter().filter(|b| b.matches.find(view).is_some()) {
        let params = match params::find(configured, policy, binding, view.attributes) {
            Ok(params) => params,
            Err(why) => {
                if policy.failure == FailurePolicy::Fail {
                    refuse(binding, why);
                }
                continue;
            }
        };
        for param in params {
            let review = view.review("v1", versioned, &options);
            let mut bindings = bindings(&review, &configured.authorizer);
            bindings.set("params", &param);
            bindings.set("namespaceObject", view.namespace.as_ref().unwrap_or(&Value::Null));
            match all_hold(&policy.conditions, &bindings) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(why) => {
                    if policy.failure == FailurePolicy::Fail {
                        refuse(binding, why);
                    }
                    continue;
                }
            }
            for (name, variable) in &policy.variables {
                // What does not compile is left out, so that only its users fail.
                if let Ok(variable) = variable {
                    bindings.compose(name, variable);
                }
            }
            each(&Run { policy, binding, bindings, versioned });
        }
    }
}

/// A denial as the client sees it.
fn denied(attributes: &Attributes, kind: &str, policy: &str, binding: &str, message: &str, code: u16) -> Status {
    let text = format!("{kind} '{policy}' with binding '{binding}' denied request: {message}");
    attributes.forbidden(text).with_code(code)
}
