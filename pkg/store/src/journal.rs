//! The journal: what was committed lately, one record for each commit, before the rows' file has it.
//!
//! Two files of a fixed size take turns. A record starts at a block of its own, so that a torn write harms no older
//! record, and the blocks are used again and again, so that making a record durable needs no change of the file
//! system's own data. What follows the last whole record is cut off when the journal is read.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::model::{Event, KeyValue, Revision};

/// A file's usual size. A record that is longer than it makes its file grow.
const SEGMENT: u64 = 4 << 20;
const BLOCK: usize = 4096;
/// Checksum, length, generation, revision before and after.
const HEAD: usize = 4 + 4 + 8 + 8 + 8;
const MAGIC: u32 = 0x6b31_6a31;

/// What one commit changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub before: Revision,
    pub after: Revision,
    pub changes: Vec<(Bytes, Option<KeyValue>)>,
}

/// The two files; records go to the active one.
pub struct Journal {
    files: [File; 2],
    active: usize,
    /// Where the next record goes.
    offset: u64,
    /// Tells the records of this use of a file from those of an earlier one.
    generation: u64,
    /// What stands at `offset` is of a commit that failed, and must not be read as one.
    failed: bool,
    buffer: Vec<u8>,
}

impl Journal {
    /// Opens the journal beside the rows' file, making it if it is not there, and reads what it holds, oldest first.
    pub fn open(rows: &Path) -> io::Result<(Self, Vec<Record>)> {
        let files = [open_file(&path(rows, 0))?, open_file(&path(rows, 1))?];
        let mut read: Vec<(u64, Vec<Record>)> = Vec::new();
        for file in &files {
            read.extend(read_segment(file)?);
        }
        read.sort_by_key(|(generation, _)| *generation);
        let generation = read.last().map_or(0, |(generation, _)| *generation) + 1;
        let records = read.into_iter().flat_map(|(_, records)| records).collect();
        Ok((Self { files, active: 0, offset: 0, generation, failed: false, buffer: Vec::new() }, records))
    }

    /// Whether the active file has room for a record of these events.
    pub fn has_room(&self, events: &[Event]) -> bool {
        let size: usize = HEAD + events.iter().map(size).sum::<usize>();
        self.offset == 0 || self.offset + size.next_multiple_of(BLOCK) as u64 <= SEGMENT
    }

    /// Goes on in the other file, whose records are lost: the rows' file must have them.
    pub fn turn(&mut self) -> io::Result<()> {
        self.erase_failed()?;
        self.active = 1 - self.active;
        self.offset = 0;
        self.generation += 1;
        Ok(())
    }

    /// A failed commit may have reached the disk whole. Read before what followed it, it would hide that.
    fn erase_failed(&mut self) -> io::Result<()> {
        if self.failed {
            let file = &self.files[self.active];
            file.write_all_at(&[0; BLOCK], self.offset)?;
            file.sync_data()?;
            self.failed = false;
        }
        Ok(())
    }

    /// Makes a commit durable. After a failure the record may be found if the process ends now, and not after the next
    /// record or turn.
    pub fn append(&mut self, before: Revision, after: Revision, events: &[Event]) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.extend_from_slice(&[0; 8]);
        for number in [self.generation, before, after] {
            self.buffer.extend_from_slice(&number.to_le_bytes());
        }
        events.iter().for_each(|event| encode(event, &mut self.buffer));
        let length = self.buffer.len() as u32;
        self.buffer[4..8].copy_from_slice(&length.to_le_bytes());
        let checksum = checksum(&self.buffer[4..]);
        self.buffer[..4].copy_from_slice(&checksum.to_le_bytes());
        self.buffer.resize(self.buffer.len().next_multiple_of(BLOCK), 0);
        self.erase_failed()?;
        let file = &self.files[self.active];
        self.failed = true;
        file.write_all_at(&self.buffer, self.offset)?;
        file.sync_data()?;
        self.failed = false;
        self.offset += self.buffer.len() as u64;
        // One long commit must not cost its memory for ever.
        self.buffer.shrink_to(1 << 18);
        Ok(())
    }
}

fn path(rows: &Path, number: usize) -> PathBuf {
    rows.with_file_name(format!("journal.{number}"))
}

fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.len() < SEGMENT {
        // A file system that cannot reserve space only makes the first round slower.
        if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, SEGMENT).is_err() {
            file.set_len(SEGMENT)?;
        }
        file.sync_all()?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
    }
    Ok(file)
}

/// The whole records at the begin of a file and their generation; `None` when there are none.
fn read_segment(file: &File) -> io::Result<Option<(u64, Vec<Record>)>> {
    let size = file.metadata()?.len();
    let (mut offset, mut generation, mut records) = (0, None, Vec::new());
    while let Some((found, record, length)) = read_record(file, offset, size)? {
        if *generation.get_or_insert(found) != found {
            break;
        }
        records.push(record);
        offset += length.next_multiple_of(BLOCK) as u64;
    }
    Ok(generation.map(|generation| (generation, records)))
}

/// A record, its generation and its length; `None` when there is no whole one.
fn read_record(file: &File, offset: u64, size: u64) -> io::Result<Option<(u64, Record, usize)>> {
    let mut head = [0; HEAD];
    if offset + HEAD as u64 > size {
        return Ok(None);
    }
    file.read_exact_at(&mut head, offset)?;
    let mut reader = Reader(&head);
    let (Some(expected), Some(length)) = (reader.u32(), reader.u32()) else { return Ok(None) };
    if (length as usize) < HEAD || offset + u64::from(length) > size {
        return Ok(None);
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, offset)?;
    if checksum(&bytes[4..]) != expected {
        return Ok(None);
    }
    Ok(decode(&bytes).map(|(generation, record)| (generation, record, bytes.len())))
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(MAGIC);
    hasher.update(bytes);
    hasher.finalize()
}

fn size(event: &Event) -> usize {
    4 + event.key.len() + 1 + event.value.as_ref().map_or(0, |kv| 3 * 8 + 4 + kv.value.len())
}

fn encode(event: &Event, buffer: &mut Vec<u8>) {
    let mut bytes = |bytes: &[u8]| {
        buffer.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        buffer.extend_from_slice(bytes);
    };
    bytes(&event.key);
    let Some(item) = &event.value else { return buffer.push(0) };
    buffer.push(1);
    for number in [item.create_revision, item.mod_revision, item.version] {
        buffer.extend_from_slice(&number.to_le_bytes());
    }
    buffer.extend_from_slice(&(item.value.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&item.value);
}

fn decode(bytes: &[u8]) -> Option<(u64, Record)> {
    let mut reader = Reader(bytes.get(8..)?);
    let generation = reader.u64()?;
    let mut record = Record { before: reader.u64()?, after: reader.u64()?, changes: Vec::new() };
    while !reader.0.is_empty() {
        let key = reader.bytes()?;
        let item = match reader.take(1)? {
            [0] => None,
            _ => Some(KeyValue {
                key: key.clone(),
                create_revision: reader.u64()?,
                mod_revision: reader.u64()?,
                version: reader.u64()?,
                value: reader.bytes()?,
            }),
        };
        record.changes.push((key, item));
    }
    Some((generation, record))
}

/// Takes numbers and byte strings off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = self.u32()?;
        self.take(length as usize).map(Bytes::copy_from_slice)
    }
}

/// What hostile input is tried on: a journal of a damaged disk, and one whose checksum was made to fit.
#[cfg(any(test, fuzzing))]
pub(crate) fn hostile(bytes: &[u8]) {
    let mut whole = bytes.to_vec();
    whole.resize(bytes.len().max(HEAD), 0);
    let length = whole.len() as u32;
    whole[4..8].copy_from_slice(&length.to_le_bytes());
    let fitting = checksum(&whole[4..]);
    whole[..4].copy_from_slice(&fitting.to_le_bytes());
    let name = format!("kube1-journal-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    for content in [bytes, &whole] {
        std::fs::write(&path, content).expect("a temporary file");
        let _ =
            File::open(&path).and_then(|file| read_segment(&file)).map(|read| read.map(|(_, records)| records.len()));
    }
    let _ = std::fs::remove_file(&path);
}

#[cfg(test)]
mod tests;
