//! Managers of an object may each speak another version of its kind: what they own is kept in their version, and a
//! change is looked at in each of them.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::entries::{Entries, Entry};
use super::field_set::{FieldSet, Part};
use super::place::Place;
use super::walk::{self, Difference};
use super::{Manager, scope};
use crate::resource::Resource;
use crate::status::Status;

/// The versions in which a kind is served, beside the one of the request.
pub trait Versions: Sync {
    /// The row of an API version; none where it is not served (any more).
    fn row(&self, api_version: &str) -> Option<&Resource>;

    /// An object in the version of one of these rows; the object says of which version it is.
    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, Status>;
}

/// A kind of one version.
pub struct OneVersion;

impl Versions for OneVersion {
    fn row(&self, _: &str) -> Option<&Resource> {
        None
    }

    fn convert(&self, object: &Value, _: &str) -> Result<Value, Status> {
        Ok(object.clone())
    }
}

/// How an object changed, by API version.
pub(super) struct Changes(Vec<(String, Difference)>);

impl Changes {
    /// In the version of the request.
    pub fn own(&self) -> &Difference {
        &self.0[0].1
    }

    pub fn of(&self, entry: &Entry) -> &Difference {
        self.0.iter().find(|(version, _)| *version == entry.api_version).map_or(self.own(), |(_, changes)| changes)
    }

    pub fn own_is_empty(&self) -> bool {
        self.own().touched.is_empty() && self.own().removed.is_empty()
    }
}

impl<'a> Manager<'a> {
    /// Forgets entries of versions that are gone, and owns lists and maps as a whole that were not so before.
    pub(super) fn reconcile(&self, entries: &mut Entries, live: Option<&Value>) {
        let own = self.resource.api_version();
        entries.0.retain(|entry| entry.api_version == own || self.versions.row(&entry.api_version).is_some());
        if live.is_some() && self.resource.is_custom() {
            for entry in &mut entries.0 {
                if let Some(speaker) = self.speaking(&entry.api_version) {
                    entry.fields.reconcile(speaker.place());
                }
            }
        }
    }

    /// How an object changed in the versions of the request and of all entries. Without `old` it is new.
    pub(super) fn changes(&self, entries: &Entries, old: Option<&Value>, new: &Value) -> Result<Changes, Status> {
        let mut changes = vec![(self.resource.api_version(), self.difference(old, new))];
        for entry in &entries.0 {
            if changes.iter().any(|(version, _)| *version == entry.api_version) {
                continue;
            }
            let Some(speaker) = self.speaking(&entry.api_version) else { continue };
            let old = old.map(|old| self.versions.convert(old, &entry.api_version)).transpose()?;
            let new = self.versions.convert(new, &entry.api_version)?;
            changes.push((entry.api_version.clone(), speaker.difference(old.as_ref(), &new)));
        }
        Ok(Changes(changes))
    }

    /// Removes what this manager applied before and nobody owns now from a merged object.
    pub(super) fn prune(
        &self,
        merged: Value,
        last: &Entry,
        fields: &FieldSet,
        entries: &Entries,
    ) -> Result<Value, Status> {
        let Some(speaker) = self.speaking(&last.api_version) else { return Ok(merged) };
        let own = self.resource.api_version();
        // Also of fields that are not recorded, such as the name: they keep metadata from looking abandoned.
        let owners = |version: &str| -> Vec<Part> {
            let others = entries.0.iter().filter(|entry| entry.api_version == version);
            let mut owners: Vec<_> = others.map(|entry| entry.fields.part()).collect();
            owners.extend((own == version).then(|| fields.part()));
            owners
        };
        let mut pruned = self.converted(&merged, &last.api_version)?.into_owned();
        let before = (speaker.place(), pruned.clone());
        walk::prune(speaker.place(), &mut pruned, last.fields.part(), &owners(&last.api_version));
        let mut versions: Vec<&str> = entries.0.iter().map(|entry| entry.api_version.as_str()).collect();
        versions.push(&own);
        versions.sort_unstable();
        versions.dedup();
        for version in versions.into_iter().filter(|version| *version != last.api_version) {
            let Some(speaker) = self.speaking(version) else { continue };
            let mut whole = self.versions.convert(&before.1, version)?;
            let gone = lacking(speaker.place(), &whole, &self.versions.convert(&pruned, version)?);
            walk::prune(speaker.place(), &mut whole, gone.part(), &owners(version));
            // What conversion alone left out was not applied by this manager.
            let kept = self.versions.convert(&whole, &last.api_version)?;
            let gone = lacking(before.0, &before.1, &kept).intersection(&last.fields);
            pruned = before.1.clone();
            walk::prune(before.0, &mut pruned, gone.part(), &[walk::fields(before.0, &kept).part()]);
        }
        Ok(self.converted(&pruned, &own)?.into_owned())
    }

    /// Fields that differ and that this endpoint can change.
    fn difference(&self, old: Option<&Value>, new: &Value) -> Difference {
        let place = self.place();
        let old = old.map_or_else(|| Cow::Owned(place.zero()), Cow::Borrowed);
        let mut changes = walk::compare(place, &old, new);
        for fields in [&mut changes.touched, &mut changes.removed] {
            scope::restrict(self.resource, self.subresource, fields);
            scope::strip(fields);
        }
        changes
    }

    /// The same manager in another version.
    fn speaking(&self, api_version: &str) -> Option<Manager<'a>> {
        if self.resource.api_version() == api_version {
            return Some(*self);
        }
        Some(Manager { resource: self.versions.row(api_version)?, schema: None, ..*self })
    }

    fn converted<'v>(&self, object: &'v Value, api_version: &str) -> Result<Cow<'v, Value>, Status> {
        if object["apiVersion"] == api_version {
            return Ok(Cow::Borrowed(object));
        }
        self.versions.convert(object, api_version).map(Cow::Owned)
    }
}

/// The fields of `whole` that `part` has not.
fn lacking(place: Place, whole: &Value, part: &Value) -> FieldSet {
    let mut fields = walk::fields(place, whole);
    fields.subtract(&walk::fields(place, part));
    fields
}

impl FieldSet {
    /// Places that now are owned as a whole take the place of what is below them.
    fn reconcile(&mut self, place: Place) {
        reconcile(self.steps_mut(), place);
    }
}

fn reconcile(steps: &mut Map<String, Value>, place: Place) {
    for (step, below) in steps.iter_mut() {
        let (Some(below), Some((kind, name))) = (below.as_object_mut(), step.split_at_checked(2)) else { continue };
        let Some(member) = (if kind == "f:" { place.member(name) } else { Some(place.item()) }) else { continue };
        if member.is_atomic() {
            below.clear();
        } else {
            reconcile(below, member);
        }
    }
}
