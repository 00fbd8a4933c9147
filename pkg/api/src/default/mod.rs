//! Filling in what the writer of an object left open.

mod pod;
mod rule;
mod workload;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use crate::codec;
use crate::resource::Resource;
use crate::schema::Type;
use rule::Rule;

/// Brings an object to its normal form and fills unset fields, also inside pod and volume claim templates.
///
/// Runs on every object that was decoded, patched or applied; a second run changes nothing. The defaults
/// of custom resources come from their own schema.
pub fn apply_defaults(resource: &Resource, object: &mut Value) {
    if let Some(custom) = &resource.custom_schema {
        custom.schema().apply_defaults(object);
    }
    if let Some(ty) = resource.ty {
        apply_type_defaults(ty.name, object);
    }
}

/// As [`apply_defaults`], for a type of the field table that is no resource of its own (`PodTemplateSpec` has no rules;
/// `TokenRequest` has).
pub fn apply_type_defaults(type_name: &str, object: &mut Value) {
    if let Some(ty) = crate::schema::find(type_name) {
        codec::normalize(ty.shape(), object);
    }
    if let Some(tree) = TREES.get(type_name) {
        tree.run(object);
    }
}

static TREES: LazyLock<HashMap<&'static str, Node>> = LazyLock::new(|| {
    let types: Vec<TypeRules> =
        serde_json::from_str(include_str!("../data/defaults.json")).expect("the generated table is valid");
    types.into_iter().map(|ty| (ty.name, Node::build(ty.name, ty.rules))).collect()
});

#[derive(Deserialize)]
struct TypeRules {
    #[serde(rename = "n")]
    name: &'static str,
    #[serde(rename = "r")]
    rules: Vec<(&'static str, RuleText)>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RuleText {
    Named(&'static str),
    Fixed { set: Value },
}

/// Rules by the place they hold at. A parent's rules run before its members'; a rule runs only where its place exists.
#[derive(Default)]
struct Node {
    /// Of the place, or of the items or values there.
    ty: Option<&'static Type>,
    rules: Vec<Action>,
    children: Vec<(Step, Node)>,
}

enum Action {
    Set(&'static str, Value),
    Rule(&'static Rule),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Member(&'static str),
    Items,
    Values,
}

impl Node {
    fn build(name: &str, rules: Vec<(&'static str, RuleText)>) -> Self {
        let mut root = Self { ty: crate::schema::find(name), ..Self::default() };
        for (path, text) in rules {
            match text {
                RuleText::Fixed { set } => {
                    let (parent, member) = path.rsplit_once('.').unwrap_or(("", path));
                    root.at(parent).rules.push(Action::Set(member, set));
                }
                RuleText::Named(name) => {
                    if let Some(rule) = rule::find(name) {
                        root.at(path).rules.push(Action::Rule(rule));
                    }
                }
            }
        }
        root
    }

    fn at(&mut self, path: &'static str) -> &mut Self {
        let mut node = self;
        for step in steps(path) {
            let index = node.children.iter().position(|(s, _)| *s == step).unwrap_or_else(|| {
                let ty = match step {
                    Step::Member(name) => node.ty.and_then(|ty| ty.field(name)?.target()),
                    Step::Items | Step::Values => node.ty,
                };
                node.children.push((step, Self { ty, ..Self::default() }));
                node.children.len() - 1
            });
            node = &mut node.children[index].1;
        }
        node
    }

    fn run(&self, value: &mut Value) {
        if value.is_null() {
            return;
        }
        for action in &self.rules {
            match action {
                Action::Set(member, default) => rule::fill_member(value, member, self.ty, || default.clone()),
                Action::Rule(rule) => rule.run(value, self.ty),
            }
        }
        for (step, child) in &self.children {
            match (step, &mut *value) {
                (Step::Member(name), Value::Object(members)) => {
                    if let Some(member) = members.get_mut(*name) {
                        child.run(member);
                    }
                }
                (Step::Items, Value::Array(items)) => items.iter_mut().for_each(|item| child.run(item)),
                (Step::Values, Value::Object(members)) => members.values_mut().for_each(|member| child.run(member)),
                _ => {}
            }
        }
    }
}

fn steps(path: &'static str) -> impl Iterator<Item = Step> {
    path.split('.').filter(|part| !part.is_empty()).flat_map(|part| {
        let name = part.trim_end_matches("[]").trim_end_matches("{}");
        let inner = match &part[name.len()..] {
            "[]" => Some(Step::Items),
            "{}" => Some(Step::Values),
            _ => None,
        };
        std::iter::once(Step::Member(name)).chain(inner)
    })
}

#[cfg(test)]
mod tests;
