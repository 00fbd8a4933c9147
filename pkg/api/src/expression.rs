//! CEL expressions that are not about custom resources: of admission, authorization and authentication.

use std::sync::Arc;

use serde_json::Value;

use crate::cel::{self, Activation, CALL_LIMIT, Decide, Env, Extension, Program, Question, Type};

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    program: Program,
}

/// What expressions about one thing may cost together.
#[derive(Debug)]
pub struct Budget(u64);

/// It is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("validation failed due to running out of cost budget, no further validation rules will be run")]
pub struct OutOfBudget;

impl Budget {
    pub fn new(cost: u64) -> Self {
        Self(cost)
    }

    fn spend(&mut self, cost: u64) -> Result<(), OutOfBudget> {
        self.0 = self.0.checked_sub(cost).ok_or(OutOfBudget)?;
        Ok(())
    }
}

/// Variables that expressions see.
#[derive(Default)]
pub struct Bindings {
    values: Vec<(&'static str, Value)>,
    decide: Option<(Question, Arc<Decide>)>,
}

impl Expression {
    /// Compiles an expression whatever it gives; the error says where it is wrong.
    pub fn compile(text: &str, env: &Env) -> Result<Self, String> {
        let program = Program::compile(text, env).map_err(|issues| issues.detail())?;
        Ok(Self { program })
    }

    /// Compiles an expression that must give one of these types.
    pub fn typed(text: &str, env: &Env, gives: &[Type]) -> Result<Self, String> {
        let compiled = Self::compile(text, env)?;
        let output = compiled.program.output();
        if gives.contains(output) {
            return Ok(compiled);
        }
        let names: Vec<String> = gives.iter().map(Type::declared).collect();
        Err(match &names[..] {
            [only] => format!("must evaluate to {only} but got {}", output.declared()),
            names => format!("must evaluate to one of [{}] but got {}", names.join(" "), output.declared()),
        })
    }

    /// Compiles a condition.
    pub fn condition(text: &str, env: &Env) -> Result<Self, String> {
        Self::typed(text, env, &[Type::Bool])
    }

    pub fn text(&self) -> &str {
        self.program.text()
    }

    /// The type of what it gives.
    pub fn output(&self) -> &Type {
        self.program.output()
    }

    pub fn into_program(self) -> Program {
        self.program
    }

    /// Evaluates it for one of several expressions with a common budget. The inner error is that of the expression.
    pub fn spend<'a>(
        &self,
        activation: &Activation<'a>,
        budget: &mut Budget,
    ) -> Result<Result<cel::Value<'a>, String>, OutOfBudget> {
        let (value, cost) = self.program.run(activation, CALL_LIMIT);
        budget.spend(activation.take_spent())?;
        budget.spend(cost)?;
        Ok(value.map_err(|error| format!("expression '{}' resulted in error: {error}", self.text())))
    }

    /// The expression's value as JSON.
    pub fn evaluate(&self, bindings: &Bindings) -> Result<Value, String> {
        let activation = bindings.activation();
        let value = self.spend(&activation, &mut Budget::new(CALL_LIMIT)).map_err(|e| e.to_string())??;
        value.to_json().ok_or_else(|| format!("expression '{}' gave no plain value", self.text()))
    }

    /// The value of an expression that must be true or false.
    pub fn holds(&self, bindings: &Bindings) -> Result<bool, String> {
        let activation = bindings.activation();
        match self.spend(&activation, &mut Budget::new(CALL_LIMIT)).map_err(|e| e.to_string())?? {
            cel::Value::Bool(value) => Ok(value),
            _ => Err(format!("expression '{}' resulted in no bool", self.text())),
        }
    }
}

impl Bindings {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds a variable.
    pub fn set(&mut self, name: &'static str, value: Value) {
        self.values.push((name, value));
    }

    /// Binds `authorizer`, which asks `decide`; `request` is what `authorizer.requestResource` is about.
    pub fn set_authorizer(&mut self, request: Question, decide: Arc<Decide>) {
        self.decide = Some((request, decide));
    }

    /// Ready for evaluation. `request` and `namespaceObject` are as admission has them.
    pub fn activation(&self) -> Activation<'_> {
        let mut activation = Activation::new(CALL_LIMIT);
        for (name, value) in &self.values {
            activation.set(name, cel::Value::of_json(value));
        }
        if let Some((own, decide)) = &self.decide {
            activation.set("authorizer", Extension::Authorizer(Arc::default()).into());
            activation.set("authorizer.requestResource", Extension::ResourceCheck(Arc::new(own.clone())).into());
            activation.set_decide(decide.clone());
        }
        activation
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_give_what_they_must() {
        let env = Env::admission(Type::Dyn).with_authorizer();
        let text = [Type::String, Type::Null];
        assert!(Expression::condition("request.operation == 'CREATE' && object.spec.x > 1", &env).is_ok());
        for (text, gives, why) in [
            ("object.spec.x", &[Type::Bool][..], "must evaluate to bool but got dyn"),
            ("1", &text, "must evaluate to one of [string null_type] but got int"),
            (
                "request.nope",
                &text,
                "compilation failed: ERROR: <input>:1:8: undefined field 'nope'\n | request.nope\n | .......^",
            ),
            ("[1]", &[Type::Bool], "must evaluate to bool but got list(int)"),
        ] {
            assert_eq!(Expression::typed(text, &env, gives).unwrap_err(), why);
        }
        assert!(Expression::typed("authorizer.requestResource.check('get').reason()", &env, &text).is_ok());
    }

    #[test]
    fn a_budget_is_spent_once() {
        let mut bindings = Bindings::new();
        bindings.set("object", json!({"n": 1}));
        let expression = Expression::condition("object.n == 1", &Env::admission(Type::Dyn)).unwrap();
        let (activation, mut budget) = (bindings.activation(), Budget::new(7));
        for _ in 0..2 {
            assert!(matches!(expression.spend(&activation, &mut budget), Ok(Ok(cel::Value::Bool(true)))));
        }
        assert_eq!(expression.spend(&activation, &mut budget).map(drop), Err(OutOfBudget));
        bindings.set("object", json!({}));
        let why = "expression 'object.n == 1' resulted in error: no such key: n";
        assert_eq!(expression.holds(&bindings), Err(why.into()));
    }
}
