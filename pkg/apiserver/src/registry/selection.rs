//! Field selectors on versions that a conversion webhook makes: what they compare is only there once it is converted.

use std::collections::HashMap;

use kube1_api::selector::{FieldSelector, field_text};
use kube1_api::status::Status;
use serde_json::Value;

use super::Endpoint;
use crate::options::{ListOptions, VersionMatch};
use crate::storage::{ListPage, WatchEvent, WatchKind};

/// What of a watch without fields a watcher with fields is told.
pub(super) struct Selection {
    fields: FieldSelector,
    /// Objects that the selector selects, as they were last shown, by namespace and name.
    held: HashMap<(String, String), Value>,
}

impl Endpoint {
    /// Whether the selector can only be told from converted objects.
    pub(super) fn selects_converted(&self, fields: &FieldSelector) -> bool {
        self.row.conversion.is_some() && !self.row.is_storage_version() && !fields.is_by_name()
    }

    /// A page of what the selector selects among converted objects.
    pub(super) async fn converted_page(&self, options: &ListOptions) -> Result<ListPage, Status> {
        let (page, shown) = self.candidates(options).await?;
        let keep: Vec<bool> = shown.iter().map(|object| selects(&options.fields, object)).collect();
        Ok(page.select(&keep, options.limit))
    }

    /// All objects that the rest of the selection selects, stored and shown.
    async fn candidates(&self, options: &ListOptions) -> Result<(ListPage, Vec<Value>), Status> {
        let mut all = ListOptions { fields: options.fields.by_name(), limit: 0, ..options.clone() };
        if options.limit > 0 && all.version_match == VersionMatch::Unset {
            // A page of a list at some version is of exactly that version.
            all.version_match = VersionMatch::Exact;
        }
        let page = self.collection.list(self.scope(), &all).await?;
        let shown = self.all_shown(page.items.iter().map(|item| item.value()).collect()).await?;
        Ok((page, shown))
    }

    /// Takes the fields out of a watch's options; the selection then tells which events they concern.
    pub(super) async fn selection(&self, options: &mut ListOptions) -> Result<Option<Selection>, Status> {
        if !self.selects_converted(&options.fields) {
            return Ok(None);
        }
        let fields = options.fields.clone();
        let mut selection = Selection { fields, held: HashMap::new() };
        let begins_with_all = options.send_initial_events == Some(true);
        if options.resource_version.is_some_and(|version| version > 0) && !begins_with_all {
            let start = ListOptions { version_match: VersionMatch::Exact, ..options.clone() };
            for object in self.candidates(&start).await?.1 {
                if selects(&selection.fields, &object) {
                    selection.held.insert(key(&object), object);
                }
            }
        }
        options.fields = options.fields.by_name();
        Ok(Some(selection))
    }
}

impl Selection {
    /// The event as the watcher sees it, from the object as it is shown now; `None` when it does not concern it.
    pub fn see(&mut self, event: &WatchEvent, shown: Value) -> Option<(WatchKind, Value)> {
        let key = key(&shown);
        if event.kind != WatchKind::Deleted && selects(&self.fields, &shown) {
            let known = self.held.insert(key, shown.clone()).is_some();
            return Some((if known { WatchKind::Modified } else { WatchKind::Added }, shown));
        }
        let mut last = self.held.remove(&key)?;
        if event.kind == WatchKind::Deleted {
            return Some((WatchKind::Deleted, shown));
        }
        // It left the selection: the last state that was in it.
        last["metadata"]["resourceVersion"] = shown["metadata"]["resourceVersion"].clone();
        Some((WatchKind::Deleted, last))
    }
}

fn selects(fields: &FieldSelector, object: &Value) -> bool {
    fields.matches(|field| field_text(object, field))
}

fn key(object: &Value) -> (String, String) {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}
