//! Sets of fields, in the form in which managedFields keep them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of places in an object. Steps are `f:NAME`, `k:{keys}`, `v:VALUE` and `i:INDEX`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet(BTreeMap<String, Node>);

/// A step of some member of the set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The place that ends here is in the set.
    pub owned: bool,
    pub below: FieldSet,
}

impl Node {
    pub fn leaf() -> Self {
        Self { owned: true, below: FieldSet::default() }
    }

    pub fn is_empty(&self) -> bool {
        !self.owned && self.below.is_empty()
    }
}

impl FieldSet {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, step: &str) -> Option<&Node> {
        self.0.get(step)
    }

    /// Adds what is below a step, unless that is nothing.
    pub fn put(&mut self, step: String, node: Node) {
        if !node.is_empty() {
            self.0.insert(step, node);
        }
    }

    pub fn add(&mut self, other: &Self) {
        for (step, node) in &other.0 {
            let mine = self.0.entry(step.clone()).or_default();
            mine.owned |= node.owned;
            mine.below.add(&node.below);
        }
    }

    /// Takes out exactly the places of the other set.
    pub fn subtract(&mut self, other: &Self) {
        self.0.retain(|step, node| {
            if let Some(taken) = other.0.get(step) {
                node.owned &= !taken.owned;
                node.below.subtract(&taken.below);
            }
            !node.is_empty()
        });
    }

    /// Takes out the places of the other set with all that is below them.
    pub fn subtract_trees(&mut self, other: &Self) {
        self.0.retain(|step, node| match other.0.get(step) {
            Some(taken) if taken.owned => false,
            Some(taken) => {
                node.below.subtract_trees(&taken.below);
                !node.is_empty()
            }
            None => true,
        });
    }

    /// Keeps only the trees at the given paths; steps are separated by `/`, `*` is any step.
    pub fn keep(&mut self, paths: &[&str]) {
        self.0.retain(|step, node| {
            let mut rest = Vec::new();
            for path in paths {
                let (head, tail) = path.split_once('/').map_or((*path, None), |(head, tail)| (head, Some(tail)));
                match tail {
                    _ if head != "*" && head != step => {}
                    None => return true,
                    Some(tail) => rest.push(tail),
                }
            }
            node.owned = false;
            node.below.keep(&rest);
            !node.is_empty()
        });
    }

    pub fn intersection(&self, other: &Self) -> Self {
        let mut common = Self::default();
        for (step, node) in &self.0 {
            if let Some(theirs) = other.0.get(step) {
                let node = Node { owned: node.owned && theirs.owned, below: node.below.intersection(&theirs.below) };
                common.put(step.clone(), node);
            }
        }
        common
    }

    /// A set of struct fields, given as dotted paths.
    pub fn of_fields(paths: &[&str]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let mut at = &mut set;
            let mut names = path.split('.').peekable();
            while let Some(name) = names.next() {
                let node = at.0.entry(format!("f:{name}")).or_default();
                node.owned |= names.peek().is_none();
                at = &mut node.below;
            }
        }
        set
    }

    pub fn from_json(value: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (step, below) in value.as_object()? {
            if step == "." {
                continue;
            }
            if !matches!(step.get(..2), Some("f:" | "k:" | "v:" | "i:")) {
                return None;
            }
            let members = below.as_object()?;
            let node = Node { owned: members.is_empty() || members.contains_key("."), below: Self::from_json(below)? };
            set.0.insert(step.clone(), node);
        }
        Some(set)
    }

    pub fn to_json(&self) -> Value {
        let entries = self.0.iter().map(|(step, node)| {
            let mut below = node.below.to_json();
            if node.owned
                && !node.below.is_empty()
                && let Some(members) = below.as_object_mut()
            {
                members.insert(".".into(), Value::Object(Map::new()));
            }
            (step.clone(), below)
        });
        Value::Object(entries.collect())
    }

    /// All places, in the words of messages: `.spec.containers[name="x"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        for (step, node) in &self.0 {
            let path = format!("{prefix}{}", step_text(step));
            if node.owned {
                paths.push(path.clone());
            }
            node.below.collect(&path, paths);
        }
    }
}

fn step_text(step: &str) -> String {
    let (kind, text) = step.split_at(2);
    match kind {
        "f:" => format!(".{text}"),
        "v:" => format!("[={text}]"),
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        _ => format!("[{text}]"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_keep_their_wire_form() {
        let json = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:replicas": {}},
            "f:metadata": {"f:finalizers": {"v:\"x\"": {}}}});
        let set = FieldSet::from_json(&json).unwrap();
        assert_eq!(set.to_json(), json);
        assert_eq!(
            set.paths(),
            [
                ".metadata.finalizers[=\"x\"]",
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].image",
                ".spec.replicas"
            ]
        );
        assert!(FieldSet::from_json(&json!({"spec": {}})).is_none());
    }

    #[test]
    fn subtraction_takes_places_or_trees() {
        let all = FieldSet::from_json(&json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}})).unwrap();
        let taken = FieldSet::from_json(&json!({"f:a": {}})).unwrap();
        let (mut places, mut trees) = (all.clone(), all);
        places.subtract(&taken);
        trees.subtract_trees(&taken);
        assert_eq!(places.to_json(), json!({"f:a": {"f:b": {}}, "f:c": {}}));
        assert_eq!(trees.to_json(), json!({"f:c": {}}));
    }
}
