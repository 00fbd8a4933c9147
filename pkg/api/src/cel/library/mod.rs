//! The functions that expressions may call. Each is a row: its name, the name of the overload, its signature, and what
//! it does.

pub(super) mod authorizer;
mod convert;
pub(super) use convert::OF_LITERALS;
pub(super) mod format;
mod lists;
mod maths;
pub(super) mod network;
mod operators;
mod optional;
pub(in crate::cel) mod printf;
mod quantity;
pub(super) mod regex;
pub(super) mod semver;
mod sets;
mod strings;
mod times;
pub(super) mod url;

use std::collections::HashMap;
use std::sync::LazyLock;

use super::call::Call;
use super::types::{Type, split_arguments};
use super::value::Evaluated;

pub(super) type Run = for<'a> fn(&mut Call<'a, '_>) -> Evaluated<'a>;
/// Name, overload, signature such as `string.(int) -> string`, and what it does.
pub(super) type Row = (&'static str, &'static str, &'static str, Run);

/// One form of a function.
#[derive(Debug)]
pub(super) struct Overload {
    pub id: &'static str,
    /// Called as `a.f(b)`; `a` is the first of the arguments then.
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
    pub run: Run,
}

pub(super) type Functions = HashMap<&'static str, Vec<Overload>>;

/// All functions by name.
pub(super) static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let tables: [&[Row]; 15] = [
        operators::ROWS,
        convert::ROWS,
        strings::ROWS,
        times::ROWS,
        lists::ROWS,
        maths::ROWS,
        sets::ROWS,
        regex::ROWS,
        url::ROWS,
        network::ROWS,
        quantity::ROWS,
        semver::ROWS,
        format::ROWS,
        authorizer::ROWS,
        optional::ROWS,
    ];
    let mut functions = Functions::new();
    for (name, id, signature, run) in tables.into_iter().flatten().copied() {
        functions.entry(name).or_default().push(overload(id, signature, run));
    }
    for (name, id, signature, run) in operators::comparisons().chain(lists::templated()) {
        // Made once for the process.
        functions.entry(name).or_default().push(overload(id.leak(), &signature, run));
    }
    functions
});

fn overload(id: &'static str, signature: &str, run: Run) -> Overload {
    let (call, result) = signature.split_once(" -> ").expect("every signature has a result");
    let (target, args) = match call.split_once(".(") {
        Some((target, args)) => (Some(target), args),
        None => (None, call.strip_prefix('(').expect("arguments are in brackets")),
    };
    let args = args.strip_suffix(')').expect("arguments are in brackets");
    let member = target.is_some();
    let args = target.into_iter().chain(split_arguments(args)).map(Type::read).collect();
    Overload { id, member, args, result: Type::read(result), run }
}
