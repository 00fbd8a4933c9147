//! Which names a definition gets.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// The outcome for one definition.
#[derive(Clone, Debug)]
pub struct NamesVerdict {
    /// `status.acceptedNames`
    pub accepted: Value,
    pub conflict: Option<String>,
    pub reason: &'static str,
    pub message: String,
}

/// Names in the group that others have: resource names and kinds are two spaces.
#[derive(Default)]
struct Taken {
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

impl Taken {
    fn by(definition: &Value, others: &[&Value]) -> Self {
        let mut taken = Self::default();
        let uid = &definition["metadata"]["uid"];
        let group = &definition["spec"]["group"];
        for other in others.iter().filter(|o| &o["spec"]["group"] == group && &o["metadata"]["uid"] != uid) {
            let names = &other["status"]["acceptedNames"];
            let texts = |names: &Value| names.as_str().filter(|n| !n.is_empty()).map(str::to_owned);
            taken.resources.extend(texts(&names["plural"]));
            taken.resources.extend(texts(&names["singular"]));
            taken.resources.extend(names["shortNames"].as_array().into_iter().flatten().filter_map(texts));
            taken.kinds.extend(texts(&names["kind"]));
            taken.kinds.extend(texts(&names["listKind"]));
        }
        taken
    }
}

/// Accepts what is free; a name that is taken keeps what was accepted before.
pub fn check(definition: &Value, others: &[&Value]) -> NamesVerdict {
    let taken = Taken::by(definition, others);
    let asked = &definition["spec"]["names"];
    let before = &definition["status"]["acceptedNames"];
    let mut accepted = Map::new();
    let mut conflicts: Vec<(&'static str, String)> = Vec::new();
    let singles = [
        ("plural", &taken.resources, "PluralConflict"),
        ("singular", &taken.resources, "SingularConflict"),
        ("kind", &taken.kinds, "KindConflict"),
        ("listKind", &taken.kinds, "ListKindConflict"),
    ];
    let mut shorts: (Vec<Value>, bool) = (Vec::new(), false);
    for short in asked["shortNames"].as_array().into_iter().flatten() {
        if short.as_str().is_some_and(|name| taken.resources.contains(name)) {
            conflicts.push(("ShortNamesConflict", format!("{short} is already in use")));
            shorts.1 = true;
        } else {
            shorts.0.push(short.clone());
        }
    }
    for (member, space, reason) in singles {
        let Some(name) = asked[member].as_str().filter(|n| !n.is_empty()) else { continue };
        if space.contains(name) {
            conflicts.push((reason, format!("\"{name}\" is already in use")));
            if let Some(kept) = before[member].as_str() {
                accepted.insert(member.into(), kept.into());
            }
        } else {
            accepted.insert(member.into(), name.into());
        }
    }
    let short_names = if shorts.1 { before["shortNames"].clone() } else { shorts.0.into() };
    if short_names.as_array().is_some_and(|names| !names.is_empty()) {
        accepted.insert("shortNames".into(), short_names);
    }
    if asked["categories"].as_array().is_some_and(|c| !c.is_empty()) {
        accepted.insert("categories".into(), asked["categories"].clone());
    }
    for required in ["plural", "kind"] {
        accepted.entry(required).or_insert_with(|| "".into());
    }
    // The last conflict found in upstream's order of checks names the reason.
    let (reason, message) = match conflicts.last() {
        None => ("NoConflicts", "no conflicts found".to_owned()),
        Some((reason, message)) => (*reason, message.clone()),
    };
    let conflict = conflicts.pop().map(|(_, message)| message);
    NamesVerdict { accepted: accepted.into(), conflict, reason, message }
}
