//! The rows of the file: key to revisions and value. The row with the empty key holds the newest revision.

use std::path::Path;

use bytes::Bytes;
use redb::{Database, ReadOnlyTable, ReadableDatabase, Table, TableDefinition};

use crate::model::{KeyValue, Range, Revision};
use crate::view::Changes;

const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
const REVISION_KEY: &[u8] = b"";
/// Length of the three numbers before the value.
const HEAD: usize = 24;
/// The revision of a store that was never written to, as etcd's.
pub const FIRST_REVISION: Revision = 1;

type Result<T> = std::result::Result<T, redb::Error>;

/// Makes the table of a new file.
pub fn prepare(database: &Database) -> Result<()> {
    if database.begin_read()?.open_table(ROWS).is_ok() {
        return Ok(());
    }
    let txn = database.begin_write()?;
    write_revision(&mut txn.open_table(ROWS)?, FIRST_REVISION)?;
    Ok(txn.commit()?)
}

pub fn read_revision(database: &Database) -> Result<Revision> {
    let table = database.begin_read()?.open_table(ROWS)?;
    let row = table.get(REVISION_KEY)?;
    Ok(row.map_or(FIRST_REVISION, |row| number(row.value(), 0)))
}

pub fn write_revision(table: &mut Table<'_, &'static [u8], &'static [u8]>, revision: Revision) -> Result<()> {
    table.insert(REVISION_KEY, &revision.to_le_bytes()[..])?;
    Ok(())
}

/// Opens the rows for writing.
pub fn open(txn: &redb::WriteTransaction) -> Result<Table<'_, &'static [u8], &'static [u8]>> {
    Ok(txn.open_table(ROWS)?)
}

pub fn put(table: &mut Table<'_, &'static [u8], &'static [u8]>, item: &KeyValue) -> Result<()> {
    let mut row = table.insert_reserve(&item.key[..], HEAD + item.value.len())?;
    let row = row.as_mut();
    row[..8].copy_from_slice(&item.create_revision.to_le_bytes());
    row[8..16].copy_from_slice(&item.mod_revision.to_le_bytes());
    row[16..HEAD].copy_from_slice(&item.version.to_le_bytes());
    row[HEAD..].copy_from_slice(&item.value);
    Ok(())
}

fn decode(key: Bytes, row: &[u8]) -> KeyValue {
    KeyValue {
        key,
        value: Bytes::copy_from_slice(row.get(HEAD..).unwrap_or_default()),
        create_revision: number(row, 0),
        mod_revision: number(row, 8),
        version: number(row, 16),
    }
}

fn number(row: &[u8], at: usize) -> u64 {
    row.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The rows as they are at one moment.
pub struct Rows(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl Rows {
    pub fn open(database: &Database) -> Result<Self> {
        Ok(Self(database.begin_read()?.open_table(ROWS)?))
    }

    pub fn get(&self, key: &Bytes) -> Result<Option<KeyValue>> {
        Ok(self.0.get(&key[..])?.map(|row| decode(key.clone(), row.value())))
    }

    /// The rows of a range, where keys in `instead` hold what it says; and whether more exist.
    pub fn page(&self, range: &Range, instead: Changes) -> Result<(Vec<KeyValue>, bool)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        // Skips the row of the revision.
        let start = if range.start.is_empty() { Excluded(REVISION_KEY) } else { Included(&range.start[..]) };
        let end = if range.end.is_empty() { Unbounded } else { Excluded(&range.end[..]) };
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let mut items: Vec<KeyValue> = Vec::new();
        let mut instead = instead.into_iter().peekable();
        for row in self.0.range::<&[u8]>((start, end))? {
            let (key, value) = row?;
            let key = key.value();
            while let Some((_, old)) = instead.next_if(|(k, _)| &k[..] < key) {
                items.extend(old);
            }
            match instead.next_if(|(k, _)| k == key) {
                Some((_, old)) => items.extend(old),
                None => items.push(decode(Bytes::copy_from_slice(key), value.value())),
            }
            if items.len() > limit {
                break;
            }
        }
        if items.len() <= limit {
            items.extend(instead.filter_map(|(_, old)| old));
        }
        let more = items.len() > limit;
        items.truncate(limit);
        Ok((items, more))
    }
}

/// Writes all rows of one moment, and the changes that they miss, to a new file of a revision.
pub fn copy(rows: &Rows, changes: &Changes, path: &Path, revision: Revision) -> Result<()> {
    let temporary = path.with_extension("partial");
    let target = Database::create(&temporary)?;
    let txn = target.begin_write()?;
    {
        let mut table = txn.open_table(ROWS)?;
        for row in rows.0.range::<&[u8]>(..)? {
            let (key, value) = row?;
            if !changes.contains_key(key.value()) {
                table.insert(key.value(), value.value())?;
            }
        }
        for item in changes.values().flatten() {
            put(&mut table, item)?;
        }
        write_revision(&mut table, revision)?;
    }
    txn.commit()?;
    drop(target);
    std::fs::set_permissions(&temporary, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    std::fs::rename(&temporary, path)?;
    if let Some(dir) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}
