//! How each type is encoded: made from the field table when a type is first met.

use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

use super::encode;
use crate::schema::{self, Field, Type};

static PLANS: LazyLock<Box<[OnceLock<Box<Plan>>]>> = LazyLock::new(|| schema::all().map(|_| OnceLock::new()).collect());

/// How a struct is encoded.
#[derive(Debug)]
pub(super) struct Plan {
    /// In the order of the names, which is that of canonical JSON.
    members: Box<[Member]>,
    pub steps: Steps,
}

#[derive(Debug)]
struct Member {
    name: &'static str,
    /// Tells most other names apart without a look at them.
    mark: u32,
    slot: usize,
}

/// What is written one after the other.
#[derive(Debug)]
pub(super) struct Steps {
    pub list: Box<[Step]>,
    /// What is written when no member is there.
    pub empty: Box<[u8]>,
}

#[derive(Debug)]
pub(super) struct Step {
    pub number: u32,
    /// The members that it is about; more than one for an inline message.
    pub slots: Range<usize>,
    pub form: Form,
    pub leaf: Leaf,
    /// The part of what is written when no member is there.
    pub empty: Range<usize>,
}

#[derive(Debug)]
pub(super) enum Form {
    One,
    Repeated,
    Map,
    /// A message whose members are the parent's in JSON.
    Inline(Steps),
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
        let mut members = Vec::new();
        let steps = Steps::of(ty, &mut members);
        members.sort_unstable_by_key(|member: &Member| member.name);
        Box::new(Plan { members: members.into(), steps })
    })
}

fn mark(name: &[u8]) -> u32 {
    let at = |index: usize| u32::from(name.get(index).copied().unwrap_or_default());
    name.len() as u32 | at(0) << 8 | at(name.len().saturating_sub(1)) << 16 | at(name.len() / 2) << 24
}

impl Plan {
    /// Members that there may be.
    pub fn slots(&self) -> usize {
        self.members.len()
    }

    /// The slot of a member. `after` is where the last one was found: the next one mostly follows it.
    pub fn slot(&self, name: &str, after: &mut usize) -> Option<usize> {
        let mark = mark(name.as_bytes());
        let found = |member: &Member| member.mark == mark && member.name == name;
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
    fn of(ty: &'static Type, members: &mut Vec<Member>) -> Self {
        let (mut list, mut empty) = (Vec::new(), Vec::new());
        for field in ty.fields.iter().filter(|f| f.via.is_empty()) {
            let first = members.len();
            let form = match field.target() {
                Some(inner) if field.inline => Form::Inline(Self::of(inner, members)),
                None if field.inline => continue,
                _ => {
                    members.push(Member { name: field.name, mark: mark(field.name.as_bytes()), slot: first });
                    if field.repeated {
                        Form::Repeated
                    } else if field.is_map() {
                        Form::Map
                    } else {
                        Form::One
                    }
                }
            };
            let start = empty.len();
            let mut step =
                Step { number: field.number, slots: first..members.len(), form, leaf: Leaf::of(field), empty: 0..0 };
            let always = match step.form {
                Form::One => !field.pointer && field.proto != "bytes",
                Form::Inline(_) => true,
                Form::Repeated | Form::Map => false,
            };
            if always {
                encode::empty_step(&mut empty, &step);
            }
            step.empty = start..empty.len();
            list.push(step);
        }
        Self { list: list.into(), empty: empty.into() }
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
            for (one, other) in plan.members.iter().zip(plan.members.iter().rev()) {
                assert_eq!(plan.slot(one.name, &mut forward), Some(one.slot), "{}.{}", ty.name, one.name);
                assert_eq!(plan.slot(other.name, &mut backward), Some(other.slot), "{}.{}", ty.name, other.name);
            }
            assert_eq!(plan.slot("nothing", &mut forward), None);
            let opaque = ty.fields.iter().find(|field| field.name == "fieldsV1");
            assert!(
                opaque.and_then(Field::target).is_none_or(|ty| ty.encoding() == "rawjson"),
                "the tape does not look into {}.fieldsV1",
                ty.name
            );
        }
    }
}
