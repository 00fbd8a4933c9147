//! Lists as sets.

use super::Row;
use crate::cel::call::Call;
use crate::cel::value::{Error, Evaluated};

pub(super) const ROWS: &[Row] = &[
    ("sets.contains", "list_sets_contains_list", "(list(T), list(T)) -> bool", |c| relate(c, |a, b| all(b, a))),
    ("sets.equivalent", "list_sets_equivalent_list", "(list(T), list(T)) -> bool", |c| {
        relate(c, |a, b| all(a, b) && all(b, a))
    }),
    ("sets.intersects", "list_sets_intersects_list", "(list(T), list(T)) -> bool", |c| {
        relate(c, |a, b| a.iter().any(|item| b.contains(&item)))
    }),
];

use crate::cel::list::List;

/// Whether every item of the one is in the other.
fn all(of: &List<'_>, within: &List<'_>) -> bool {
    of.iter().all(|item| within.contains(&item))
}

fn relate<'a>(call: &mut Call<'a, '_>, holds: fn(&List<'a>, &List<'a>) -> bool) -> Evaluated<'a> {
    let (a, b): (List<'a>, List<'a>) = (call.list(0)?, call.list(1)?);
    if a.len().saturating_mul(b.len()) > 100_000_000 {
        // Far beyond what their cost allows.
        return Err(Error::TooCostly);
    }
    Ok(holds(&a, &b).into())
}
