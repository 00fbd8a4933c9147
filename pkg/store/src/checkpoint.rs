//! Moves changes from the journal to the rows' file, beside the writer.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::embedded::{Shared, open_database};
use crate::error::StoreError;
use crate::model::Revision;
use crate::table::{self, Rows};
use crate::view::Changes;

/// The rows' file and who writes to it.
pub(crate) struct Checkpointer {
    shared: Arc<Shared>,
    state: State,
}

enum State {
    Ready(redb::Database),
    /// Gives the database back, if it can still be used.
    Writing(JoinHandle<Result<redb::Database, redb::Error>>),
    /// Writing failed. redb then refuses everything until the file is opened again.
    Failed,
}

impl Checkpointer {
    pub fn new(shared: Arc<Shared>, database: redb::Database) -> Self {
        Self { shared, state: State::Ready(database) }
    }

    /// Begins to write all changes up to `revision` to the file; waits for those before to be there.
    ///
    /// After a failure nothing is lost: the changes stay where they are, and the next call tries again.
    pub fn begin(&mut self, revision: Revision) -> Result<(), redb::Error> {
        let database = self.finish()?;
        let changes = {
            let mut view = self.shared.view.write();
            let changes = Arc::new(std::mem::take(&mut view.recent));
            view.leaving = Some((changes.clone(), revision));
            changes
        };
        let shared = self.shared.clone();
        let write = move || {
            let rows = write(&database, &changes, revision)?;
            let mut view = shared.view.write();
            view.rows = Some(Arc::new(rows));
            view.leaving = None;
            Ok(database)
        };
        self.state = State::Writing(std::thread::Builder::new().name("store-checkpoint".into()).spawn(write)?);
        Ok(())
    }

    /// Opens the file again if that failed before, without which nothing can be read.
    pub fn recover(&mut self) -> Result<(), redb::Error> {
        if matches!(self.state, State::Failed) {
            self.state = State::Ready(self.reopen()?);
        }
        Ok(())
    }

    /// Waits for what is being written; opens the file again, and writes again, after a failure.
    pub fn finish(&mut self) -> Result<redb::Database, redb::Error> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Ready(database) => return Ok(database),
            State::Writing(thread) => match thread.join() {
                Ok(Ok(database)) => return Ok(database),
                Ok(Err(error)) => tracing::error!(%error, "writing the datastore's file failed; trying again"),
                Err(_) => tracing::error!("writing the datastore's file panicked; trying again"),
            },
            State::Failed => {}
        }
        self.reopen()
    }

    /// Writes what failed to be written, and what came after it.
    fn reopen(&mut self) -> Result<redb::Database, redb::Error> {
        let shared = &self.shared;
        // The old file is closed when no reader holds its rows.
        shared.view.write().rows = None;
        let database = open_database(&shared.path, shared.cache_bytes).map_err(flatten)?;
        shared.view.write().rows = Some(Arc::new(Rows::open(&database)?));
        let Some((changes, revision)) = shared.view.read().leaving.clone() else { return Ok(database) };
        let rows = write(&database, &changes, revision)?;
        let mut view = shared.view.write();
        view.rows = Some(Arc::new(rows));
        view.leaving = None;
        drop(view);
        Ok(database)
    }
}

/// Commits changes to the file.
pub(crate) fn write(database: &redb::Database, changes: &Changes, revision: Revision) -> Result<Rows, redb::Error> {
    let commit = database.begin_write()?;
    {
        let mut rows = table::open(&commit)?;
        for (key, item) in changes {
            match item {
                Some(item) => table::put(&mut rows, item)?,
                None => {
                    rows.remove(&key[..])?;
                }
            }
        }
        table::write_revision(&mut rows, revision)?;
    }
    commit.commit()?;
    Rows::open(database)
}

fn flatten(error: StoreError) -> redb::Error {
    match error {
        StoreError::Directory { source, .. } => redb::Error::Io(source),
        other => redb::Error::Corrupted(other.to_string()),
    }
}
