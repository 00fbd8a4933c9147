//! Policies and bindings as they are used.

use kube1_api::cel::{Composed, Env, Type};
use kube1_api::expression::Expression;
use kube1_api::selector::LabelSelector;
use serde_json::Value;

use crate::metrics::policy as metrics;
use crate::webhook::{FailurePolicy, Rules};

use super::super::subject::View;

pub(super) type Compiled = Result<Expression, String>;

/// Which requests a policy, or one of its bindings, is about.
pub(super) struct Matches {
    rules: Rules,
    except: Rules,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

impl Matches {
    fn new(resources: &Value) -> Self {
        let equivalent = resources["matchPolicy"] != "Exact";
        let selector = |value: &Value| LabelSelector::from_value(value).unwrap_or_default();
        Self {
            rules: Rules::new(&resources["resourceRules"], equivalent),
            except: Rules::new(&resources["excludeResourceRules"], equivalent),
            namespaces: selector(&resources["namespaceSelector"]),
            objects: selector(&resources["objectSelector"]),
        }
    }

    /// Group and version of the rule that concerns the request; its own where all requests are meant.
    pub fn find<'a>(&self, view: &'a View<'_>) -> Option<(&'a str, &'a str)> {
        let subject = view.subject();
        let own = (subject.group, subject.version);
        let selected = view.in_namespaces(&self.namespaces) && view.selects_object(&self.objects);
        if !selected || self.except.find(&subject).is_some() {
            return None;
        }
        if self.rules.is_empty() { Some(own) } else { self.rules.find(&subject) }
    }
}

pub(super) struct Binding {
    pub name: String,
    policy: String,
    pub param_ref: Value,
    pub matches: Matches,
    pub actions: Vec<String>,
}

impl Binding {
    pub fn new(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let actions = spec["validationActions"].as_array().into_iter().flatten();
        Self {
            name: text(&binding["metadata"]["name"]),
            policy: text(&spec["policyName"]),
            param_ref: spec["paramRef"].clone(),
            matches: Matches::new(&spec["matchResources"]),
            actions: actions.map(text).collect(),
        }
    }

    pub fn acts(&self, action: &str) -> bool {
        self.actions.iter().any(|a| a == action)
    }
}

impl Clone for Binding {
    fn clone(&self) -> Self {
        let (rules, except) = (self.matches.rules.clone(), self.matches.except.clone());
        let (namespaces, objects) = (self.matches.namespaces.clone(), self.matches.objects.clone());
        Self {
            name: self.name.clone(),
            policy: self.policy.clone(),
            param_ref: self.param_ref.clone(),
            matches: Matches { rules, except, namespaces, objects },
            actions: self.actions.clone(),
        }
    }
}

pub(super) struct Validation {
    pub expression: Compiled,
    pub text: String,
    pub message: String,
    pub message_expression: Option<Compiled>,
    pub code: u16,
}

pub(super) enum Mutation {
    Apply(Compiled),
    Patch(Compiled),
}

pub(super) struct Policy {
    pub name: String,
    pub matches: Matches,
    pub conditions: Vec<(String, Compiled)>,
    pub variables: Composed,
    pub failure: FailurePolicy,
    /// apiVersion and kind of parameter objects.
    pub param_kind: Option<(String, String)>,
    pub validations: Vec<Validation>,
    pub annotations: Vec<(String, Compiled)>,
    pub mutations: Vec<Mutation>,
    pub reinvoke: bool,
    pub bindings: Vec<Binding>,
}

impl Policy {
    /// Takes its own out of all bindings.
    pub fn new(policy: &Value, bindings: &[Binding]) -> Self {
        let (name, spec) = (text(&policy["metadata"]["name"]), &policy["spec"]);
        let items = |member: &str| spec[member].as_array().cloned().unwrap_or_default();
        let param = &spec["paramKind"];
        let mut env = Env::admission(Type::Dyn).composing();
        if param.is_object() {
            env = env.with("params", Type::Dyn);
        }
        let messages = env.clone();
        let mut env = env.with_authorizer();
        let mut variables = Composed::default();
        for variable in items("variables") {
            let (name, compiled) = (
                text(&variable["name"]),
                metrics::compiled(|| Expression::compile(words(&variable["expression"]), &env)),
            );
            env.compose(&name, compiled.as_ref().map_or(Type::Dyn, |c| c.output().clone()));
            variables.programs.push((name, compiled.map(Expression::into_program)));
        }
        let messages = env.share_composed(messages);
        let named = |member: &str, key: &str, expression: &str, gives: &[Type]| -> Vec<(String, Compiled)> {
            let of = |item: &Value| (text(&item[key]), Expression::typed(words(&item[expression]), &env, gives));
            items(member).iter().map(of).collect()
        };
        Self {
            matches: Matches::new(&spec["matchConstraints"]),
            conditions: named("matchConditions", "name", "expression", &[Type::Bool]),
            failure: if spec["failurePolicy"] == "Ignore" { FailurePolicy::Ignore } else { FailurePolicy::Fail },
            param_kind: param.is_object().then(|| (text(&param["apiVersion"]), text(&param["kind"]))),
            validations: items("validations").iter().map(|v| validation(v, &env, &messages)).collect(),
            annotations: named("auditAnnotations", "key", "valueExpression", &[Type::String, Type::Null]),
            mutations: items("mutations").iter().map(|m| mutation(m, &env.clone().patching())).collect(),
            variables,
            reinvoke: spec["reinvocationPolicy"] == "IfNeeded",
            bindings: bindings.iter().filter(|b| b.policy == name).cloned().collect(),
            name,
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Messages do not see the authorizer.
fn validation(validation: &Value, env: &Env, messages: &Env) -> Validation {
    let code = match validation["reason"].as_str() {
        Some("Unauthorized") => 401,
        Some("Forbidden") => 403,
        Some("RequestEntityTooLarge") => 413,
        _ => 422,
    };
    Validation {
        expression: metrics::compiled(|| Expression::condition(words(&validation["expression"]), env)),
        text: text(&validation["expression"]).trim().to_owned(),
        message: text(&validation["message"]).trim().to_owned(),
        message_expression: validation["messageExpression"]
            .as_str()
            .filter(|e| !e.is_empty())
            .map(|e| Expression::typed(e, messages, &[Type::String])),
        code,
    }
}

fn mutation(mutation: &Value, env: &Env) -> Mutation {
    let compile = |kind: &str, gives: Type| Expression::typed(words(&mutation[kind]["expression"]), env, &[gives]);
    match mutation["patchType"].as_str() {
        Some("JSONPatch") => Mutation::Patch(compile("jsonPatch", Type::list(Type::object("JSONPatch")))),
        _ => Mutation::Apply(compile("applyConfiguration", Type::object("Object"))),
    }
}
