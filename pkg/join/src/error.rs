//! Why a node does not join.

use kube1_pki::PkiError;

/// A failure of joining. Those that [`JoinError::is_final`] will not go away by trying again.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("no server can be reached at {servers}: is it running, and is the port open?")]
    Unreachable { servers: String, source: std::io::Error },
    #[error("the server at {server} did not answer the question for its CA as a kube1 server does ({reason})")]
    NotAServer { server: String, reason: String },
    #[error(
        "the server at {server} has another CA (hash {found}) than the join token says ({expected}): the address belongs to \
         another cluster, or somebody sits in between; make a new token on the right server"
    )]
    WrongAuthority { server: String, found: String, expected: String },
    #[error("the join token has expired: make a new one with `kube1 token create` on a server")]
    TokenExpired,
    #[error(
        "the server does not accept the join token: it was deleted, has expired or is misspelt; make a new one with \
         `kube1 token create` on a server"
    )]
    TokenRefused,
    #[error(
        "this node has not joined a cluster yet: start it with --join TOKEN, made by `kube1 token create` on a server"
    )]
    NoToken,
    #[error(
        "this node has already joined another cluster: run `kube1 reset` first if it is to leave that, or start it without \
         --join"
    )]
    OtherCluster,
    #[error("this node joined as {found:?}, not {wanted:?}: keep --node-name, or run `kube1 reset` to join anew")]
    OtherName { found: String, wanted: String },
    #[error(
        "this node's clock is {seconds} s {direction} the server's, too far for certificates to be valid: set the clock \
         (NTP) and try again"
    )]
    ClockSkew { seconds: i64, direction: &'static str },
    #[error("the certificate request {name} was denied: {reason}")]
    Denied { name: String, reason: String },
    #[error("a bootstrap token's id is six lower-case letters or digits, not {0:?}")]
    TokenId(String),
    #[error("there is no token with id {0:?}; `kube1 token list` shows those that exist")]
    NoSuchToken(String),
    #[error("the server refused a request")]
    Api(#[from] kube::Error),
    #[error("keys and certificates cannot be made or kept")]
    Pki(#[from] PkiError),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("this node is being stopped")]
    Stopped,
}

impl JoinError {
    /// Whether trying again cannot help.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NotAServer { .. } => false,
            Self::Api(kube::Error::Api(status)) => status.code < 500 && status.code != 429,
            Self::Api(_) => false,
            _ => true,
        }
    }
}
