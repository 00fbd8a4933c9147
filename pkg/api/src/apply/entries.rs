//! The entries of metadata.managedFields.

use serde_json::{Map, Value};

use super::field_set::FieldSet;
use super::versions::Changes;

const MAX_UPDATE_ENTRIES: usize = 10;
const ANCIENT: &str = "ancient-changes";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub operation: Operation,
    pub time: String,
    pub manager: String,
    pub api_version: String,
    pub subresource: String,
    pub fields: FieldSet,
}

impl Entry {
    /// Whether both are of the same manager. An applier stays itself when it changes its apiVersion.
    pub fn is(&self, other: &Self) -> bool {
        self.operation == other.operation
            && self.manager == other.manager
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The manager in the words of conflict messages.
    pub fn describe(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn from_json(mut value: Value) -> Option<Self> {
        let fields = match value.get_mut("fieldsV1").map(Value::take) {
            None | Some(Value::Null) => FieldSet::default(),
            Some(fields) => FieldSet::from_json(fields)?,
        };
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let operation = match value["operation"].as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        if value["fieldsType"] != "FieldsV1" || value["apiVersion"].as_str().is_none_or(str::is_empty) {
            return None;
        }
        Some(Self {
            operation,
            time: text("time"),
            manager: text("manager"),
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            fields,
        })
    }

    fn into_json(self) -> Value {
        let mut entry = Map::new();
        let texts = [
            ("apiVersion", self.api_version.as_str()),
            ("fieldsType", "FieldsV1"),
            ("manager", &self.manager),
            ("operation", if self.operation == Operation::Apply { "Apply" } else { "Update" }),
            ("subresource", &self.subresource),
            ("time", &self.time),
        ];
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            entry.insert(key.into(), text.into());
        }
        entry.insert("fieldsV1".into(), self.fields.into_json());
        Value::Object(entry)
    }
}

/// All entries of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entries(pub Vec<Entry>);

impl Entries {
    /// The entries of an object; `None` when they cannot be read.
    pub fn of(object: &Value) -> Option<Self> {
        Self::from_json(object["metadata"]["managedFields"].clone())
    }

    /// The entries of a managedFields list.
    pub fn from_json(list: Value) -> Option<Self> {
        match list {
            Value::Null => Some(Self::default()),
            Value::Array(entries) => entries.into_iter().map(Entry::from_json).collect::<Option<Vec<_>>>().map(Self),
            _ => None,
        }
    }

    /// Replaces the entries that the object holds.
    pub fn store(mut self, object: &mut Value) {
        self.0.retain(|entry| !entry.fields.is_empty());
        self.0.sort_by(|a, b| order(a).cmp(&order(b)));
        let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        if self.0.is_empty() {
            meta.remove("managedFields");
        } else {
            meta.insert("managedFields".into(), self.0.into_iter().map(Entry::into_json).collect());
        }
    }

    /// Takes out the entry of the same manager.
    pub fn take(&mut self, like: &Entry) -> Option<Entry> {
        let place = self.0.iter().position(|entry| entry.is(like))?;
        Some(self.0.swap_remove(place))
    }

    /// What changed belongs no longer to whom it did.
    pub fn take_away(&mut self, changes: &Changes) {
        for entry in &mut self.0 {
            let changes = changes.of(entry);
            entry.fields.subtract(&changes.touched);
            entry.fields.subtract(&changes.removed);
        }
    }

    /// Folds the oldest updaters into one, so that there are not too many.
    pub fn cap(&mut self) {
        let mut updates: Vec<Entry> = Vec::new();
        for entry in std::mem::take(&mut self.0) {
            let to = if entry.operation == Operation::Update { &mut updates } else { &mut self.0 };
            to.push(entry);
        }
        updates.sort_by(|a, b| {
            (a.manager != ANCIENT, &a.time, &a.manager).cmp(&(b.manager != ANCIENT, &b.time, &b.manager))
        });
        while updates.len() > MAX_UPDATE_ENTRIES {
            let oldest = updates.iter().position(|entry| entry.manager != ANCIENT).unwrap_or(0);
            let old = updates.remove(oldest);
            match updates.iter_mut().find(|e| e.manager == ANCIENT && e.api_version == old.api_version) {
                Some(ancient) => {
                    ancient.fields.add(&old.fields);
                    ancient.time = ancient.time.clone().max(old.time);
                }
                None => {
                    updates.insert(0, Entry { manager: ANCIENT.into(), subresource: String::new(), ..old });
                    if updates.iter().all(|entry| entry.manager == ANCIENT) {
                        break;
                    }
                }
            }
        }
        self.0.append(&mut updates);
    }
}

fn order(entry: &Entry) -> (Operation, &str, &str, &str, &str) {
    (entry.operation, &entry.time, &entry.manager, &entry.api_version, &entry.subresource)
}
