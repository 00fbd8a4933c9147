//! JSON as messages, byte for byte as the reference encoder writes them.
//!
//! The text is read once, and what its members mean is written as they come. Fields must be in the order of their
//! numbers, and some are written though nobody set them: a message is put in order once all its members are known.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use smallvec::SmallVec;

use super::leaf;
use super::memo::Memo;
use super::plan::{self, Form, Leaf, Plan, Slot, Steps};
use super::scan::{Quoted, Scanner};
use super::wire::{close_part, open_part, write_bytes, write_double, write_int, write_part};
use crate::schema::{self, Type};

const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
/// Values may be nested this deep, as for the parser that accepted them.
const DEPTH: usize = 128;
/// What is kept from one message to the next, in bytes.
const SCRATCH: usize = 32 << 10;

/// Writes one message after the other.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// What was written for each member of the messages that are being written.
    spans: Vec<Span>,
    scratch: Vec<u8>,
    memo: Option<Memo>,
    depth: usize,
}

/// A part of the message that is being written, from its begin.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Of a member that is not there.
    const NONE: Self = Self { start: u32::MAX, end: u32::MAX };

    fn is_none(self) -> bool {
        self.start == u32::MAX
    }
}

impl Encoder {
    /// For messages that have much in common, which may be remembered in so many bytes.
    pub fn with_memo(room: usize) -> Self {
        Self { memo: Some(Memo::new(room)), ..Self::default() }
    }

    /// Appends the content of a message of the type; `None` for what is not one compact JSON value.
    pub fn message(&mut self, out: &mut Vec<u8>, ty: &'static Type, text: &[u8]) -> Option<()> {
        u32::try_from(text.len()).ok()?;
        self.spans.clear();
        self.depth = 0;
        let mut json = Scanner::new(text);
        self.content(out, ty, &mut json)?;
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH);
        json.is_at_end().then_some(())
    }

    fn content(&mut self, out: &mut Vec<u8>, ty: &'static Type, json: &mut Scanner<'_>) -> Option<()> {
        if !ty.encoding().is_empty() {
            return self.custom(out, ty, json);
        }
        let plan = plan::of(ty);
        if json.peek()? != b'{' {
            // Nothing is said of other values than objects.
            json.skip()?;
            out.extend_from_slice(&plan.steps.empty);
            return Some(());
        }
        if self.depth == DEPTH {
            return None;
        }
        self.depth += 1;
        let (start, frame) = (out.len(), self.spans.len());
        self.spans.resize(frame + plan.slots(), Span::NONE);
        let in_order = self.members(out, plan, frame, json)?;
        if !in_order {
            self.scratch.clear();
            self.scratch.extend_from_slice(&out[start..]);
            out.truncate(start);
            assemble(out, &plan.steps, &self.spans[frame..], &self.scratch);
        }
        self.spans.truncate(frame);
        self.depth -= 1;
        Some(())
    }

    /// Writes the members as they come; whether the message is complete by that.
    fn members(&mut self, out: &mut Vec<u8>, plan: &Plan, frame: usize, json: &mut Scanner<'_>) -> Option<bool> {
        let (start, mut after, mut next, mut said) = (out.len(), 0, 0, 0);
        let mut in_order = plan.steps.flat;
        let mut more = json.enter(b'}')?;
        while more {
            let text = json.rest().get(1..)?;
            let key = json.key()?;
            // The names of fields need no escapes.
            match plan.slot(key.inner, text, &mut after) {
                Some(slot) if json.peek()? != b'n' => {
                    let begin = out.len() - start;
                    self.member(out, plan, slot, json)?;
                    self.spans[frame + slot] = Span { start: begin as u32, end: (out.len() - start) as u32 };
                    in_order &= slot >= next;
                    next = slot + 1;
                    said += plan.fields[slot].empty;
                }
                _ => {
                    json.skip()?;
                }
            }
            more = json.has_more(b'}')?;
        }
        Some(in_order && said == plan.steps.empty.len())
    }

    fn member(&mut self, out: &mut Vec<u8>, plan: &Plan, slot: usize, json: &mut Scanner<'_>) -> Option<()> {
        let field = &plan.fields[slot];
        let nested = matches!(json.peek()?, b'{' | b'[');
        if nested && let Some(memo) = &mut self.memo {
            if let Some(length) = memo.recall(plan, slot, json.rest(), out) {
                json.advance(length);
                return Some(());
            }
            let (from, begin) = (json.at(), out.len());
            self.value(out, field, json)?;
            if let Some(memo) = &mut self.memo {
                memo.note(plan, slot, json.since(from), &out[begin..]);
            }
            return Some(());
        }
        self.value(out, field, json)
    }

    fn value(&mut self, out: &mut Vec<u8>, field: &Slot, json: &mut Scanner<'_>) -> Option<()> {
        match (field.form, json.peek()?) {
            (Form::One, _) => self.single(out, field.leaf, field.number, json),
            (Form::Repeated, b'[') => self.items(json, |encoder, json| {
                encoder.single(out, field.leaf, field.number, json) //
            }),
            (Form::Map, b'{') => self.entries(out, field, json),
            // A value of another shape cannot be said in this field.
            _ => json.skip().map(|_| ()),
        }
    }

    fn items(
        &mut self,
        json: &mut Scanner<'_>,
        mut each: impl FnMut(&mut Self, &mut Scanner<'_>) -> Option<()>,
    ) -> Option<()> {
        let mut more = json.enter(b']')?;
        while more {
            each(self, json)?;
            more = json.has_more(b']')?;
        }
        Some(())
    }

    fn entries(&mut self, out: &mut Vec<u8>, field: &Slot, json: &mut Scanner<'_>) -> Option<()> {
        let start = out.len();
        let mut entries: SmallVec<[(Quoted<'_>, usize); 16]> = SmallVec::new();
        let mut more = json.enter(b'}')?;
        while more {
            let key = json.key()?;
            entries.push((key, out.len() - start));
            let part = open_part(out, field.number);
            write_bytes(out, 1, &key.meaning()?);
            self.single(out, field.leaf, 2, json)?;
            close_part(out, part);
            more = json.has_more(b'}')?;
        }
        // Canonical JSON is in order already.
        if !entries.is_sorted_by(|(one, _), (other, _)| one.meaning() <= other.meaning()) {
            self.scratch.clear();
            self.scratch.extend_from_slice(&out[start..]);
            out.truncate(start);
            let ends = entries.iter().skip(1).map(|entry| entry.1).chain([self.scratch.len()]);
            let mut spans: Vec<_> = entries.iter().zip(ends).map(|(e, end)| (e.0.meaning(), e.1..end)).collect();
            spans.sort_by(|(one, _), (other, _)| one.cmp(other));
            spans.into_iter().for_each(|(_, span)| out.extend_from_slice(&self.scratch[span]));
        }
        Some(())
    }

    /// One element of a field, under the number given.
    fn single(&mut self, out: &mut Vec<u8>, leaf: Leaf, number: u32, json: &mut Scanner<'_>) -> Option<()> {
        match leaf {
            Leaf::Text if json.peek()? == b'"' => {
                let text = json.string()?;
                write_bytes(out, number, &text.meaning()?);
            }
            Leaf::Message(ty) => {
                let part = open_part(out, number);
                self.content(out, ty, json)?;
                close_part(out, part);
            }
            Leaf::Bytes if json.peek()? == b'"' => {
                let text = json.string()?.meaning()?;
                write_bytes(out, number, &STANDARD.decode(&*text).unwrap_or_default());
            }
            Leaf::Text | Leaf::Bytes => {
                json.skip()?;
                write_bytes(out, number, b"");
            }
            Leaf::Bool => write_int(out, number, i64::from(json.skip()? == b"true")),
            Leaf::Int => write_int(out, number, whole(json.skip()?)),
            Leaf::Double => write_double(out, number, parsed(json.skip()?).unwrap_or(0.0)),
            Leaf::Unknown => {
                json.skip()?;
            }
        }
        Some(())
    }

    fn custom(&mut self, out: &mut Vec<u8>, ty: &'static Type, json: &mut Scanner<'_>) -> Option<()> {
        let encoding = ty.encoding();
        let first = json.peek()?;
        match encoding {
            "rawjson" | "rawextension" => {
                let value = json.skip()?;
                if first != b'n' {
                    write_bytes(out, 1, value);
                }
            }
            "list" if first == b'[' => {
                return self.items(json, |encoder, json| encoder.single(out, Leaf::Text, 1, json));
            }
            "schemaOrArray" | "schemaOrBool" | "schemaOrStringArray" => return self.schema_or(out, encoding, json),
            _ => scalar(out, encoding, json)?,
        }
        Some(())
    }

    fn schema_or(&mut self, out: &mut Vec<u8>, encoding: &str, json: &mut Scanner<'_>) -> Option<()> {
        let schema = schema::find(SCHEMA)?;
        let as_bool = encoding == "schemaOrBool";
        let first = json.peek()?;
        if as_bool {
            write_int(out, 1, i64::from(matches!(first, b't' | b'{')));
        }
        match first {
            b'{' => self.single(out, Leaf::Message(schema), if as_bool { 2 } else { 1 }, json),
            b'[' => self.items(json, |encoder, json| {
                let leaf = if json.peek()? == b'"' { Leaf::Text } else { Leaf::Message(schema) };
                encoder.single(out, leaf, 2, json)
            }),
            _ => json.skip().map(|_| ()),
        }
    }
}

/// Types with a message of their own that are no more than a text or a number in JSON.
fn scalar(out: &mut Vec<u8>, encoding: &str, json: &mut Scanner<'_>) -> Option<()> {
    if json.peek()? != b'"' {
        let value = json.skip()?;
        match encoding {
            "quantity" => write_bytes(out, 1, if value == b"null" { b"0" } else { value }),
            "duration" => write_int(out, 1, 0),
            "intorstring" => int_or_string(out, 0, whole(value), b""),
            _ => {}
        }
        return Some(());
    }
    let meaning = json.string()?.meaning()?;
    let text = || std::str::from_utf8(&meaning).unwrap_or_default();
    match encoding {
        "quantity" => write_bytes(out, 1, &meaning),
        "time" | "microtime" => {
            if let Some((seconds, nanos)) = leaf::time_parts(text()) {
                let nanos = if encoding == "time" { 0 } else { nanos / 1000 * 1000 };
                write_int(out, 1, seconds);
                write_int(out, 2, nanos.into());
            }
        }
        "duration" => write_int(out, 1, leaf::duration_nanos(text()).unwrap_or(0)),
        "intorstring" => int_or_string(out, 1, 0, &meaning),
        _ => {}
    }
    Some(())
}

fn int_or_string(out: &mut Vec<u8>, kind: i64, number: i64, text: &[u8]) {
    write_int(out, 1, kind);
    write_int(out, 2, number);
    write_bytes(out, 3, text);
}

/// Writes the parts of a message in their order, and what is there for members that are not.
fn assemble(out: &mut Vec<u8>, steps: &Steps, spans: &[Span], parts: &[u8]) {
    let mut written = 0;
    for step in &steps.list {
        let found = &spans[step.slots.clone()];
        if found.iter().all(|span| span.is_none()) {
            continue;
        }
        out.extend_from_slice(&steps.empty[written..step.empty.start]);
        written = step.empty.end;
        match &step.inline {
            Some(inner) => write_part(out, step.number, |out| assemble(out, inner, spans, parts)),
            None => out.extend_from_slice(&parts[found[0].start as usize..found[0].end as usize]),
        }
    }
    out.extend_from_slice(&steps.empty[written..]);
}

fn parsed<T: std::str::FromStr>(literal: &[u8]) -> Option<T> {
    std::str::from_utf8(literal).ok()?.parse().ok()
}

fn whole(literal: &[u8]) -> i64 {
    match literal {
        [digit @ b'0'..=b'9'] => i64::from(digit - b'0'),
        _ => parsed(literal).unwrap_or(0),
    }
}

/// What is written for a member that is always written and not there.
pub(super) fn empty_member(out: &mut Vec<u8>, field: &Slot) {
    // A null needs neither much depth nor a known length.
    let _ = Encoder::default().single(out, field.leaf, field.number, &mut Scanner::new(b"null"));
}
