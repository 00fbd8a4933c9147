//! How each type is encoded: made from the field table when a type is first met.

use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

use super::encode;
use super::wire::write_part;
use crate::schema::{self, Field, Type};

static PLANS: LazyLock<Box<[OnceLock<Box<Plan>>]>> = LazyLock::new(|| schema::all().map(|_| OnceLock::new()).collect());

/// How a struct is encoded.
#[derive(Debug)]
pub(super) struct Plan {
    /// The type's.
    pub index: usize,
    /// In the order that they have in JSON.
    members: Box<[Member]>,
    /// In the order in which they are written.
    pub fields: Box<[Slot]>,
    pub steps: Steps,
}

#[derive(Debug)]
struct Member {
    name: &'static str,
    head: Head,
    slot: usize,
}

/// A member's field.
#[derive(Debug)]
pub(super) struct Slot {
    pub number: u32,
    pub form: Form,
    pub leaf: Leaf,
    /// How much is written when the member is not there, in bytes.
    pub empty: usize,
}

/// What is written one after the other.
#[derive(Debug)]
pub(super) struct Steps {
    pub list: Box<[Step]>,
    /// What is written when no member is there.
    pub empty: Box<[u8]>,
    /// Whether there are no inline messages.
    pub flat: bool,
}

#[derive(Debug)]
pub(super) struct Step {
    pub number: u32,
    /// The members that it is about; more than one for an inline message.
    pub slots: Range<usize>,
    /// A message whose members are the parent's in JSON.
    pub inline: Option<Steps>,
    /// The part of what is written when no member is there.
    pub empty: Range<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    One,
    Repeated,
    Map,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Leaf {
    Text,
    Bool,
    Int,
    Double,
    Bytes,
    Message(&'static Type),
    /// Nothing that could be written.
    Unknown,
}

/// The plan of a struct.
pub(super) fn of(ty: &'static Type) -> &'static Plan {
    PLANS[ty.index()].get_or_init(|| {
        let (mut members, mut fields) = (Vec::new(), Vec::new());
        let steps = Steps::of(ty, &mut members, &mut fields);
        members.sort_by_key(|member: &Member| ty.placed_field(member.name).map(|(place, _)| place));
        Box::new(Plan { index: ty.index(), members: members.into(), fields: fields.into(), steps })
    })
}

/// The first bytes of a name and its length: for most names that is all of it.
type Head = (usize, u128);

#[inline(always)]
fn head(name: &[u8], after: &[u8]) -> Head {
    let word = match after.first_chunk() {
        // What comes behind the name is cut off.
        Some(chunk) => {
            let bytes = name.len().min(16) as u32;
            u128::from_le_bytes(*chunk) & (u128::MAX.checked_shr(128 - 8 * bytes).unwrap_or(0))
        }
        None => {
            let mut chunk = [0; 16];
            let bytes = name.len().min(16);
            chunk[..bytes].copy_from_slice(&name[..bytes]);
            u128::from_le_bytes(chunk)
        }
    };
    (name.len(), word)
}

impl Plan {
    /// Members that there may be.
    pub fn slots(&self) -> usize {
        self.members.len()
    }

    /// The slot of a member. `text` is what is there from the name on. `after` is where the last one was found: the next
    /// one mostly follows it.
    #[inline]
    pub fn slot(&self, name: &[u8], text: &[u8], after: &mut usize) -> Option<usize> {
        let wanted = head(name, text);
        let found =
            |member: &Member| member.head == wanted && (name.len() <= 16 || member.name.as_bytes()[16..] == name[16..]);
        let (before, rest) = self.members.split_at((*after).min(self.members.len()));
        let index = match rest.iter().position(found) {
            Some(index) => before.len() + index,
            None => before.iter().position(found)?,
        };
        *after = index + 1;
        Some(self.members[index].slot)
    }
}

impl Steps {
    fn of(ty: &'static Type, members: &mut Vec<Member>, fields: &mut Vec<Slot>) -> Self {
        let (mut list, mut empty) = (Vec::new(), Vec::new());
        for field in ty.fields.iter().filter(|f| f.via.is_empty()) {
            let (first, start) = (fields.len(), empty.len());
            let inline = match field.target() {
                Some(inner) if field.inline => {
                    let steps = Self::of(inner, members, fields);
                    write_part(&mut empty, field.number, |out| out.extend_from_slice(&steps.empty));
                    Some(steps)
                }
                None if field.inline => continue,
                _ => {
                    members.push(Member { name: field.name, head: head(field.name.as_bytes(), b""), slot: first });
                    fields.push(Slot::of(field, &mut empty));
                    None
                }
            };
            let slots = first..fields.len();
            list.push(Step { number: field.number, slots, inline, empty: start..empty.len() });
        }
        let flat = list.iter().all(|step| step.inline.is_none());
        Self { list: list.into(), empty: empty.into(), flat }
    }
}

impl Slot {
    /// Appends what is written when the member is not there.
    fn of(field: &Field, empty: &mut Vec<u8>) -> Self {
        let form = match field {
            field if field.repeated => Form::Repeated,
            field if field.is_map() => Form::Map,
            _ => Form::One,
        };
        let start = empty.len();
        let mut slot = Self { number: field.number, form, leaf: Leaf::of(field), empty: 0 };
        if matches!(form, Form::One) && !field.pointer && field.proto != "bytes" {
            encode::empty_member(empty, &slot);
        }
        slot.empty = empty.len() - start;
        slot
    }
}

impl Leaf {
    fn of(field: &Field) -> Self {
        match field.proto {
            "string" => Self::Text,
            "bool" => Self::Bool,
            "int32" | "int64" => Self::Int,
            "double" => Self::Double,
            "bytes" => Self::Bytes,
            _ => field.target().map_or(Self::Unknown, Self::Message),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_member_has_one_slot_and_is_found_in_any_order() {
        for ty in schema::all().filter(|ty| ty.encoding().is_empty()) {
            let plan = of(ty);
            let names: HashSet<_> = plan.members.iter().map(|m| m.name).collect();
            assert_eq!(names.len(), plan.members.len(), "{}: a name comes twice", ty.name);
            let (mut forward, mut backward) = (0, 0);
            // Where much and where little of the text follows.
            let found = |name: &str, after: &mut usize| {
                let slot = plan.slot(name.as_bytes(), name.as_bytes(), &mut after.clone());
                let text = format!("{name}\":{{\"and more\":1}}");
                assert_eq!(plan.slot(name.as_bytes(), text.as_bytes(), after), slot, "{}.{name}", ty.name);
                slot
            };
            for (one, other) in plan.members.iter().zip(plan.members.iter().rev()) {
                assert_eq!(found(one.name, &mut forward), Some(one.slot), "{}.{}", ty.name, one.name);
                assert_eq!(found(other.name, &mut backward), Some(other.slot), "{}.{}", ty.name, other.name);
            }
            assert_eq!(found("nothing", &mut forward), None);
        }
    }
}
