//! Checks the expressions of admission policies against the types of what the policies are about.

use serde_json::Value as Json;

use super::env::Env;
use super::program::Program;
use super::shape::Shape;
use super::types::Type;

/// Levels to which references are followed.
const DEPTH_MAX: usize = 32;

/// A type that a policy is about: `apps/v1, Kind=Deployment`, and what its objects look like.
pub struct Checked {
    pub name: String,
    pub shape: Shape,
}

impl Checked {
    /// The kind as an OpenAPI 3 document of its group and version describes it; none if it does not.
    pub fn find(document: &Json, group: &str, version: &str, kind: &str) -> Option<Self> {
        let schemas = document["components"]["schemas"].as_object()?;
        let is_it = |gvk: &Json| gvk["group"] == group && gvk["version"] == version && gvk["kind"] == kind;
        let named = |schema: &&Json| {
            schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|kinds| kinds.iter().any(is_it))
        };
        let schema = resolved(document, schemas.values().find(named)?, &mut Vec::new());
        let shape = Shape::of_schema(&schema, kind, true)?;
        Some(Self { name: format!("{group}/{version}, Kind={kind}"), shape })
    }
}

/// The schema with what it refers to in place. What contains itself ends there.
fn resolved(document: &Json, schema: &Json, open: &mut Vec<String>) -> Json {
    let referred = |schema: &Json| {
        schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/components/schemas/")).map(str::to_owned)
    };
    let name = referred(schema).or_else(|| match schema["allOf"].as_array().map(Vec::as_slice) {
        Some([only]) => referred(only),
        _ => None,
    });
    if let Some(name) = name {
        if open.contains(&name) || open.len() > DEPTH_MAX {
            return Json::Null;
        }
        let target = &document["components"]["schemas"][&name];
        open.push(name);
        let schema = resolved(document, target, open);
        open.pop();
        return schema;
    }
    // What may be a number or a string is known when it is seen.
    if schema["oneOf"].is_array() && schema["type"].is_null() {
        return serde_json::json!({"x-kubernetes-int-or-string": true});
    }
    let mut out = serde_json::Map::new();
    for (key, value) in schema.as_object().into_iter().flatten() {
        let value = match key.as_str() {
            "properties" => {
                let members = value.as_object().into_iter().flatten();
                Json::Object(members.map(|(name, schema)| (name.clone(), resolved(document, schema, open))).collect())
            }
            "items" | "additionalProperties" if value.is_object() => resolved(document, value, open),
            "type" | "format" | "required" => value.clone(),
            key if key.starts_with("x-kubernetes-") => value.clone(),
            _ => continue,
        };
        out.insert(key.clone(), value);
    }
    Json::Object(out)
}

/// What is wrong with a policy's expressions for one of the types: the field, and a line for each type.
pub fn warnings(policy: &Json, types: &[Checked], params: Option<&Shape>) -> Vec<(String, String)> {
    let spec = &policy["spec"];
    let envs: Vec<(&Checked, Env)> = types.iter().map(|t| (t, env(spec, t, params))).collect();
    let check = |text: &str| -> String {
        let mut found = Vec::new();
        for (of, env) in &envs {
            if let Err(issues) = Program::compile(text, env) {
                found.push(format!("{}: {issues}\n", of.name));
            }
        }
        found.join("\n")
    };
    let mut warnings = Vec::new();
    for (index, validation) in spec["validations"].as_array().into_iter().flatten().enumerate() {
        for member in ["expression", "messageExpression"] {
            let text = validation[member].as_str().unwrap_or_default();
            let warning = if text.is_empty() { String::new() } else { check(text) };
            if !warning.is_empty() {
                warnings.push((format!("spec.validations[{index}].{member}"), warning));
            }
        }
    }
    warnings
}

fn env(spec: &Json, of: &Checked, params: Option<&Shape>) -> Env {
    let mut env = Env::admission(of.shape.ty());
    env.add_types(&of.shape);
    if spec["paramKind"].is_object() {
        env = match params {
            Some(shape) => env.with_shape("params", shape),
            None => env.with("params", Type::Dyn),
        };
    }
    let mut env = env.with_authorizer().composing();
    for variable in spec["variables"].as_array().into_iter().flatten() {
        let text = |member: &str| variable[member].as_str().unwrap_or_default();
        let ty = Program::compile(text("expression"), &env).map_or(Type::Dyn, |program| program.output().clone());
        env.compose(text("name"), ty);
    }
    env
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Json {
        json!({"components": {"schemas": {
            "Deployment": {"type": "object", "x-kubernetes-group-version-kind": [{"group": "apps", "version": "v1", "kind": "Deployment"}],
                "properties": {"metadata": {"allOf": [{"$ref": "#/components/schemas/Meta"}], "default": {}},
                    "spec": {"$ref": "#/components/schemas/Spec"}}},
            "Meta": {"type": "object", "properties": {"labels": {"type": "object", "additionalProperties": {"type": "string"}}}},
            "Spec": {"type": "object", "properties": {"replicas": {"type": "integer", "format": "int32"},
                "limits": {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Quantity"}},
                "self": {"$ref": "#/components/schemas/Spec"}}},
            "Quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]}}}})
    }

    #[test]
    fn expressions_are_checked_against_each_type() {
        let document = document();
        let types = [Checked::find(&document, "apps", "v1", "Deployment").unwrap()];
        assert!(Checked::find(&document, "apps", "v1", "Other").is_none());
        for (expression, expected) in [
            ("object.spec.replicas > 1 && object.metadata.labels['a'] == 'b' && object.metadata.name != ''", None),
            ("object.spec.limits.cpu == '1' && variables.n > 1 && request.operation == 'CREATE'", None),
            (
                "object.spec.foo == 1",
                Some(
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'foo'\n | object.spec.foo == 1\n | ...........^\n",
                ),
            ),
            (
                "variables.n == ''",
                Some(
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:13: found no matching overload for '_==_' applied to '(int, string)'\n | variables.n == ''\n | ............^\n",
                ),
            ),
            ("params.x == 1", None),
        ] {
            let policy = json!({"spec": {"paramKind": {}, "variables": [{"name": "n", "expression": "object.spec.replicas + 1"}],
                "validations": [{"expression": "true"}, {"expression": expression}]}});
            let found = warnings(&policy, &types, None);
            let expected: Vec<_> =
                expected.into_iter().map(|e| ("spec.validations[1].expression".to_owned(), e.to_owned())).collect();
            assert_eq!(found, expected, "{expression}");
        }
    }
}
