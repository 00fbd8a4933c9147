//! CEL rules of custom resources (`x-kubernetes-validations`).

use kube_cel::{CompiledSchema, RootContext, ValidationError, Validator, compile_schema};
use serde_json::Value;

use super::analysis::{ROUNDS_MAX, analyse, bound};
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
        let depth = check_rules(schema, Place { root: true, count: 1 }, path, &mut errors);
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

/// Finds the expressions that are none, are about fields there are not, or take too long; gives the depth of the deepest
/// other one.
fn check_rules(schema: &Value, place: Place, path: &FieldPath, errors: &mut Vec<FieldError>) -> usize {
    let Value::Object(members) = schema else { return 0 };
    let mut deepest = 0;
    let list = |key: &str| members.get(key).and_then(Value::as_array).into_iter().flatten().enumerate();
    for (index, rule) in list("x-kubernetes-validations") {
        for key in ["rule", "messageExpression"] {
            let Some(text) = rule[key].as_str() else { continue };
            let path = path.child("x-kubernetes-validations").index(index).child(key);
            match check_rule(text, rule, schema, place) {
                Ok(depth) => deepest = deepest.max(depth),
                Err(Flaw::Wrong(error)) => {
                    let shown: String = text.chars().take(SHOWN).collect();
                    errors.push(FieldError::invalid(&path, shown, format!("compilation failed: {error}")));
                }
                Err(Flaw::Costly) => errors.push(FieldError::forbidden(
                    &path,
                    "estimated rule cost exceeds budget (try simplifying the rule, or adding maxItems and maxProperties \
                     where arrays and maps are declared)",
                )),
            }
        }
    }
    let inner = |count: u64| Place { root: false, count: place.count.saturating_mul(count) };
    for (name, child) in members.get("properties").and_then(Value::as_object).into_iter().flatten() {
        deepest = deepest.max(check_rules(child, inner(1), &path.child("properties").key(name), errors));
    }
    for name in ["items", "additionalProperties", "not"] {
        if let Some(child) = members.get(name) {
            let count = if name == "not" { 1 } else { bound(schema) };
            deepest = deepest.max(check_rules(child, inner(count), &path.child(name), errors));
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        for (index, child) in list(name) {
            deepest = deepest.max(check_rules(child, inner(1), &path.child(name).index(index), errors));
        }
    }
    deepest
}

/// Where in an object a schema applies.
#[derive(Clone, Copy)]
struct Place {
    root: bool,
    /// How many of its values an object has at most.
    count: u64,
}

/// What is wrong with an expression.
enum Flaw {
    Wrong(String),
    Costly,
}

/// Gives the depth of an expression that may be used.
fn check_rule(text: &str, rule: &Value, schema: &Value, place: Place) -> Result<usize, Flaw> {
    let (parsed, depth) = crate::expression::parse(text).map_err(Flaw::Wrong)?;
    // With optionalOldSelf the old value is wrapped.
    let old = (rule["optionalOldSelf"] != true).then_some(schema);
    let look = || analyse(&parsed, schema, old, place.root);
    let found =
        if depth <= SHALLOW { look() } else { deep_stack::run(look).map_err(|why| Flaw::Wrong(why.to_owned()))? };
    if let Some(field) = found.undefined.first() {
        return Err(Flaw::Wrong(format!("undefined field '{field}'")));
    }
    if found.rounds > 1 && found.rounds.saturating_mul(place.count) > ROUNDS_MAX {
        return Err(Flaw::Costly);
    }
    Ok(depth)
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
        let errors = rules(json!({"rule": "self.mean == 1"})).unwrap_err();
        assert_eq!(errors[0].detail, "compilation failed: undefined field 'mean'");
    }

    #[test]
    fn rules_that_go_round_too_often_are_refused() {
        let all = json!([{"rule": "self.x.all(a, a > 0)"}]);
        let twice = json!([{"rule": "self.x.all(a, self.x.exists(b, a != b))"}]);
        for (rules, limit, inside_list, fine) in [
            (&all, None, false, true),
            (&twice, Some(100), false, true),
            (&twice, None, false, false),
            (&all, Some(100), true, false),
            (&all, Some(2), true, true),
        ] {
            let mut list = json!({"type": "array", "items": {"type": "integer"}});
            if let Some(limit) = limit {
                list["maxItems"] = limit.into();
            }
            let mut part = json!({"type": "object", "x-kubernetes-validations": rules, "properties": {"x": list}});
            if inside_list {
                part = json!({"type": "array", "items": part});
            }
            let schema = json!({"type": "object", "properties": {"part": part}});
            let compiled = RuleSet::compile(&schema, &FieldPath::new("schema"), "g", "v1", "K");
            let costly = |e: &[FieldError]| e.len() == 1 && e[0].detail.contains("rule cost exceeds budget");
            assert!(compiled.map_or_else(|e| !fine && costly(&e), |_| fine), "{rules} {limit:?} {inside_list}");
        }
    }
}
