//! Admission webhooks: which of them a request concerns, what they are asked, and what their answers do.

mod config;
mod credentials;
mod matching;
mod review;

pub use config::{ClientConfig, FailurePolicy, Hook, hooks};
pub use credentials::Credentials;
pub use matching::{Rule, Rules, Subject};
#[cfg(any(test, fuzzing))]
pub(crate) use review::hostile;
pub use review::{Answer, Review};
