//! Compiles rules, and refuses those that may cost too much.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Node, Rule, place};
use crate::cel::{Env, Program, Shape, Type};
use crate::field::{FieldError, FieldErrorKind, FieldPath};

/// What a rule may be estimated to cost for one object.
const RULE_MAX: u64 = 10_000_000;
/// What all rules of a schema may be estimated to cost for one object.
const SCHEMA_MAX: u64 = 100_000_000;
/// Costly rules that are named when all are too much.
const NAMED: usize = 4;
/// Characters of an expression that an error repeats.
const SHOWN: usize = 1000;
/// What types of a schema are named by. Not by the variable: `self.spec` would then be a type, not a field.
const SELF: &str = "selfType";
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Where in an object a schema applies.
#[derive(Clone)]
struct Place {
    /// A whole resource: the custom resource, or one embedded in it.
    root: bool,
    /// How many of its values an object has at most; none if nothing limits them.
    count: Option<u64>,
    /// The list without keys that it is in, whose items are not found again in an old list.
    loose: Option<FieldPath>,
    shape: Option<Arc<Shape>>,
}

struct Compiler {
    errors: Vec<FieldError>,
    total: u64,
    costly: Vec<(u64, FieldPath)>,
}

pub(super) fn compile(schema: &Value, path: &FieldPath) -> Result<Node, Vec<FieldError>> {
    let shape = Shape::of_schema(schema, SELF, true).map(Arc::new);
    let mut compiler = Compiler { errors: Vec::new(), total: 0, costly: Vec::new() };
    let node = compiler.node(schema, schema, path, &Place { root: true, count: Some(1), loose: None, shape });
    if compiler.total > SCHEMA_MAX {
        compiler.costly.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, at) in compiler.costly.iter().take(NAMED) {
            let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            compiler.errors.push(FieldError::forbidden(at, why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        compiler.errors.push(FieldError::forbidden(path, too_costly(what, compiler.total, SCHEMA_MAX)));
    }
    if compiler.errors.is_empty() { Ok(node) } else { Err(compiler.errors) }
}

fn too_costly(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

/// A rule as messages show it: under upstream's own names.
fn shown(rule: &Value) -> String {
    let text = |key: &str| {
        let text: String = rule[key].as_str().unwrap_or_default().chars().take(SHOWN).collect();
        let text = Value::from(text).to_string();
        [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026")]
            .iter()
            .fold(text, |text, (from, to)| text.replace(*from, to))
    };
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        rule["reason"],
        text("fieldPath"),
        rule["optionalOldSelf"],
    )
}

impl Compiler {
    /// `schema` says the rules of what `spine` describes; they differ in `allOf` only.
    fn node(&mut self, schema: &Value, spine: &Value, path: &FieldPath, at: &Place) -> Node {
        let mut properties = BTreeMap::new();
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            let spine = &spine["properties"][name.as_str()];
            let place = self.below(spine, at, at.count, at.shape.as_ref().and_then(|s| s.property(name)), None);
            let node = self.node(child, spine, &path.child("properties").key(name), &place);
            if !node.is_empty() {
                properties.insert(name.clone(), node);
            }
        }
        let mut element = None;
        for (name, limit) in [("items", "maxItems"), ("additionalProperties", "maxProperties")] {
            let Some(child) = schema.get(name).filter(|c| c.is_object()) else { continue };
            let count = at.count.zip(spine[limit].as_u64()).map(|(a, b)| a.saturating_mul(b));
            let keyed = name != "items" || spine["x-kubernetes-list-type"] == "map";
            let loose = (!keyed).then(|| path.clone());
            let place = self.below(&spine[name], at, count, at.shape.as_ref().and_then(|s| s.element()), loose);
            let node = self.node(child, &spine[name], &path.child(name), &place);
            element = Some(Box::new(node)).filter(|n| !n.is_empty());
        }
        let mut all_of = Vec::new();
        for (index, child) in schema["allOf"].as_array().into_iter().flatten().enumerate() {
            let node = self.node(child, spine, &path.child("allOf").index(index), at);
            all_of.extend(Some(node).filter(|n| !n.is_empty()));
        }
        let keys = spine["x-kubernetes-list-map-keys"].as_array().filter(|_| spine["x-kubernetes-list-type"] == "map");
        let keys = keys.map(|keys| keys.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        let shape = at.shape.clone().or_else(|| Shape::of_schema(spine, SELF, at.root).map(Arc::new));
        let rules = self.rules(schema, path, &Place { shape: shape.clone(), ..at.clone() }, spine);
        let shape = shape.unwrap_or_else(|| Arc::new(Shape::unknown()));
        let kind = spine["type"].as_str().unwrap_or_default().to_owned();
        Node { rules, shape, kind, properties, element, all_of, keys }
    }

    fn below(
        &self,
        spine: &Value,
        at: &Place,
        count: Option<u64>,
        shape: Option<&Arc<Shape>>,
        loose: Option<FieldPath>,
    ) -> Place {
        let root = spine["x-kubernetes-embedded-resource"] == true;
        Place { root, count, loose: at.loose.clone().or(loose), shape: shape.cloned() }
    }

    fn rules(&mut self, schema: &Value, path: &FieldPath, at: &Place, spine: &Value) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (index, rule) in schema["x-kubernetes-validations"].as_array().into_iter().flatten().enumerate() {
            let path = path.child("x-kubernetes-validations").index(index);
            if self.check_words(rule, &path, spine) {
                rules.extend(self.rule(rule, &path, at, spine));
            }
        }
        rules
    }

    /// What does not need compiling; false if there is no use in it.
    fn check_words(&mut self, rule: &Value, path: &FieldPath, spine: &Value) -> bool {
        let before = self.errors.len();
        let text = |key: &str| rule[key].as_str().unwrap_or_default();
        let lines = |text: &str| text.contains(['\n', '\r']);
        let blank = |key: &str| !text(key).is_empty() && text(key).trim().is_empty();
        let (words, message) = (text("rule").trim(), text("message").trim());
        let at = |key: &str| path.child(key);
        if words.is_empty() {
            self.errors.push(FieldError::required(&at("rule"), "rule is not specified"));
        } else if blank("message") {
            self.errors.push(FieldError::invalid(&at("message"), text("message"), "must be non-empty if specified"));
        } else if lines(message) {
            self.errors.push(FieldError::invalid(&at("message"), text("message"), "must not contain line breaks"));
        } else if lines(words) && message.is_empty() {
            let why = "message must be specified if rule contains line breaks";
            self.errors.push(FieldError::required(&at("message"), why));
        }
        if blank("messageExpression") {
            let why = "messageExpression must be non-empty if specified";
            self.errors.push(FieldError::required(&at("messageExpression"), why));
        }
        if let Some(reason) = rule["reason"].as_str().filter(|r| !REASONS.contains(r)) {
            self.errors.push(FieldError::not_supported(&at("reason"), reason, &REASONS));
        }
        let field = text("fieldPath");
        if blank("fieldPath") {
            self.errors.push(FieldError::invalid(&at("fieldPath"), field, "must be non-empty if specified"));
        }
        if lines(field) {
            self.errors.push(FieldError::invalid(&at("fieldPath"), field, "must not contain line breaks"));
        }
        if !field.is_empty() && place::read(field, spine, &FieldPath::default()).is_none() {
            self.errors.push(FieldError::invalid(&at("fieldPath"), field, "must be a valid path"));
        }
        self.errors.len() == before
    }

    fn rule(&mut self, rule: &Value, path: &FieldPath, at: &Place, spine: &Value) -> Option<Rule> {
        let Some(shape) = &at.shape else {
            let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to \
                       convert structural schema to CEL declarations";
            self.errors.push(FieldError::internal(path, why));
            return None;
        };
        let text = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
        let optional_old = rule["optionalOldSelf"] == true;
        let old = if optional_old { Type::optional(shape.ty()) } else { shape.ty() };
        let env = Env::default().with_shape("self", shape).with("oldSelf", old);
        let program = self.program(rule, "rule", path, &env, &Type::Bool)?;
        let count = at.count.unwrap_or_else(|| shape.most_in_request());
        self.charge(program.estimate(shape).saturating_mul(count), &path.child("rule"), "estimated rule cost");
        let mut message_program = None;
        if !text("messageExpression").is_empty() {
            let at = path.child("messageExpression");
            let program = self.program(rule, "messageExpression", path, &env, &Type::String)?;
            self.charge(program.estimate(shape), &at, "estimated messageExpression cost");
            message_program = Some(program);
        }
        let uses_old = program.uses("oldSelf");
        if let Some(list) = at.loose.as_ref().filter(|_| uses_old) {
            let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
            self.errors.push(FieldError::invalid(&path.child("rule"), text("rule"), why));
        } else if !uses_old && !rule["optionalOldSelf"].is_null() {
            let why = "may not be set if oldSelf is not used in rule";
            self.errors.push(FieldError::invalid(&path.child("optionalOldSelf"), optional_old, why));
        }
        Some(Rule {
            program,
            text: text("rule").trim().to_owned(),
            message: text("message").trim().to_owned(),
            message_program,
            reason: match rule["reason"].as_str() {
                Some("FieldValueForbidden") => FieldErrorKind::Forbidden,
                Some("FieldValueRequired") => FieldErrorKind::Required,
                Some("FieldValueDuplicate") => FieldErrorKind::Duplicate,
                _ => FieldErrorKind::Invalid,
            },
            field: place::read(&text("fieldPath"), spine, &FieldPath::default()).unwrap_or_default(),
            uses_old,
            optional_old,
        })
    }

    fn program(&mut self, rule: &Value, key: &str, path: &FieldPath, env: &Env, gives: &Type) -> Option<Program> {
        let message = *gives == Type::String;
        let why = match Program::compile(rule[key].as_str().unwrap_or_default(), env) {
            Ok(program) if program.output() == gives => return Some(program),
            Ok(_) if message => "messageExpression must evaluate to a string".to_owned(),
            Ok(_) => "cel expression must evaluate to a bool".to_owned(),
            Err(issues) if message => issues.of_message(),
            Err(issues) => issues.detail(),
        };
        self.errors.push(FieldError::invalid_part(&path.child(key), format!("{}: {why}", shown(rule))));
        None
    }

    fn charge(&mut self, cost: u64, path: &FieldPath, what: &str) {
        if cost > RULE_MAX {
            self.errors.push(FieldError::forbidden(path, too_costly(what, cost, RULE_MAX)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_MAX / 100 {
            self.costly.push((cost, path.clone()));
        }
    }
}
