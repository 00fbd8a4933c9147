//! What objects of one list have in common: pods of one template say long stretches in the same words.

use super::plan::Plan;

/// Values that are remembered for each field.
const WAYS: usize = 4;
/// Values that are worth it, in bytes of JSON.
const SIZES: std::ops::Range<usize> = 48..32 << 10;
/// A field is given up when it was looked up this often and rarely found.
const TRIES: u32 = 64;
/// After so many it is tried again.
const TRIES_OF_AN_AGE: u32 = 4096;

/// The last values of fields, and how they were encoded.
#[derive(Debug)]
pub(super) struct Memo {
    /// What it may hold, in bytes.
    room: usize,
    /// By type, then by slot.
    types: Vec<Option<Box<[Place]>>>,
    held: usize,
}

#[derive(Clone, Debug, Default)]
struct Place {
    known: [Known; WAYS],
    /// The one to be overwritten.
    oldest: usize,
    found: u32,
    missed: u32,
}

#[derive(Clone, Debug, Default)]
struct Known {
    json: Vec<u8>,
    encoded: Vec<u8>,
}

impl Memo {
    pub fn new(room: usize) -> Self {
        Self { room, types: Vec::new(), held: 0 }
    }

    /// If the text begins with a value that the field had before, appends how it was encoded; gives the value's length.
    /// A value that ends with its own bracket is the same as soon as it begins the same.
    pub fn recall(&mut self, plan: &Plan, slot: usize, text: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let place = self.types.get_mut(plan.index)?.as_mut()?.get_mut(slot)?;
        if let Some(known) = place.known.iter().find(|known| !known.json.is_empty() && text.starts_with(&known.json)) {
            place.found += 1;
            out.extend_from_slice(&known.encoded);
            return Some(known.json.len());
        }
        place.missed += 1;
        None
    }

    /// Remembers an array or object.
    pub fn note(&mut self, plan: &Plan, slot: usize, json: &[u8], encoded: &[u8]) {
        if !SIZES.contains(&json.len()) {
            return;
        }
        if self.types.len() <= plan.index {
            self.types.resize(plan.index + 1, None);
        }
        let places = self.types[plan.index].get_or_insert_with(|| vec![Place::default(); plan.slots()].into());
        let Some(place) = places.get_mut(slot) else { return };
        if place.missed + place.found > TRIES_OF_AN_AGE {
            (place.found, place.missed) = (0, 0);
        }
        if place.missed > TRIES && place.found < place.missed / 4 {
            for known in &mut place.known {
                self.held -= known.json.len() + known.encoded.len();
                *known = Known::default();
            }
            return;
        }
        let known = &mut place.known[place.oldest];
        let held = self.held + json.len() + encoded.len() - known.json.len() - known.encoded.len();
        if held > self.room {
            return;
        }
        self.held = held;
        known.json.clear();
        known.json.extend_from_slice(json);
        known.encoded.clear();
        known.encoded.extend_from_slice(encoded);
        place.oldest = (place.oldest + 1) % WAYS;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::plan;
    use super::*;
    use crate::schema;

    #[test]
    fn little_is_held_and_what_is_never_found_is_given_up() {
        let plan = plan::of(schema::by_kind("v1", "Pod").unwrap());
        let mut memo = Memo::new(256 << 10);
        let text = |number: usize| format!("{{\"a\":\"{number}{}\"}}", "x".repeat(9000));
        let mut out = Vec::new();
        memo.note(plan, 0, text(0).as_bytes(), b"same");
        assert_eq!(memo.recall(plan, 0, format!("{},7", text(0)).as_bytes(), &mut out), Some(text(0).len()));
        assert_eq!((out.as_slice(), memo.held), (&b"same"[..], text(0).len() + 4));
        for number in 1..200 {
            assert_eq!(memo.recall(plan, 0, text(number).as_bytes(), &mut out), None);
            memo.note(plan, 0, text(number).as_bytes(), b"other");
            assert!(memo.held <= WAYS * (text(number).len() + 5), "{number}: {}", memo.held);
        }
        assert_eq!(memo.held, 0, "given up");
        for slot in 1..plan.slots() {
            for number in 0..WAYS {
                memo.note(plan, slot, text(number).as_bytes(), &[7; 60_000]);
            }
        }
        assert!(memo.held <= memo.room && memo.held > memo.room / 2, "{}", memo.held);
        memo.note(plan, 1, b"{}", b"short");
        assert_eq!(memo.recall(plan, 1, b"{}", &mut out), None);
    }
}
