//! CEL expressions of admission: match conditions of webhooks, and admission policies.

use std::collections::HashMap;
use std::sync::Arc;

use cel::objects::{Key, Map};
use cel::parser::Parser;
use cel::{Context, IdedExpr};
use kube_cel::KubeCelExt;
use serde_json::Value;

use crate::authorizer_library;
pub use crate::authorizer_library::{Decide, Question};

/// Longest text of an expression; compiling takes time and memory with its length.
const TEXT_MAX: usize = 64 << 10;

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    parsed: IdedExpr,
    text: String,
}

/// Variables that expressions see. Cheap to make; not meant to be kept.
pub struct Bindings {
    context: Context<'static>,
    /// What `variables.NAME` gives.
    composed: HashMap<Key, cel::Value>,
}

impl Expression {
    /// Compiles a text; the error says where it is wrong.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_MAX {
            return Err(format!("the expression is longer than {TEXT_MAX} bytes"));
        }
        let parser = Parser::default().enable_optional_syntax(true);
        let mut parsed = parser.parse(text).map_err(|error| format!("compilation failed: {error}"))?;
        crate::struct_literal::into_maps(&mut parsed).map_err(|error| format!("compilation failed: {error}"))?;
        Ok(Self { parsed, text: text.to_owned() })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The expression's value as JSON.
    pub fn evaluate(&self, bindings: &Bindings) -> Result<Value, String> {
        let value = self.run(bindings)?;
        value.json().map_err(|error| format!("expression '{}' gave no plain value: {error}", self.text))
    }

    /// The value of an expression that must be true or false.
    pub fn holds(&self, bindings: &Bindings) -> Result<bool, String> {
        match self.run(bindings)? {
            cel::Value::Bool(value) => Ok(value),
            _ => Err(format!("expression '{}' resulted in no bool", self.text)),
        }
    }

    fn run(&self, bindings: &Bindings) -> Result<cel::Value, String> {
        let failed = |error| format!("expression '{}' resulted in error: {error}", self.text);
        // The evaluator panics on what it does not support; a request must not take its task down with it.
        let evaluation = || cel::Value::resolve(&self.parsed, &bindings.context);
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(evaluation)) {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(format!("expression '{}' uses what is not supported", self.text)),
        }
    }
}

impl Default for Bindings {
    fn default() -> Self {
        Self::new()
    }
}

impl Bindings {
    /// The functions that Kubernetes adds to CEL, and no variables.
    pub fn new() -> Self {
        Self { context: Context::default().with_all(), composed: HashMap::new() }
    }

    /// Binds a variable.
    pub fn set(&mut self, name: &str, value: &Value) {
        self.context.add_variable_from_value(name, from_json(value));
    }

    /// Binds `authorizer`, which asks `decide`; `request` is what `authorizer.requestResource` is about.
    pub fn set_authorizer(&mut self, request: &Question, decide: Arc<Decide>) {
        authorizer_library::bind(&mut self.context, request, decide);
    }

    /// Evaluates `expression` and binds its value to `variables.NAME`. What fails is left out, so that only
    /// expressions that use it fail.
    pub fn compose(&mut self, name: &str, expression: &Expression) {
        if let Ok(value) = expression.run(self) {
            self.composed.insert(name.into(), value);
        }
        let variables = cel::Value::Map(Map { map: Arc::new(self.composed.clone()) });
        self.context.add_variable_from_value("variables", variables);
    }
}

/// Integers become int, as a schema would say; JSON alone cannot tell.
fn from_json(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(value) => cel::Value::Bool(*value),
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(items) => cel::Value::List(Arc::new(items.iter().map(from_json).collect())),
        Value::Object(members) => {
            let map = members.iter().map(|(key, value)| (Key::from(key.as_str()), from_json(value))).collect();
            cel::Value::Map(Map { map: Arc::new(map) })
        }
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => cel::Value::Int(value),
            (None, Some(value)) => cel::Value::UInt(value),
            (None, None) => cel::Value::Float(number.as_f64().unwrap_or_default()),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_see_objects_and_composed_variables() {
        let mut bindings = Bindings::new();
        bindings.set("object", &json!({"spec": {"replicas": 3, "names": ["a", "b"]}}));
        bindings.compose("many", &Expression::compile("object.spec.replicas > 2").unwrap());
        bindings.compose("broken", &Expression::compile("object.nothing.here").unwrap());
        let holds = |text: &str| Expression::compile(text).unwrap().holds(&bindings);
        assert_eq!(holds("variables.many && object.spec.names.exists(n, n == 'b')"), Ok(true));
        assert_eq!(holds("!has(object.metadata)"), Ok(true));
        assert!(holds("variables.broken").is_err() && holds("object.spec.replicas").is_err());
        let sum = Expression::compile("'at most ' + string(object.spec.replicas)").unwrap();
        assert_eq!(sum.evaluate(&bindings), Ok(json!("at most 3")));
        let object =
            Expression::compile("Object{spec: Object.spec{replicas: object.spec.replicas + 1, ?x: optional.none()}}");
        assert_eq!(object.unwrap().evaluate(&bindings), Ok(json!({"spec": {"replicas": 4}})));
        let patch = Expression::compile("[JSONPatch{op: 'add', path: '/a', value: {'b': 1}}]").unwrap();
        assert_eq!(patch.evaluate(&bindings), Ok(json!([{"op": "add", "path": "/a", "value": {"b": 1}}])));
        assert!(Expression::compile("Other{a: 1}").unwrap_err().contains("undeclared type"));
        assert!(Expression::compile("1 +").unwrap_err().starts_with("compilation failed"));
    }
}
