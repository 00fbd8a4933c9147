//! What rules would do to objects, told from their schema: select fields that are not there, or go through lists in
//! lists in lists.

use cel::IdedExpr;
use cel::common::ast::{Expr, SelectExpr, operators};
use serde_json::Value;

use crate::struct_literal::each_child;

/// Words of CEL that fields may have as their names, written between double underscores.
const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// How often a rule may go round for one object. Upstream allows a rule to cost as much, and each round costs more than one.
pub(super) const ROUNDS_MAX: u64 = 10_000_000;

/// Bytes of the largest request, which bounds lists without `maxItems`.
const REQUEST_MAX: u64 = 3 << 20;

/// What an expression would do.
pub(super) struct Findings {
    /// Fields that it selects but that are not there. Only what the schema fully describes is judged.
    pub undefined: Vec<String>,
    /// How often its innermost part runs at most, as far as the schema tells.
    pub rounds: u64,
}

/// Variables whose schema may be known, the innermost last.
struct Scope<'s> {
    variables: Vec<(&'s str, Option<&'s Value>)>,
    /// Of the expression that is looked at.
    rounds: u64,
    findings: Findings,
}

/// Looks at an expression about `schema`; `None` for an `old` of unknown form. The root's own members (`metadata` and
/// such) are always known.
pub(super) fn analyse(expression: &IdedExpr, schema: &Value, old: Option<&Value>, root: bool) -> Findings {
    let variables = vec![("self", Some(schema)), ("oldSelf", old)];
    let mut scope = Scope { variables, rounds: 1, findings: Findings { undefined: Vec::new(), rounds: 1 } };
    scope.resolve(expression, if root { Some(schema) } else { None });
    scope.findings
}

/// How many items a list has at most, or members a map, by its schema.
pub(super) fn bound(schema: &Value) -> u64 {
    let counted = |limit: &str, of: &str, separators: u64| {
        let least = REQUEST_MAX / (min_size(&schema[of]) + separators);
        schema.get(of).map(|_| schema[limit].as_u64().unwrap_or(least))
    };
    counted("maxItems", "items", 1).or_else(|| counted("maxProperties", "additionalProperties", 6)).unwrap_or(1)
}

/// The least bytes of a value's JSON.
fn min_size(schema: &Value) -> u64 {
    match schema["type"].as_str() {
        Some("boolean") => 4,
        Some("integer" | "number") => 1,
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|name| name.len() as u64 + 4 + min_size(&schema["properties"][name])).sum::<u64>() + 2
        }
        _ => 2,
    }
}

impl<'s> Scope<'s> {
    /// The schema of what the expression gives, where that is known.
    fn resolve(&mut self, expression: &'s IdedExpr, root: Option<&'s Value>) -> Option<&'s Value> {
        match &expression.expr {
            Expr::Ident(name) => self.variables.iter().rev().find(|(known, _)| known == name).and_then(|(_, s)| *s),
            Expr::Select(select) => {
                let schema = self.resolve(&select.operand, root)?;
                self.member(schema, select, root)
            }
            Expr::Call(call) if call.func_name == operators::INDEX && call.target.is_none() => {
                let mut of = call.args.iter().map(|arg| self.resolve(arg, root)).collect::<Vec<_>>().into_iter();
                let schema = of.next().flatten()?;
                schema.get("items").or_else(|| schema.get("additionalProperties")).filter(|s| s.is_object())
            }
            Expr::Comprehension(c) => {
                let range = self.resolve(&c.iter_range, root);
                let item = range.and_then(|range| range.get("items"));
                self.resolve(&c.accu_init, root);
                let (outside, rounds) = (self.variables.len(), self.rounds);
                self.rounds = rounds.saturating_mul(range.map_or(1, bound));
                self.findings.rounds = self.findings.rounds.max(self.rounds);
                let (first, second) = if c.iter_var2.is_some() { (None, item) } else { (item, None) };
                self.variables.push((&c.accu_var, None));
                self.variables.push((&c.iter_var, first));
                self.variables.extend(c.iter_var2.as_deref().map(|name| (name, second)));
                for inner in [&c.loop_cond, &c.loop_step, &c.result] {
                    self.resolve(inner, root);
                }
                self.variables.truncate(outside);
                self.rounds = rounds;
                None
            }
            _ => {
                each_child(expression, &mut |child| {
                    self.resolve(child, root);
                });
                None
            }
        }
    }

    fn member(&mut self, schema: &'s Value, select: &SelectExpr, root: Option<&Value>) -> Option<&'s Value> {
        let field = select.field.as_str();
        let is = |key: &str| schema[key] == true;
        let embedded = is("x-kubernetes-embedded-resource") || root.is_some_and(|root| std::ptr::eq(root, schema));
        if embedded && matches!(field, "apiVersion" | "kind" | "metadata") {
            return None;
        }
        let properties = schema["properties"].as_object().filter(|p| !p.is_empty());
        if let Some((_, found)) = properties.and_then(|p| p.iter().find(|(name, _)| escaped(name) == field)) {
            return Some(found);
        }
        let open = is("x-kubernetes-preserve-unknown-fields") || is("x-kubernetes-int-or-string");
        if properties.is_some() && !open && schema.get("additionalProperties").is_none() {
            self.findings.undefined.push(field.to_owned());
        }
        schema.get("additionalProperties").filter(|s| s.is_object())
    }
}

/// A property's name as expressions write it.
fn escaped(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    let name = name.replace("__", "__underscores__");
    name.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_followed_through_the_schema() {
        let port = json!({"type": "object", "properties": {"name": {"type": "string"}, "a-b": {"type": "integer"}}});
        let schema = json!({"type": "object", "properties": {
            "ports": {"type": "array", "items": port}, "limits": {"type": "object", "additionalProperties": port},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"x": {"type": "string"}}},
            "empty": {"type": "object"}, "namespace": {"type": "string"},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": port}}}});
        for (rule, root, expected) in [
            ("self.ports.all(p, p.name != '' && p.a__dash__b > 0)", false, None),
            ("self.ports.exists(p, p.nam == '')", false, Some("nam")),
            ("self.ports[0].nam == self.ports[0].name", false, Some("nam")),
            ("self.limits.x.name == '' && self.limits['y'].name == ''", false, None),
            ("self.limits.x.nam == ''", false, Some("nam")),
            ("has(self.open.x) && has(self.open.y) && self.empty.z == 1", false, None),
            ("!has(self.closed)", false, Some("closed")),
            ("self.__namespace__ == oldSelf.__namespace__", false, None),
            ("self.namespace == ''", false, Some("namespace")),
            ("self.metadata.name == self.template.metadata.labels['x']", true, None),
            ("self.metadata.name == ''", false, Some("metadata")),
            ("self.template.spec.nam == ''", true, Some("nam")),
            ("oldSelf.closed == 1", false, Some("closed")),
            ("[{'name': 1}].all(self, self.closed == 1)", false, None),
        ] {
            let (parsed, _) = crate::expression::parse(rule).unwrap();
            let found = analyse(&parsed, &schema, Some(&schema), root).undefined;
            assert_eq!(found.first().map(String::as_str), expected, "{rule}");
        }
        let (parsed, _) = crate::expression::parse("oldSelf.closed == 1").unwrap();
        assert!(
            analyse(&parsed, &schema, None, false).undefined.is_empty(),
            "an old value that may be missing is wrapped"
        );
    }

    #[test]
    fn rounds_multiply_over_lists_in_lists() {
        let list = json!({"type": "array", "items": {"type": "string"}});
        let schema = json!({"type": "object", "properties": {"any": list, "map": {"type": "object",
            "additionalProperties": {"type": "boolean"}}, "few": {"type": "array", "maxItems": 10, "items": list}}});
        let many = REQUEST_MAX / 3;
        for (rule, rounds) in [
            ("size(self.any) > 1", 1),
            ("self.any.all(a, a != '')", many),
            ("self.any.all(a, a != '') && self.any.exists(a, a == '')", many),
            ("self.few.all(f, f.all(a, a != ''))", 10 * many),
            ("self.any.all(a, self.any.all(b, a != b))", many * many),
            ("self.map.all(key, self.map[key])", REQUEST_MAX / 10),
            ("['a', 'b'].all(a, a in self.any)", 1),
        ] {
            let (parsed, _) = crate::expression::parse(rule).unwrap();
            assert_eq!(analyse(&parsed, &schema, None, false).rounds, rounds, "{rule}");
        }
        let required = json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}});
        assert_eq!(bound(&json!({"items": required})), REQUEST_MAX / 11);
    }
}
