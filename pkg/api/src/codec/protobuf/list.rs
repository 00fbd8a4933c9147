//! Lists, item by item: a list's message begins with its length, so the length of every item must be known before.

use serde_json::Value;

use super::MAGIC;
use super::encode::Encoder;
use super::wire::{write_bytes, write_part, write_varint};
use crate::schema::{self, Type};

/// What a list may remember of its items, in bytes.
const MEMO: usize = 256 << 10;

/// Writes lists of one kind in their envelope, of items in compact JSON.
#[derive(Debug)]
pub struct ListEncoder {
    metadata: &'static Type,
    item: &'static Type,
    encoder: Encoder,
}

impl ListEncoder {
    /// `kind` is the list's, such as `PodList`; `None` when it has no protobuf form.
    pub fn new(api_version: &str, kind: &str) -> Option<Self> {
        let ty = schema::by_kind(api_version, kind)?;
        let part = |name| schema::find(ty.field(name)?.reference);
        Some(Self { metadata: part("metadata")?, item: part("items")?, encoder: Encoder::with_memo(MEMO) })
    }

    /// Appends an item's message; [`Self::item_size`] and [`Self::item`] are of its length.
    pub fn message(&mut self, out: &mut Vec<u8>, json: &[u8]) {
        // What is stored was written by this program.
        let _ = self.encoder.message(out, self.item, json);
    }

    /// Appends a list up to its first item. `items` is the sum of all items' sizes.
    pub fn open(&self, out: &mut Vec<u8>, api_version: &str, kind: &str, metadata: &Value, items: usize) {
        out.extend_from_slice(MAGIC);
        write_part(out, 1, |out| {
            write_bytes(out, 1, api_version.as_bytes());
            write_bytes(out, 2, kind.as_bytes());
        });
        let mut meta = Vec::new();
        write_part(&mut meta, 1, |out| {
            let _ = Encoder::default().message(out, self.metadata, metadata.to_string().as_bytes());
        });
        write_varint(out, 2 << 3 | 2);
        write_varint(out, (meta.len() + items) as u64);
        out.extend_from_slice(&meta);
    }

    /// What an item with a message of this length takes in a list.
    pub fn item_size(message: usize) -> usize {
        let digits = usize::BITS - (message | 1).leading_zeros();
        1 + digits.div_ceil(7) as usize + message
    }

    /// Appends an item.
    pub fn item(&mut self, out: &mut Vec<u8>, json: &[u8]) {
        write_part(out, 2, |out| self.message(out, json));
    }

    /// Appends what follows the last item.
    pub fn close(out: &mut Vec<u8>) {
        write_bytes(out, 3, b"");
        write_bytes(out, 4, b"");
    }
}
