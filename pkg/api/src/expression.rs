//! CEL expressions of admission: match conditions of webhooks, and admission policies.

use std::collections::HashMap;
use std::sync::Arc;

use cel::objects::{Key, Map};
use cel::parser::{ParseErrors, Parser};
use cel::{Context, IdedExpr};
use kube_cel::KubeCelExt;
use serde_json::Value;

pub use crate::authorizer_library::{Decide, Question};
use crate::{authorizer_library, deep_stack, struct_literal};

/// Longest text of an expression; compiling takes time and memory with its length.
const TEXT_MAX: usize = 64 << 10;
const ERRORS_SHOWN: usize = 3;
/// Brackets within each other.
const BRACKETS_MAX: usize = 50;
/// Evaluation recurses as deep as an expression goes.
const DEPTH_MAX: usize = 1000;
/// Expressions up to this depth are evaluated where they are, deeper ones on a stack of their own.
pub(crate) const SHALLOW: usize = 24;

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    parsed: IdedExpr,
    depth: usize,
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
        let (parsed, depth) = parse(text).map_err(|error| format!("compilation failed: {error}"))?;
        Ok(Self { parsed, depth, text: text.to_owned() })
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
        let evaluation = || {
            let evaluation = || cel::Value::resolve(&self.parsed, &bindings.context);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(evaluation))
        };
        let evaluated = if self.depth > SHALLOW { deep_stack::run(evaluation)? } else { evaluation() };
        match evaluated {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(format!("expression '{}' uses what is not supported", self.text)),
        }
    }
}

/// Parses an expression, whose struct literals become maps; also says how deep it goes.
pub(crate) fn parse(text: &str) -> Result<(IdedExpr, usize), String> {
    if text.len() > TEXT_MAX {
        return Err(format!("the expression is longer than {TEXT_MAX} bytes"));
    }
    check_brackets(text)?;
    deep_stack::run(|| {
        let mut parsed = Parser::default().enable_optional_syntax(true).parse(text).map_err(|e| first_errors(&e))?;
        let depth = struct_literal::depth(&parsed);
        if depth > DEPTH_MAX {
            return Err(format!("the expression is nested deeper than {DEPTH_MAX} levels"));
        }
        struct_literal::into_maps(&mut parsed)?;
        Ok((parsed, depth))
    })?
}

/// Refuses what is nested deeply or not closed, on which the parser would spend much time.
fn check_brackets(text: &str) -> Result<(), String> {
    let mut open = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['(', '[', '{', ')', ']', '}', '"', '\'', '/']) {
        let raw = rest[..at].ends_with(['r', 'R']);
        rest = &rest[at..];
        match rest.as_bytes()[0] {
            b'(' => open.push(b')'),
            b'[' => open.push(b']'),
            b'{' => open.push(b'}'),
            quote @ (b'"' | b'\'') => {
                rest = string_end(rest, char::from(quote), raw).ok_or("a string is not closed")?;
                continue;
            }
            b'/' if rest.starts_with("//") => {
                rest = rest.find('\n').map_or("", |end| &rest[end..]);
                continue;
            }
            b'/' => {}
            closing if open.pop() != Some(closing) => {
                return Err(format!("'{}' closes nothing", char::from(closing)));
            }
            _ => {}
        }
        if open.len() > BRACKETS_MAX {
            return Err(format!("the expression is nested deeper than {BRACKETS_MAX} levels"));
        }
        rest = &rest[1..];
    }
    open.pop().map_or(Ok(()), |missing| Err(format!("'{}' is missing", char::from(missing))))
}

/// What follows the string literal that `text` begins with.
fn string_end(text: &str, quote: char, raw: bool) -> Option<&str> {
    let triple = quote.to_string().repeat(3);
    let end = if text.starts_with(&triple) { triple.as_str() } else { &triple[..1] };
    let mut rest = &text[end.len()..];
    loop {
        let at = rest.find([quote, '\\'])?;
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix(end) {
            return Some(after);
        }
        let skipped = if raw || rest.starts_with(quote) { 1 } else { 1 + rest[1..].chars().next()?.len_utf8() };
        rest = &rest[skipped..];
    }
}

/// A damaged text has as many errors as characters.
fn first_errors(errors: &ParseErrors) -> String {
    let shown = errors.errors.iter().take(ERRORS_SHOWN);
    let lines: Vec<String> = shown.map(|e| format!("{}:{}: {}", e.pos.0, e.pos.1, e.msg)).collect();
    lines.join("\n")
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
    fn only_brackets_of_the_expression_count() {
        for (text, ok) in [
            ("f([1, {'a': (2)}])", true),
            (r#"'(' == ")" || r'\' == "\"(" || '''a'(''' == """b"[""" // (["#, true),
            ("(1", false),
            ("[1)", false),
            ("1)", false),
            ("'", false),
            (r"'\'", false),
            ("\"\"\"\"\"", false),
            (&format!("{}1{}", "(".repeat(50), ")".repeat(50)), true),
            (&format!("{}1{}", "(".repeat(51), ")".repeat(51)), false),
        ] {
            assert_eq!(check_brackets(text).is_ok(), ok, "{text}");
        }
    }

    #[test]
    fn expressions_may_be_long_but_not_deep() {
        let sum = |terms: usize| Expression::compile(&vec!["1"; terms].join(" + "));
        assert_eq!(sum(90).unwrap().evaluate(&Bindings::new()), Ok(json!(90)));
        assert!(sum(5000).unwrap_err().contains("nested deeper"));
        let all = Expression::compile(&vec!["true"; 500].join(" && "));
        assert_eq!(all.unwrap().evaluate(&Bindings::new()), Ok(json!(true)));
        assert!(Expression::compile(&"#".repeat(4096)).unwrap_err().len() < 1000);
    }

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
