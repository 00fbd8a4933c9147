//! The variable `authorizer` of admission expressions: `authorizer.group('apps').resource('deployments').namespace('a')
//! .check('create').allowed()`.

use std::collections::HashMap;
use std::sync::Arc;

use cel::extractors::This;
use cel::objects::{Key, Map, Value};
use cel::{Context, ResolveResult};

/// What an expression asks of the authorizer. What it leaves out is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    pub verb: String,
    /// For requests that are for no resource.
    pub path: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// Namespace and name, when not the request's own user is asked about.
    pub service_account: Option<(String, String)>,
}

/// Whether it is allowed and why; the error says why there is no answer.
pub type Decide = dyn Fn(&Question) -> Result<(bool, String), String> + Send + Sync;

const STEPS: [&str; 6] = ["path", "group", "resource", "subresource", "namespace", "name"];
const ACCOUNT_NAMESPACE: &str = "serviceAccountNamespace";
const ACCOUNT_NAME: &str = "serviceAccountName";

fn text(value: impl Into<String>) -> Value {
    Value::String(Arc::new(value.into()))
}

/// A state is a map; anything else has no members.
fn with(this: &Value, members: &[(&str, Value)]) -> Value {
    let mut map: HashMap<Key, Value> = if let Value::Map(this) = this { (*this.map).clone() } else { HashMap::new() };
    map.extend(members.iter().map(|(name, value)| (Key::from(*name), value.clone())));
    Value::Map(Map { map: Arc::new(map) })
}

fn get(this: &Value, name: &str) -> Value {
    let Value::Map(this) = this else { return Value::Null };
    this.map.get(&Key::from(name)).cloned().unwrap_or(Value::Null)
}

fn get_text(this: &Value, name: &str) -> String {
    match get(this, name) {
        Value::String(text) => text.to_string(),
        _ => String::new(),
    }
}

fn question(this: &Value, verb: &str) -> Question {
    let account = (get_text(this, ACCOUNT_NAMESPACE), get_text(this, ACCOUNT_NAME));
    Question {
        verb: verb.to_owned(),
        path: get_text(this, "path"),
        group: get_text(this, "group"),
        resource: get_text(this, "resource"),
        subresource: get_text(this, "subresource"),
        namespace: get_text(this, "namespace"),
        name: get_text(this, "name"),
        service_account: Some(account).filter(|(_, name)| !name.is_empty()),
    }
}

/// Binds `authorizer`; `request` are the members of `authorizer.requestResource`.
pub(crate) fn bind(context: &mut Context<'static>, request: &Question, decide: Arc<Decide>) {
    for step in STEPS {
        let narrow = move |This(this): This<Value>, value: Arc<String>| -> ResolveResult {
            Ok(with(&this, &[(step, text(value.as_str()))]))
        };
        context.add_function(step, narrow);
    }
    // Selectors narrow what is asked; without them the question is the wider one.
    for selector in ["fieldSelector", "labelSelector"] {
        context.add_function(selector, |This(this): This<Value>, _: Arc<String>| -> ResolveResult { Ok(this) });
    }
    let account = |This(this): This<Value>, namespace: Arc<String>, name: Arc<String>| -> ResolveResult {
        let members = [(ACCOUNT_NAMESPACE, text(namespace.as_str())), (ACCOUNT_NAME, text(name.as_str()))];
        Ok(with(&this, &members))
    };
    context.add_function("serviceAccount", account);
    let check = move |This(this): This<Value>, verb: Arc<String>| -> ResolveResult {
        let (allowed, reason, error) = match decide(&question(&this, &verb)) {
            Ok((allowed, reason)) => (allowed, reason, String::new()),
            Err(error) => (false, String::new(), error),
        };
        let members = [("allowed", Value::Bool(allowed)), ("reason", text(reason)), ("error", text(error))];
        Ok(with(&Value::Null, &members))
    };
    context.add_function("check", check);
    for member in ["allowed", "reason", "error"] {
        context.add_function(member, move |This(this): This<Value>| -> ResolveResult { Ok(get(&this, member)) });
    }
    let errored = |This(this): This<Value>| -> ResolveResult { Ok(Value::Bool(!get_text(&this, "error").is_empty())) };
    context.add_function("errored", errored);
    let members = [
        ("group", &request.group),
        ("resource", &request.resource),
        ("subresource", &request.subresource),
        ("namespace", &request.namespace),
        ("name", &request.name),
    ];
    let members = members.map(|(name, value)| (name, text(value.as_str())));
    let authorizer = with(&Value::Null, &[("requestResource", with(&Value::Null, &members))]);
    context.add_variable_from_value("authorizer", authorizer);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::expression::{Bindings, Expression};

    use super::*;

    #[test]
    fn expressions_ask_the_authorizer() {
        let mut bindings = Bindings::new();
        let request = Question { resource: "pods".into(), namespace: "a".into(), ..Question::default() };
        bindings.set_authorizer(
            &request,
            Arc::new(|asked: &Question| {
                let account = asked.service_account.as_ref().map_or("-", |(_, name)| name.as_str());
                let asked = format!(
                    "{} {}/{}/{}{} {account}",
                    asked.verb, asked.group, asked.resource, asked.namespace, asked.path
                );
                if asked.starts_with("fail") { Err("no answer".into()) } else { Ok((asked.starts_with("get"), asked)) }
            }),
        );
        for (text, expected) in [
            ("authorizer.requestResource.check('get').reason()", "get /pods/a -"),
            (
                "authorizer.group('apps').resource('deployments').namespace('b').check('get').reason()",
                "get apps/deployments/b -",
            ),
            ("authorizer.path('/healthz').check('get').reason()", "get ///healthz -"),
            (
                "authorizer.serviceAccount('a', 'bot').group('').resource('pods').check('get').reason()",
                "get /pods/ bot",
            ),
            ("authorizer.requestResource.check('fail').error()", "no answer"),
        ] {
            let value = Expression::compile(text).unwrap().evaluate(&bindings).unwrap();
            assert_eq!(value, expected, "{text}");
        }
        let allowed = |verb: &str| {
            let text = format!("authorizer.requestResource.check('{verb}').allowed()");
            Expression::compile(&text).unwrap().holds(&bindings).unwrap()
        };
        assert!(allowed("get") && !allowed("create"));
    }
}
