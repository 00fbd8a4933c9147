//! Strategic merge: a merge patch that knows how the lists of a type merge.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::restore::shown;
use crate::schema::{Field, Shape};
use crate::status::Status;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

type Members = Map<String, Value>;

/// Applies a strategic merge patch to an object of the shape.
///
/// Badly formed directives answer 400, patches that contradict their own directives 422, and patches that do not fit
/// the type (such as list elements without their merge key) 500.
pub fn strategic_merge_patch(shape: Shape, object: &Value, patch: &Value) -> Result<Value, Status> {
    let patch = patch.as_object().ok_or_else(|| Status::bad_request("a strategic merge patch is a JSON object"))?;
    let object = object.as_object().cloned().unwrap_or_default();
    merge_members(shape, object, patch).map(Value::Object)
}

fn merge_members(shape: Shape, mut target: Members, patch: &Members) -> Result<Members, Status> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(Value::String(directive)) => match directive.as_str() {
            "replace" => return Ok(without_directives(patch)),
            "delete" => return Ok(Members::new()),
            "merge" => {}
            _ => return Err(unknown_directive(patch)),
        },
        Some(_) => return Err(unknown_directive(patch)),
    }
    retain_keys(&mut target, patch)?;
    for (key, change) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            delete_from(&mut target, list, change)?;
        } else if let Some(list) = key.strip_prefix(ELEMENT_ORDER) {
            // With a list in the patch the order is set when that list is merged.
            if !patch.contains_key(list) {
                set_order(shape.field(list), &mut target, list, change, usize::MAX)?;
            }
        } else if change.is_null() {
            target.remove(key);
        } else if !is_directive(key) {
            let known = merge_member(shape, &mut target, key, change)?;
            if let (Some(order), Some(items)) = (patch.get(&format!("{ELEMENT_ORDER}{key}")), change.as_array()) {
                check_order(shape.field(key), items, key, order)?;
                set_order(shape.field(key), &mut target, key, order, known)?;
            }
        }
    }
    Ok(target)
}

/// Returns how many items of a merged list were there before the patch.
fn merge_member(shape: Shape, target: &mut Members, key: &str, change: &Value) -> Result<usize, Status> {
    let field = shape.field(key);
    let mut known = 0;
    let merged = match change {
        Value::Object(change) if field.is_some_and(Field::replaces) => Value::Object(without_directives(change)),
        Value::Object(change) => {
            let current = match target.remove(key) {
                Some(Value::Object(current)) => current,
                _ => Members::new(),
            };
            Value::Object(merge_members(shape.member(key).unwrap_or(Shape::Any), current, change)?)
        }
        Value::Array(change) => match field.filter(|f| f.merges()) {
            Some(field) => {
                let current = match target.remove(key) {
                    Some(Value::Array(current)) => current,
                    _ => Vec::new(),
                };
                let (items, before) = merge_list(field, current, change)?;
                known = before;
                Value::Array(items)
            }
            None => Value::Array(change.iter().map(without_nulls).collect()),
        },
        scalar => scalar.clone(),
    };
    target.insert(key.to_owned(), merged);
    Ok(known)
}

/// The merged list and how many of its first items were there before.
fn merge_list(field: &'static Field, mut items: Vec<Value>, patch: &[Value]) -> Result<(Vec<Value>, usize), Status> {
    if patch.iter().any(Value::is_array) {
        return Err(Status::unprocessable());
    }
    if field.patch_merge_key.is_empty() {
        let known = items.len();
        let mut seen: HashSet<String> = items.iter().map(Value::to_string).collect();
        items.extend(patch.iter().filter(|i| !i.is_null() && seen.insert(i.to_string())).cloned());
        return Ok((items, known));
    }
    let merge_key = field.patch_merge_key;
    let mut replace = false;
    let mut changes = Vec::new();
    let mut deleted = HashSet::new();
    for element in patch {
        let name = || name_of(element, merge_key).ok_or_else(|| no_merge_key(element, merge_key));
        let members = element.as_object().ok_or_else(|| no_merge_key(element, merge_key))?;
        match members.get(DIRECTIVE).map(|d| (d, d.as_str())) {
            None | Some((_, Some("merge"))) => changes.push((members, name)),
            Some((_, Some("replace"))) => replace = true,
            Some((_, Some("delete"))) => _ = deleted.insert(name()?),
            Some(_) => return Err(unknown_directive(members)),
        }
    }
    if replace {
        return Ok((changes.into_iter().map(|(members, _)| Value::Object(without_directives(members))).collect(), 0));
    }
    items.retain(|item| !name_of(item, merge_key).is_some_and(|name| deleted.contains(&name)));
    let known = items.len();
    let mut places = places(&items, merge_key);
    for (change, name) in changes {
        let name = name()?;
        match places.get(&name) {
            Some(place) => {
                let current = items[*place].as_object_mut().map(std::mem::take).unwrap_or_default();
                items[*place] = Value::Object(merge_members(field.element(), current, change)?);
            }
            None => {
                places.insert(name, items.len());
                items.push(Value::Object(merge_members(field.element(), Members::new(), change)?));
            }
        }
    }
    Ok((items, known))
}

/// What tells an item of a list from the others: its merge key, or a scalar itself.
fn name_of(item: &Value, merge_key: &str) -> Option<String> {
    if merge_key.is_empty() { Some(item.to_string()) } else { item.get(merge_key).map(Value::to_string) }
}

/// Where the items of a list are, by name; of several with the same name the first counts.
fn places(items: &[Value], merge_key: &str) -> HashMap<String, usize> {
    let mut places = HashMap::new();
    for (place, item) in items.iter().enumerate() {
        if let Some(name) = name_of(item, merge_key) {
            places.entry(name).or_insert(place);
        }
    }
    places
}

/// Clears the members that the patch does not say to keep.
fn retain_keys(target: &mut Members, patch: &Members) -> Result<(), Status> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let keys = keys.as_array().ok_or_else(|| bad_format("retainKeys"))?;
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let kept = |key: &str| keys.contains(key);
    if patch.keys().any(|key| !is_directive(key) && !patch[key].is_null() && !kept(key)) {
        return Err(Status::unprocessable());
    }
    target.retain(|key, _| kept(key));
    Ok(())
}

fn delete_from(target: &mut Members, list: &str, values: &Value) -> Result<(), Status> {
    let values = values.as_array().ok_or_else(|| bad_format("primitive list"))?;
    if let Some(items) = target.get_mut(list).and_then(Value::as_array_mut) {
        let values: HashSet<String> = values.iter().map(Value::to_string).collect();
        items.retain(|item| !values.contains(&item.to_string()));
    }
    Ok(())
}

fn merge_key(field: Option<&'static Field>) -> &'static str {
    field.map_or("", |f| f.patch_merge_key)
}

/// Puts the merged list into the wanted order. Items that only the server knows keep their place relative to those of
/// the first `known` items, whose order is the server's.
fn set_order(
    field: Option<&'static Field>,
    target: &mut Members,
    list: &str,
    order: &Value,
    known: usize,
) -> Result<(), Status> {
    let merge_key = merge_key(field);
    let order = places(order.as_array().ok_or_else(|| no_order(order))?, merge_key);
    let Some(items) = target.get_mut(list).and_then(Value::as_array_mut) else { return Ok(()) };
    let mut ordered = Vec::new();
    let mut others = Vec::new();
    for (server_place, item) in std::mem::take(items).into_iter().enumerate() {
        match name_of(&item, merge_key).and_then(|name| order.get(&name)) {
            Some(place) => ordered.push((*place, server_place, item)),
            None => others.push((server_place, item)),
        }
    }
    ordered.sort_by_key(|(place, _, _)| *place);
    let mut others = others.into_iter().peekable();
    for (_, server_place, item) in ordered {
        while let Some((_, other)) = others.next_if(|(place, _)| server_place < known && *place < server_place) {
            items.push(other);
        }
        items.push(item);
    }
    items.extend(others.map(|(_, item)| item));
    Ok(())
}

fn check_order(field: Option<&'static Field>, patch: &[Value], list: &str, order: &Value) -> Result<(), Status> {
    let merge_key = merge_key(field);
    let order = places(order.as_array().ok_or_else(|| no_order(order))?, merge_key);
    let mut last = 0;
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        match name_of(item, merge_key).and_then(|name| order.get(&name)) {
            Some(place) if *place >= last => last = *place,
            _ => {
                let problem = format!("the order in patch list {list} doesn't match {ELEMENT_ORDER}{list}");
                return Err(Status::failure(problem));
            }
        }
    }
    Ok(())
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(ELEMENT_ORDER)
}

fn without_directives(members: &Members) -> Members {
    let kept = members.iter().filter(|(k, v)| !is_directive(k) && !v.is_null());
    kept.map(|(k, v)| (k.clone(), without_nulls(v))).collect()
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(without_directives(members)),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        scalar => scalar.clone(),
    }
}

fn bad_format(directive: &str) -> Status {
    Status::bad_request(format!("invalid patch format of {directive}"))
}

fn no_order(given: &Value) -> Status {
    let kind = match given {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        _ => "map[string]interface {}",
    };
    Status::failure(format!("expected a []interface {{}}, but received a {kind}"))
}

fn unknown_directive(patch: &Members) -> Status {
    let map = shown(&Value::Object(patch.clone()));
    Status::failure(format!("unknown patch type: {} in map: {map}", shown(&patch[DIRECTIVE])))
}

fn no_merge_key(element: &Value, merge_key: &str) -> Status {
    Status::failure(format!("map: {} does not contain declared merge key: {merge_key}", shown(element)))
}

#[cfg(test)]
#[path = "strategic_tests.rs"]
mod tests;
