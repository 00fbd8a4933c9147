//! Joining a cluster: tokens, pinning of the server's CA, certificates by TLS bootstrap, and their renewal.
//!
//! A node that joins knows one string. It fetches the cluster's CA from a server it cannot verify yet, checks it against
//! the hash in that string, and asks for a client certificate with the bootstrap token. From then on it proves who it is by
//! that certificate, which it renews before it expires.

mod bootstrap_token;
mod ca;
mod csr;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod node;
mod rotation;
mod servers;
mod token;

pub use bootstrap_token::{BOOTSTRAPPERS, NewToken, TokenInfo, create_token, delete_token, list_tokens, token_secret};
pub use ca::{fetch_ca, verify_ca};
pub use csr::request_certificate;
pub use error::JoinError;
pub use node::{JoinConfig, JoinedNode, join};
pub use rotation::CertificateRotation;
pub use servers::{Identity, Servers, connect};
pub use token::{JoinToken, TokenParseError};
