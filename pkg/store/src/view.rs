//! What readers see: the rows' file, and over it what is only in the journal so far.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::StoreError;
use crate::history::History;
use crate::model::{Event, KeyValue, Range, Revision};
use crate::table::Rows;

/// Values by key; `None` for keys that were deleted.
pub(crate) type Changes = BTreeMap<Bytes, Option<KeyValue>>;

/// The newest revision and what led to it.
pub(crate) struct View {
    /// `None` after the file could not be written, until it could be opened again.
    pub rows: Option<Arc<Rows>>,
    /// Changes up to a revision that are being written to the file.
    pub leaving: Option<(Arc<Changes>, Revision)>,
    /// Changes after those.
    pub recent: Changes,
    pub history: History,
}

impl View {
    pub fn new(rows: Rows, history: History) -> Self {
        Self { rows: Some(Arc::new(rows)), leaving: None, recent: Changes::new(), history }
    }

    /// Takes over what was committed.
    pub fn apply(&mut self, events: &[Event]) {
        self.recent.extend(events.iter().map(|e| (e.key.clone(), e.value.clone())));
    }

    /// What a key holds, if that is not for the rows to say.
    pub fn changed(&self, key: &Bytes) -> Option<&Option<KeyValue>> {
        self.recent.get(key).or_else(|| self.leaving.as_ref()?.0.get(key))
    }

    /// The rows, and what some of a range's keys hold instead at a revision.
    pub fn at(&self, range: &Range, revision: Option<Revision>) -> Result<(Arc<Rows>, Changes), StoreError> {
        let end = if range.end.is_empty() { Bound::Unbounded } else { Bound::Excluded(&range.end) };
        let bounds = (Bound::Included(&range.start), end);
        let mut instead = Changes::new();
        if range.end.is_empty() || range.start < range.end {
            for changes in
                [self.leaving.as_ref().map(|(changes, _)| &**changes), Some(&self.recent)].into_iter().flatten()
            {
                instead.extend(changes.range::<Bytes, _>(bounds).map(|(k, v)| (k.clone(), v.clone())));
            }
        }
        if let Some(revision) = revision {
            instead.extend(self.history.undo(range, revision)?);
        }
        Ok((self.rows.clone().ok_or(StoreError::Unavailable)?, instead))
    }
}
