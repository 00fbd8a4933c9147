//! Server-side apply, and the record of who owns which field.

mod entries;
mod field_set;
mod mismatch;
mod place;
mod scope;
mod versions;
mod walk;

use serde_json::{Value, json};

use crate::resource::Resource;
use crate::status::{Cause, Status};
use crate::structural::Schema;
use entries::{Entries, Entry, Operation};
use field_set::FieldSet;
use place::Place;
use versions::Changes;

pub use versions::{OneVersion, Versions};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Lays the configuration over the live object as `manager`, whose fields it makes them; what the manager applied before
/// and nobody owns now is removed. Returns the merged object with its managedFields.
///
/// Answers 409 when fields of others would change and `force` is not set. Without `live` the object is new. For the
/// scale subresource `config` is a Scale, `live` and the result are its parent. `now` is an RFC 3339 time in UTC.
pub fn apply(
    resource: &Resource,
    live: Option<&Value>,
    config: &Value,
    manager: &str,
    force: bool,
    subresource: &str,
    now: &str,
) -> Result<Value, Status> {
    Manager { resource, schema: None, name: manager, subresource, now, versions: &OneVersion }
        .apply(live, config, force)
}

/// Records in the managedFields of `new` what a create, update or patch by `manager` changed. Call it with what the
/// request wants, before the server changes anything on its own.
pub fn track_update(
    resource: &Resource,
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: &str,
    now: &str,
) {
    Manager { resource, schema: None, name: manager, subresource, now, versions: &OneVersion }
        .track_update(old, new)
        .expect("one version takes no conversion");
}

/// Lays a configuration over an object by the rules of apply, without regard to who owns what.
///
/// # Errors
/// Says what the schema does not allow, and where the configuration has lists, maps or structs that it would replace as a
/// whole.
pub fn merge(resource: &Resource, live: &Value, mut config: Value) -> Result<Value, String> {
    let place = Place::of(resource, None);
    if let Some(problem) = walk::prepare(place, &mut config).into_iter().next() {
        return Err(format!("failed to convert patch object to typed object: {problem}"));
    }
    let atomic = walk::atomics(place, &config);
    if !atomic.is_empty() {
        let paths = atomic.join(", ");
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {paths}"));
    }
    Ok(walk::merge(place, Some(live), &config))
}

/// Somebody who changes an object, and through which endpoint.
#[derive(Clone, Copy)]
pub struct Manager<'a> {
    pub resource: &'a Resource,
    /// Schema of a custom resource that has one.
    pub schema: Option<&'a Schema>,
    pub name: &'a str,
    /// Empty for the main endpoint.
    pub subresource: &'a str,
    pub now: &'a str,
    /// The kind's other versions.
    pub versions: &'a dyn Versions,
}

impl Manager<'_> {
    /// See [`track_update`]. Fails where a conversion does; `new` has no managedFields then.
    pub fn track_update(&self, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
        let mut entries = self.starting_entries(old, new);
        self.reconcile(&mut entries, old);
        // Objects that nobody tracks stay so until they are applied to.
        if !entries.0.is_empty() || old.is_none() {
            self.record(old, new, &mut entries)?;
        }
        entries.store(new);
        Ok(())
    }

    /// See [`apply`].
    pub fn apply(&self, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, Status> {
        let config = self.checked(config, live)?;
        let place = self.place();
        let mut entries = live.and_then(Entries::of).unwrap_or_default();
        self.reconcile(&mut entries, live);
        if let (true, Some(live)) = (entries.0.is_empty(), live) {
            Manager { name: "before-first-apply", subresource: "", ..*self }.record(None, live, &mut entries)?;
        }
        let fields = walk::fields(place, &config);
        let mut mine = self.entry(Operation::Apply, fields.clone());
        let last = entries.take(&mine);
        let mut merged = walk::merge(place, live, &config);
        if let Some(last) = &last {
            merged = self.prune(merged, last, &fields, &entries)?;
        }
        let mut changes = self.changes(&entries, live, &merged)?;
        if !conflicts(&entries, &changes).is_empty() {
            // What the configuration leaves to defaults is no change: a reference without its default apiVersion.
            let mut defaulted = merged.clone();
            crate::default::apply_defaults(self.resource, &mut defaulted);
            changes = self.changes(&entries, live, &defaulted)?;
        }
        let conflicts = conflicts(&entries, &changes);
        let forced = force || live.is_some_and(|live| self.was_applied_by_client(live, &conflicts));
        if !conflicts.is_empty() && !forced {
            return Err(conflict_status(&conflicts));
        }
        entries.take_away(&changes);
        let same = |last: &Entry| last.fields == mine.fields && last.api_version == mine.api_version;
        if let Some(last) = last.filter(|last| changes.own_is_empty() && same(last)) {
            mine.time = last.time;
        }
        entries.0.push(mine);
        self.update_last_applied(live, &config, &mut merged);
        entries.store(&mut merged);
        Ok(merged)
    }

    fn place(&self) -> Place<'_> {
        Place::of(self.resource, self.schema)
    }

    fn entry(&self, operation: Operation, mut fields: FieldSet) -> Entry {
        scope::restrict(self.resource, self.subresource, &mut fields);
        scope::strip(&mut fields);
        // The way back from a Scale to its parent has no time for who is new there.
        let time = if self.subresource == "scale" { String::new() } else { self.now.to_owned() };
        Entry {
            operation,
            time,
            manager: self.name.to_owned(),
            api_version: self.resource.api_version(),
            subresource: self.subresource.to_owned(),
            fields,
        }
    }

    /// Gives what changed to this manager and takes it from all others.
    fn record(&self, old: Option<&Value>, new: &Value, entries: &mut Entries) -> Result<(), Status> {
        let changes = self.changes(entries, old, new)?;
        entries.take_away(&changes);
        if !changes.own().touched.is_empty() {
            let mut mine = self.entry(Operation::Update, changes.own().touched.clone());
            if let Some(before) = entries.take(&mine) {
                mine.fields.add(&before.fields);
            }
            entries.0.push(mine);
        }
        entries.0.retain(|entry| !entry.fields.is_empty());
        entries.cap();
        Ok(())
    }

    /// The entries from which an update goes on: those of the request where it may name them, else the stored ones.
    fn starting_entries(&self, old: Option<&Value>, new: &mut Value) -> Entries {
        let stored = || old.and_then(Entries::of).unwrap_or_default();
        let meta = new.get_mut("metadata").and_then(Value::as_object_mut);
        let list = meta.and_then(|meta| meta.remove("managedFields")).unwrap_or_default();
        if !self.subresource.is_empty() {
            return stored();
        }
        if list == json!([{}]) || list == json!([]) {
            return Entries::default();
        }
        match Entries::from_json(list) {
            Some(entries) if !entries.0.is_empty() => entries,
            _ => stored(),
        }
    }

    /// The configuration as it can be merged.
    fn checked(&self, config: &Value, live: Option<&Value>) -> Result<Value, Status> {
        if !config["metadata"]["managedFields"].is_null() {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        if self.subresource == "scale" && !self.resource.is_custom() {
            // The name keeps metadata from looking abandoned.
            let name = live.map_or(&config["metadata"]["name"], |live| &live["metadata"]["name"]);
            return Ok(json!({"metadata": {"name": name}, "spec": {"replicas": config["spec"]["replicas"]}}));
        }
        let mut config = config.clone();
        let problems = walk::prepare(self.place(), &mut config);
        if problems.is_empty() {
            return Ok(config);
        }
        let name = config["metadata"]["name"].as_str().unwrap_or_default();
        let namespace = config["metadata"]["namespace"].as_str().unwrap_or_default();
        Err(Status::failure(format!(
            "failed to create typed patch object ({namespace}/{name}; {}/{}, Kind={}): {}",
            self.resource.group,
            self.resource.version,
            self.resource.kind,
            problems.join("\n")
        )))
    }

    /// Whether the conflicts are only about fields that kubectl's client-side apply set before. Moving from client-side
    /// to server-side apply must not conflict with oneself.
    fn was_applied_by_client(&self, live: &Value, conflicts: &[(&Entry, FieldSet)]) -> bool {
        let annotation = live["metadata"]["annotations"][LAST_APPLIED].as_str();
        let Some(mut applied) = annotation.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
            return false;
        };
        if self.name != "kubectl" || !walk::prepare(self.place(), &mut applied).is_empty() {
            return false;
        }
        let mut allowed = walk::fields(self.place(), &applied);
        let since = walk::compare(self.place(), &applied, live);
        allowed.subtract(&since.touched);
        allowed.subtract(&since.removed);
        conflicts.iter().all(|(_, fields)| {
            let mut fields = fields.clone();
            fields.subtract(&allowed);
            fields.is_empty()
        })
    }

    /// Keeps the annotation of client-side apply true for clients that go back to it.
    fn update_last_applied(&self, live: Option<&Value>, config: &Value, merged: &mut Value) {
        let had = live.is_some_and(|live| live["metadata"]["annotations"][LAST_APPLIED].is_string());
        if self.name != "kubectl" || !self.subresource.is_empty() || !had {
            return;
        }
        let mut applied = config.clone();
        // Without the annotation itself, but with a place for it: the form in which kubectl writes it.
        if let Some(meta) = applied["metadata"].as_object_mut() {
            let annotations = meta.entry("annotations").or_insert_with(|| json!({}));
            annotations.as_object_mut().and_then(|a| a.remove(LAST_APPLIED));
        }
        if let Some(annotations) = merged["metadata"]["annotations"].as_object_mut() {
            annotations.insert(LAST_APPLIED.into(), format!("{applied}\n").into());
        }
    }
}

/// Fields of others that change, by their owner.
fn conflicts<'e>(entries: &'e Entries, changes: &Changes) -> Vec<(&'e Entry, FieldSet)> {
    let shared = entries.0.iter().map(|entry| (entry, entry.fields.intersection(&changes.of(entry).touched)));
    shared.filter(|(_, fields)| !fields.is_empty()).collect()
}

fn conflict_status(conflicts: &[(&Entry, FieldSet)]) -> Status {
    let mut by_owner: Vec<(String, Vec<String>)> =
        conflicts.iter().map(|(entry, fields)| (entry.describe(), fields.paths())).collect();
    by_owner.sort();
    let causes: Vec<Cause> = by_owner
        .iter()
        .flat_map(|(owner, paths)| paths.iter().map(move |path| (owner, path)))
        .map(|(owner, path)| Cause {
            reason: "FieldManagerConflict".into(),
            message: format!("conflict with {owner}"),
            field: path.clone(),
        })
        .collect();
    let message = if let [only] = &causes[..] {
        format!("Apply failed with 1 conflict: {}: {}", only.message, only.field)
    } else {
        let owners = by_owner.iter().map(|(owner, paths)| format!("conflicts with {owner}:\n- {}", paths.join("\n- ")));
        format!("Apply failed with {} conflicts: {}", causes.len(), owners.collect::<Vec<_>>().join("\n"))
    };
    Status::apply_conflict(message, causes)
}

fn is_empty_container(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
