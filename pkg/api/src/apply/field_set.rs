//! Sets of fields, in the form in which managedFields keep them.

use serde_json::{Map, Value};

/// A set of places in an object, kept in its wire form: steps `f:NAME`, `k:{keys}`, `v:VALUE` and `i:INDEX` lead to
/// what is below; `.` or nothing below says that the place itself is in the set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet(Map<String, Value>);

/// The part of a set that is below some place.
#[derive(Clone, Copy)]
pub(super) struct Part<'a>(&'a Map<String, Value>);

/// A place while its set is being made.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// The place that ends here is in the set.
    pub owned: bool,
    pub below: FieldSet,
}

impl Node {
    pub fn leaf() -> Self {
        Self { owned: true, below: FieldSet::default() }
    }

    fn is_empty(&self) -> bool {
        !self.owned && self.below.is_empty()
    }
}

const SELF: &str = ".";

fn is_owned(below: &Map<String, Value>) -> bool {
    below.is_empty() || below.contains_key(SELF)
}

fn mark(below: &mut Map<String, Value>, owned: bool) {
    if owned && !below.is_empty() {
        below.insert(SELF.into(), Value::Object(Map::new()));
    }
}

impl<'a> Part<'a> {
    /// Whether the place at the step is in the set, and what is below it.
    pub fn get(self, step: &str) -> Option<(bool, Part<'a>)> {
        let below = self.0.get(step)?.as_object()?;
        Some((is_owned(below), Part(below)))
    }

    /// The steps, with whether the place there is in the set, and what is below it.
    pub fn steps(self) -> impl Iterator<Item = (&'a str, bool, Part<'a>)> {
        let steps = self.0.iter().filter(|(step, _)| *step != SELF);
        steps.filter_map(|(step, below)| below.as_object().map(|b| (step.as_str(), is_owned(b), Part(b))))
    }

    pub fn is_empty(self) -> bool {
        self.0.keys().all(|step| step == SELF)
    }
}

impl FieldSet {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn part(&self) -> Part<'_> {
        Part(&self.0)
    }

    /// Adds what is below a struct's or map's member, unless that is nothing.
    pub fn put_member(&mut self, name: &str, node: Node) {
        if !node.is_empty() {
            self.put(format!("f:{name}"), node);
        }
    }

    /// Adds what is below a step, unless that is nothing.
    pub fn put(&mut self, step: String, mut node: Node) {
        if !node.is_empty() {
            mark(&mut node.below.0, node.owned);
            self.0.insert(step, Value::Object(node.below.0));
        }
    }

    /// The steps from the object itself.
    pub fn steps_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.0
    }

    pub fn add(&mut self, other: &Self) {
        add(&mut self.0, &other.0);
    }

    /// Takes out exactly the places of the other set.
    pub fn subtract(&mut self, other: &Self) {
        subtract(&mut self.0, &other.0);
    }

    pub fn intersection(&self, other: &Self) -> Self {
        Self(intersection(&self.0, &other.0))
    }

    /// Takes out a struct's field, given as a dotted path; with all that is below it if `tree`.
    pub fn remove(&mut self, path: &str, tree: bool) {
        remove(&mut self.0, path, tree);
    }

    /// Keeps only the trees at the given paths; steps are separated by `/`, `*` is any step.
    pub fn keep(&mut self, paths: &[&str]) {
        keep(&mut self.0, paths);
    }

    pub fn from_json(value: Value) -> Option<Self> {
        let Value::Object(steps) = value else { return None };
        is_well_formed(&steps).then_some(Self(steps))
    }

    pub fn into_json(self) -> Value {
        Value::Object(self.0)
    }

    /// All places, in the words of messages: `.spec.containers[name="x"].image`. The places of a level come before those
    /// below it.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        collect(&self.0, "", &mut paths);
        paths
    }
}

fn is_well_formed(steps: &Map<String, Value>) -> bool {
    steps.iter().all(|(step, below)| {
        (step == SELF || matches!(step.get(..2), Some("f:" | "k:" | "v:" | "i:")))
            && below.as_object().is_some_and(is_well_formed)
    })
}

fn add(mine: &mut Map<String, Value>, other: &Map<String, Value>) {
    for (step, theirs) in other {
        match (mine.get_mut(step).and_then(Value::as_object_mut), theirs.as_object()) {
            (Some(below), Some(theirs)) => {
                let owned = is_owned(below) || is_owned(theirs);
                add(below, theirs);
                mark(below, owned);
            }
            _ => _ = mine.insert(step.clone(), theirs.clone()),
        }
    }
}

fn subtract(mine: &mut Map<String, Value>, other: &Map<String, Value>) {
    for (step, taken) in other {
        if step == SELF {
            continue;
        }
        let (Some(below), Some(taken)) = (mine.get_mut(step).and_then(Value::as_object_mut), taken.as_object()) else {
            continue;
        };
        let owned = is_owned(below) && !is_owned(taken);
        below.remove(SELF);
        subtract(below, taken);
        mark(below, owned);
        if !owned && below.is_empty() {
            mine.remove(step);
        }
    }
}

fn intersection(mine: &Map<String, Value>, other: &Map<String, Value>) -> Map<String, Value> {
    let mut common = FieldSet::default();
    for (step, below) in mine.iter().filter(|(step, _)| *step != SELF) {
        if let (Some(below), Some(theirs)) = (below.as_object(), other.get(step).and_then(Value::as_object)) {
            let owned = is_owned(below) && is_owned(theirs);
            common.put(step.clone(), Node { owned, below: FieldSet(intersection(below, theirs)) });
        }
    }
    common.0
}

fn remove(mine: &mut Map<String, Value>, path: &str, tree: bool) {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let step = format!("f:{name}");
    let Some(below) = mine.get_mut(&step).and_then(Value::as_object_mut) else { return };
    let owned = is_owned(below);
    below.remove(SELF);
    match rest {
        Some(rest) => {
            remove(below, rest, tree);
            mark(below, owned);
            if owned || !below.is_empty() {
                return;
            }
        }
        None if !tree && !below.is_empty() => return,
        None => {}
    }
    mine.remove(&step);
}

fn keep(mine: &mut Map<String, Value>, paths: &[&str]) {
    mine.retain(|step, below| {
        let mut rest = Vec::new();
        for path in paths {
            let (head, tail) = path.split_once('/').map_or((*path, None), |(head, tail)| (head, Some(tail)));
            match tail {
                _ if head != "*" && head != step => {}
                None => return true,
                Some(tail) => rest.push(tail),
            }
        }
        let Some(below) = below.as_object_mut().filter(|_| step != SELF) else { return false };
        keep(below, &rest);
        !below.is_empty()
    });
}

fn collect(steps: &Map<String, Value>, prefix: &str, paths: &mut Vec<String>) {
    let steps = || {
        let steps = steps.iter().filter(|(step, _)| *step != SELF);
        steps.filter_map(|(step, below)| Some((format!("{prefix}{}", step_text(step)), below.as_object()?)))
    };
    paths.extend(steps().filter(|(_, below)| is_owned(below)).map(|(path, _)| path));
    steps().for_each(|(path, below)| collect(below, &path, paths));
}

/// A step in the words of messages.
pub(super) fn step_text(step: &str) -> String {
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
        let set = FieldSet::from_json(json.clone()).unwrap();
        assert_eq!(set.clone().into_json(), json);
        assert_eq!(
            set.paths(),
            [
                ".metadata.finalizers[=\"x\"]",
                ".spec.replicas",
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].image"
            ]
        );
        assert!(FieldSet::from_json(json!({"spec": {}})).is_none());
    }

    #[test]
    fn sets_subtract_add_and_meet() {
        let set = |json: Value| FieldSet::from_json(json).unwrap();
        let all = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        for (other, left, common) in [
            (json!({"f:a": {}}), json!({"f:a": {"f:b": {}}, "f:c": {}}), json!({"f:a": {}})),
            (json!({"f:a": {"f:b": {}}}), json!({"f:a": {}, "f:c": {}}), json!({"f:a": {"f:b": {}}})),
            (json!({"f:a": {".": {}, "f:b": {}}}), json!({"f:c": {}}), json!({"f:a": {".": {}, "f:b": {}}})),
            (json!({"f:x": {}}), json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}), json!({})),
        ] {
            let other = set(other);
            let mut rest = all.clone();
            rest.subtract(&other);
            assert_eq!(rest.clone().into_json(), left);
            assert_eq!(all.intersection(&other).into_json(), common);
            rest.add(&all.intersection(&other));
            assert_eq!(rest, all);
        }
    }

    #[test]
    fn fields_and_trees_go() {
        let all = json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"f:d": {}}});
        for (path, tree, left) in [
            ("a", false, json!({"f:a": {"f:b": {}}, "f:c": {"f:d": {}}})),
            ("a", true, json!({"f:c": {"f:d": {}}})),
            ("c.d", false, json!({"f:a": {".": {}, "f:b": {}}})),
            ("a.b", true, json!({"f:a": {}, "f:c": {"f:d": {}}})),
            ("c", false, all.clone()),
        ] {
            let mut set = FieldSet::from_json(all.clone()).unwrap();
            set.remove(path, tree);
            assert_eq!(set.into_json(), left, "{path}");
        }
        let mut set =
            FieldSet::from_json(json!({"f:s": {"f:l": {"k:{}": {".": {}, "f:x": {}, "f:y": {}}}}, "f:t": {}})).unwrap();
        set.keep(&["f:s/f:l/*/f:x"]);
        assert_eq!(set.into_json(), json!({"f:s": {"f:l": {"k:{}": {"f:x": {}}}}}));
    }
}
