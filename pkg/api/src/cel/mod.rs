//! The Common Expression Language as Kubernetes has it: parsed, checked against types, its cost estimated beforehand and
//! measured while it runs. Costs are in cel-go's units, and errors say what cel-go says.

mod ast;
mod call;
mod charge;
mod check;
mod env;
mod estimate;
mod eval;
mod extension;
mod issue;
mod lexer;
mod library;
mod list;
mod macros;
mod map;
mod parser;
mod program;
mod scope;
mod shape;
#[cfg(test)]
mod tests;
mod time;
pub mod typecheck;
mod types;
mod value;

pub use call::Decide;
pub use env::Env;
pub use extension::Extension;
pub use issue::Issues;
pub use library::authorizer::{Answer, Question};
pub use program::{Activation, Composed, Program};
pub use scope::{NAMESPACE, REQUEST};
pub use shape::{REQUEST_MAX, Shape, escape};
pub use types::Type;
pub use value::{Error, Evaluated, Value};

/// What one expression may cost.
pub const CALL_LIMIT: u64 = 1_000_000;
/// What all expressions about one object may cost together, for a policy's binding or for a custom resource.
pub const BUDGET: u64 = 10_000_000;
/// What the match conditions of one webhook or binding may cost.
pub const CONDITIONS_BUDGET: u64 = 2_500_000;
/// The longest message that an expression may make, in bytes.
pub const MESSAGE_MAX: usize = 5 << 10;

/// Stack below which a level of an expression gets more, and how much.
const STACK_LEFT: usize = 128 << 10;
const STACK_MORE: usize = 2 << 20;
