//! Walks over values: which fields one has, how two differ, how two merge.

use std::collections::HashMap;
use std::fmt::Write;

use serde_json::{Map, Value};

use super::field_set::{FieldSet, Node, Part, step_text};
use super::place::{Form, Place};

/// The fields of an applied configuration.
pub(super) fn fields(place: Place, value: &Value) -> FieldSet {
    describe(place, value).below
}

fn describe(place: Place, value: &Value) -> Node {
    let mut below = FieldSet::default();
    match (place.form(value), value) {
        (Form::Members, Value::Object(members)) => {
            for (name, value) in members {
                let member = place.member(name).unwrap_or(Place::Deduced);
                let mut node = describe(member, value);
                // Members of maps and empty structs are owned themselves; other structs by what is in them.
                node.owned |= value.as_object().is_some_and(Map::is_empty) || !place.is_field(name);
                below.put_member(name, node);
            }
            Node { owned: false, below }
        }
        (Form::Items, Value::Array(items)) => {
            for item in items {
                if let Some(element) = place.element(item) {
                    let node = describe(place.item(), item);
                    below.put(element, Node { owned: true, ..node });
                }
            }
            Node { owned: false, below }
        }
        _ => Node::leaf(),
    }
}

/// How an object changed.
#[derive(Default)]
pub(super) struct Difference {
    /// Fields that are new or have another value.
    pub touched: FieldSet,
    pub removed: FieldSet,
}

pub(super) fn compare(place: Place, old: &Value, new: &Value) -> Difference {
    let (touched, removed) = difference(place, Some(old), Some(new));
    Difference { touched: touched.below, removed: removed.below }
}

fn difference(place: Place, old: Option<&Value>, new: Option<&Value>) -> (Node, Node) {
    let (mut touched, mut removed) = (Node::default(), Node::default());
    if old == new {
        return (touched, removed);
    }
    let form = place.form(new.filter(|v| !v.is_null()).or(old).unwrap_or(&Value::Null));
    let empty = |value: Option<&Value>| value.is_none_or(super::is_empty_container);
    match form {
        Form::Members if fits(old, Value::is_object) && fits(new, Value::is_object) && !(empty(old) && empty(new)) => {
            let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            let names = new.into_iter().flatten().map(|(name, _)| name);
            let gone = old
                .into_iter()
                .flatten()
                .map(|(name, _)| name)
                .filter(|name| !new.is_some_and(|n| n.contains_key(*name)));
            for name in names.chain(gone) {
                let member = place.member(name).unwrap_or(Place::Deduced);
                let (old, new) = (old.and_then(|o| o.get(name)), new.and_then(|n| n.get(name)));
                let (below_touched, below_removed) = difference(member, old, new);
                touched.below.put_member(name, below_touched);
                removed.below.put_member(name, below_removed);
            }
        }
        Form::Items if fits(old, Value::is_array) && fits(new, Value::is_array) && !(empty(old) && empty(new)) => {
            let (old_items, new_items) = (index(place, old), index(place, new));
            for (element, new_item) in &new_items.items {
                let old_item = old_items.get(element);
                let (below_touched, below_removed) = difference(place.item(), old_item, Some(new_item));
                touched.below.put(element.clone(), below_touched);
                removed.below.put(element.clone(), below_removed);
            }
            for (element, old_item) in &old_items.items {
                if new_items.get(element).is_none() {
                    removed.below.put(element.clone(), difference(place.item(), Some(old_item), None).1);
                }
            }
        }
        _ => {
            touched.owned = new.is_some();
            removed.owned = new.is_none();
        }
    }
    touched.owned |= old.is_none();
    removed.owned |= new.is_none();
    (touched, removed)
}

fn fits(value: Option<&Value>, kind: fn(&Value) -> bool) -> bool {
    value.is_none_or(|value| value.is_null() || kind(value))
}

/// The items of a list with their names. Of items with the same name only the first counts.
struct Index<'a> {
    items: Vec<(String, &'a Value)>,
    places: HashMap<String, usize>,
}

impl<'a> Index<'a> {
    fn get(&self, element: &str) -> Option<&'a Value> {
        self.places.get(element).map(|place| self.items[*place].1)
    }
}

fn index<'a>(place: Place, list: Option<&'a Value>) -> Index<'a> {
    let mut index = Index { items: Vec::new(), places: HashMap::new() };
    for (number, item) in list.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let element = place.element(item).unwrap_or_else(|| format!("i:{number}"));
        if !index.places.contains_key(&element) {
            index.places.insert(element.clone(), index.items.len());
            index.items.push((element, item));
        }
    }
    index
}

/// The live value with the configuration laid over it.
pub(super) fn merge(place: Place, live: Option<&Value>, config: &Value) -> Value {
    let Some(live) = live else { return config.clone() };
    match (place.form(config), live, config) {
        (Form::Members, Value::Object(live), Value::Object(config)) => {
            let mut merged = live.clone();
            for (name, value) in config {
                let member = place.member(name).unwrap_or(Place::Deduced);
                let value = merge(member, live.get(name), value);
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Form::Items, Value::Array(live), Value::Array(config)) => Value::Array(merge_items(place, live, config)),
        // A null takes nothing away from what merges.
        (_, live, Value::Null) if !super::is_empty_container(live) && !matches!(place.form(live), Form::Leaf) => {
            live.clone()
        }
        _ => config.clone(),
    }
}

/// Items of the configuration come in its order; items that are only live keep their place among the live ones.
fn merge_items(place: Place, live: &[Value], config: &[Value]) -> Vec<Value> {
    let name = |list: &[Value]| -> Vec<String> {
        let names = list.iter().enumerate();
        names.map(|(i, item)| place.element(item).unwrap_or_else(|| format!("i:{i}"))).collect()
    };
    let (live_names, config_names) = (name(live), name(config));
    let mut live_places: HashMap<&str, usize> = HashMap::new();
    for (place, name) in live_names.iter().enumerate() {
        live_places.entry(name).or_insert(place);
    }
    let config_places: HashMap<&str, usize> = config_names.iter().enumerate().map(|(i, n)| (n.as_str(), i)).collect();
    let mut shared = config_names.iter().enumerate().filter(|(_, n)| live_places.contains_key(n.as_str())).peekable();
    let mut merged = Vec::with_capacity(live.len().max(config.len()));
    let (mut at, mut from) = (0, 0);
    while at < live.len() || from < config.len() {
        while shared.next_if(|(place, _)| *place < from).is_some() {}
        match live_names.get(at).map(|name| (name, config_places.get(name.as_str()))) {
            Some((_, None)) => {
                merged.push(live[at].clone());
                at += 1;
                continue;
            }
            Some((name, Some(place))) if *place < from || shared.peek().is_some_and(|(_, next)| *next != name) => {
                at += 1;
                continue;
            }
            _ => {}
        }
        if let Some(item) = config.get(from) {
            let partner = live_places.get(config_names[from].as_str()).map(|place| &live[*place]);
            merged.push(merge(place.item(), partner, item));
            from += 1;
        } else {
            at += 1;
        }
    }
    merged
}

/// Removes what was applied before (`last`) and belongs to none of the owners now.
pub(super) fn prune(place: Place, value: &mut Value, last: Part, owners: &[Part]) {
    match (place.form(value), value) {
        (Form::Members, Value::Object(members)) => {
            for (step, owned, before) in last.steps() {
                let Some((name, value)) = step.strip_prefix("f:").and_then(|name| Some((name, members.get_mut(name)?)))
                else {
                    continue;
                };
                let field = place.is_field(name);
                let now: Vec<(bool, Part)> = owners.iter().filter_map(|part| part.get(step)).collect();
                let counts = |(owned, below): (bool, Part)| owned || (field && !below.is_empty());
                if counts((owned, before)) && !now.iter().copied().any(counts) {
                    members.remove(name);
                } else if !before.is_empty() {
                    prune(place.member(name).unwrap_or(Place::Deduced), value, before, &below(&now));
                }
            }
        }
        (Form::Items, Value::Array(items)) => items.retain_mut(|item| {
            let Some(element) = place.element(item) else { return true };
            let Some((owned, before)) = last.get(&element) else { return true };
            let now: Vec<(bool, Part)> = owners.iter().filter_map(|part| part.get(&element)).collect();
            if owned && !now.iter().any(|(owned, _)| *owned) {
                return false;
            }
            prune(place.item(), item, before, &below(&now));
            true
        }),
        _ => {}
    }
}

fn below<'a>(owners: &[(bool, Part<'a>)]) -> Vec<Part<'a>> {
    owners.iter().map(|(_, part)| *part).collect()
}

/// Makes a configuration ready to merge: explicit nulls go where types know none, scalars take their stored form. Returns what is wrong.
pub(super) fn prepare(place: Place, value: &mut Value) -> Vec<String> {
    let mut problems = Vec::new();
    check(place, value, &mut String::new(), &mut problems);
    problems
}

/// Paths of the lists, maps and structs that are owned as a whole.
pub(super) fn atomics(place: Place, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    find_atomics(place, value, &mut String::new(), &mut found);
    found
}

fn find_atomics(place: Place, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    if matches!(value, Value::Object(_) | Value::Array(_))
        && matches!(place.form(value), Form::Leaf)
        && !place.is_free()
    {
        found.push(path.clone());
    }
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                path.push('.');
                path.push_str(name);
                find_atomics(place.member(name).unwrap_or(Place::Deduced), value, path, found);
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                // Writing to a string cannot fail.
                _ = write!(path, "[{number}]");
                find_atomics(place.item(), item, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn check(place: Place, value: &mut Value, path: &mut String, problems: &mut Vec<String>) {
    if let Some(why) = place.mismatch(value) {
        problems.push(format!("{path}: {why}"));
        return;
    }
    let length = path.len();
    match value {
        Value::Object(members) => {
            if !place.keeps_null() && members.values().any(Value::is_null) {
                members.retain(|_, v| !v.is_null());
            }
            for (name, value) in members.iter_mut() {
                path.push('.');
                path.push_str(name);
                match place.member(name) {
                    Some(member) => check(member, value, path, problems),
                    None => problems.push(format!("{path}: field not declared in schema")),
                }
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter_mut().enumerate() {
                // Writing to a string cannot fail.
                _ = write!(path, "[{number}]");
                check(place.item(), item, path, problems);
                path.truncate(length);
            }
            if matches!(place.form(&Value::Array(Vec::new())), Form::Items) {
                check_elements(place, items, path, problems);
            }
        }
        _ => place.canonical(value),
    }
}

fn check_elements(place: Place, items: &[Value], path: &str, problems: &mut Vec<String>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (number, item) in items.iter().enumerate() {
        match place.element(item) {
            Some(element) => {
                if seen.insert(element.clone(), number).is_some() {
                    problems.push(format!("{path}: duplicate entries for key {}", step_text(&element)));
                }
            }
            None => problems.push(format!(
                "{path}: element {number}: associative list with keys has an element that omits all key fields (and doesn't have default values for any key fields)"
            )),
        }
    }
}
