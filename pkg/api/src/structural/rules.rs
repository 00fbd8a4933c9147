//! CEL rules of custom resources (`x-kubernetes-validations`).

use kube_cel::{CompiledSchema, RootContext, ValidationError, Validator, compile_schema};
use serde_json::Value;

use super::fields;
use crate::deep_stack;
use crate::expression::SHALLOW;
use crate::field::{FieldError, FieldErrorKind, FieldPath};

/// Characters of a wrong expression that its error repeats.
const SHOWN: usize = 1000;

/// The compiled rules of a version's schema.
#[derive(Debug)]
pub struct RuleSet {
    compiled: CompiledSchema,
    root: RootContext,
    /// Of the deepest expression.
    depth: usize,
}

impl RuleSet {
    /// Compiles the rules of `schema`; none if it has no rules at all.
    ///
    /// # Errors
    /// Rules that do not compile, with paths below `path`.
    pub fn compile(
        schema: &Value,
        path: &FieldPath,
        group: &str,
        version: &str,
        kind: &str,
    ) -> Result<Option<Self>, Vec<FieldError>> {
        if !has_rules(schema) {
            return Ok(None);
        }
        let mut errors = Vec::new();
        let depth = check_syntax(schema, true, path, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let compiled = deep_stack::run(|| compile_schema(schema))
            .map_err(|why| vec![FieldError::invalid(path, "", format!("compilation failed: {why}"))])?;
        collect_errors(&compiled, path, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let root = RootContext {
            api_version: crate::name::api_version(group, version),
            api_group: group.to_owned(),
            kind: kind.to_owned(),
        };
        Ok(Some(Self { compiled, root, depth }))
    }

    /// What the rules say about `object`; transition rules need `old`. Errors that `old` already had at the same field
    /// with the same value are tolerated, so that rules can be tightened without blocking every later update.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        if self.depth <= SHALLOW {
            return self.evaluate(object, old);
        }
        let failed = |why| vec![FieldError::invalid(&FieldPath::default(), "object", why)];
        deep_stack::run(|| self.evaluate(object, old)).unwrap_or_else(failed)
    }

    fn evaluate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let validator = Validator::new();
        let run = |object: &Value, old: Option<&Value>| {
            let result = validator.validate_compiled_with_context(&self.compiled, object, old, Some(&self.root));
            result.err().map(|errors| errors.into_vec()).unwrap_or_default()
        };
        let mut found = run(object, old);
        if let Some(old) = old.filter(|_| !found.is_empty()) {
            let before = run(old, None);
            found.retain(|error| {
                let unchanged = lookup(object, &error.field_path) == lookup(old, &error.field_path);
                !(unchanged && before.iter().any(|b| b.rule == error.rule && b.field_path == error.field_path))
            });
        }
        found.iter().map(|error| field_error(error, object)).collect()
    }
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.contains_key("x-kubernetes-validations") || map.values().any(has_rules),
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

/// Finds the expressions that are none, or are about fields there are not; gives the depth of the deepest other one.
fn check_syntax(schema: &Value, root: bool, path: &FieldPath, errors: &mut Vec<FieldError>) -> usize {
    let Value::Object(members) = schema else { return 0 };
    let mut deepest = 0;
    let list = |key: &str| members.get(key).and_then(Value::as_array).into_iter().flatten().enumerate();
    for (index, rule) in list("x-kubernetes-validations") {
        for key in ["rule", "messageExpression"] {
            let Some(text) = rule[key].as_str() else { continue };
            let found = match crate::expression::parse(text) {
                Ok((parsed, depth)) => {
                    deepest = deepest.max(depth);
                    // With optionalOldSelf the old value is wrapped.
                    let old = (rule["optionalOldSelf"] != true).then_some(schema);
                    let check = || fields::undefined(&parsed, schema, old, root);
                    let found = if depth <= SHALLOW { Ok(check()) } else { deep_stack::run(check) };
                    found.map_or_else(
                        |why: &str| Some(why.to_owned()),
                        |found| found.first().map(|field| format!("undefined field '{field}'")),
                    )
                }
                Err(error) => Some(error),
            };
            if let Some(error) = found {
                let path = path.child("x-kubernetes-validations").index(index).child(key);
                let shown: String = text.chars().take(SHOWN).collect();
                errors.push(FieldError::invalid(&path, shown, format!("compilation failed: {error}")));
            }
        }
    }
    for (name, child) in members.get("properties").and_then(Value::as_object).into_iter().flatten() {
        deepest = deepest.max(check_syntax(child, false, &path.child("properties").key(name), errors));
    }
    for name in ["items", "additionalProperties", "not"] {
        if let Some(child) = members.get(name) {
            deepest = deepest.max(check_syntax(child, false, &path.child(name), errors));
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        for (index, child) in list(name) {
            deepest = deepest.max(check_syntax(child, false, &path.child(name).index(index), errors));
        }
    }
    deepest
}

fn collect_errors(node: &CompiledSchema, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for error in node.compilation_errors() {
        let path = path.child("x-kubernetes-validations");
        errors.push(FieldError::invalid(&path, "", format!("compilation failed: {error}")));
    }
    for (name, child) in &node.properties {
        collect_errors(child, &path.child("properties").key(name), errors);
    }
    let inner = [(&node.items, "items"), (&node.additional_properties, "additionalProperties")];
    for (child, name) in inner {
        if let Some(child) = child {
            collect_errors(child, &path.child(name), errors);
        }
    }
}

fn field_error(error: &ValidationError, object: &Value) -> FieldError {
    let kind = match error.reason.as_deref() {
        Some("FieldValueForbidden") => FieldErrorKind::Forbidden,
        Some("FieldValueRequired") => FieldErrorKind::Required,
        Some("FieldValueDuplicate") => FieldErrorKind::Duplicate,
        _ => FieldErrorKind::Invalid,
    };
    // Upstream shows the type of a struct rather than all of it.
    let value = match lookup(object, &error.field_path) {
        Some(value) if value.is_object() => Value::from("object"),
        Some(value) if value.is_array() => Value::from("array"),
        value => value.cloned().unwrap_or(Value::Null),
    };
    let field = error.field_path.clone();
    let field = if field.is_empty() { "<nil>".to_owned() } else { field };
    FieldError { kind, field, value, detail: error.message.clone() }
}

/// The value at a path such as `spec.ports[0].name` or `spec.limits[example.com/a]`.
pub(crate) fn lookup<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = object;
    let mut rest = path;
    while !rest.is_empty() {
        let (part, after) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']')?,
            None => {
                let rest = rest.strip_prefix('.').unwrap_or(rest);
                rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()))
            }
        };
        value = match value {
            Value::Array(items) => items.get(part.parse::<usize>().ok()?)?,
            _ => value.get(part)?,
        };
        rest = after;
    }
    Some(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(rule: Value) -> Result<Option<RuleSet>, Vec<FieldError>> {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": [rule],
            "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}}}}});
        RuleSet::compile(&schema, &FieldPath::new("schema"), "g", "v1", "K")
    }

    #[test]
    fn rules_refuse_objects_and_transitions() {
        let set = rules(json!({"rule": "self.min <= self.max", "message": "min above max"})).unwrap().unwrap();
        let object = |min: i64| json!({"spec": {"min": min, "max": 5}});
        assert!(set.validate(&object(1), None).is_empty());
        let errors = set.validate(&object(9), None);
        assert_eq!(errors[0].to_string(), "spec: Invalid value: \"object\": min above max");
        assert!(set.validate(&object(9), Some(&object(9))).is_empty(), "an unchanged part is tolerated");
        assert_eq!(set.validate(&object(9), Some(&object(8))).len(), 1);
        let fixed = rules(json!({"rule": "self.min == oldSelf.min"})).unwrap().unwrap();
        assert!(fixed.validate(&object(1), None).is_empty());
        assert_eq!(fixed.validate(&object(2), Some(&object(1))).len(), 1);
    }

    #[test]
    fn rules_that_do_not_compile_are_refused() {
        let errors = rules(json!({"rule": "self.min <="})).unwrap_err();
        assert_eq!(errors[0].field, "schema.properties[spec].x-kubernetes-validations[0].rule");
    }
}
