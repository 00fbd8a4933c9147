//! Fields that rules name but schemas do not have: such a rule would fail on every object.

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

/// Variables whose schema may be known, the innermost last.
struct Scope<'s> {
    variables: Vec<(&'s str, Option<&'s Value>)>,
    undefined: Vec<String>,
}

/// Fields that an expression about `schema` selects but that are not there; `None` for an `old` of unknown form. Only
/// what the schema fully describes is judged. The root's own members (`metadata` and such) are always known.
pub(super) fn undefined(expression: &IdedExpr, schema: &Value, old: Option<&Value>, root: bool) -> Vec<String> {
    let variables = vec![("self", Some(schema)), ("oldSelf", old)];
    let mut scope = Scope { variables, undefined: Vec::new() };
    scope.resolve(expression, if root { Some(schema) } else { None });
    scope.undefined
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
                let item = self.resolve(&c.iter_range, root).and_then(|range| range.get("items"));
                self.resolve(&c.accu_init, root);
                let outside = self.variables.len();
                let (first, second) = if c.iter_var2.is_some() { (None, item) } else { (item, None) };
                self.variables.push((&c.accu_var, None));
                self.variables.push((&c.iter_var, first));
                self.variables.extend(c.iter_var2.as_deref().map(|name| (name, second)));
                for inner in [&c.loop_cond, &c.loop_step, &c.result] {
                    self.resolve(inner, root);
                }
                self.variables.truncate(outside);
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
            self.undefined.push(field.to_owned());
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
            let found = undefined(&parsed, &schema, Some(&schema), root);
            assert_eq!(found.first().map(String::as_str), expected, "{rule}");
        }
        let (parsed, _) = crate::expression::parse("oldSelf.closed == 1").unwrap();
        assert!(undefined(&parsed, &schema, None, false).is_empty(), "an old value that may be missing is wrapped");
    }
}
