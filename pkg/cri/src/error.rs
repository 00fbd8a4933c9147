//! What a call to the runtime can fail with.

use tonic::Code;

/// What a caller can do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The sandbox, container or image does not exist.
    NotFound,
    /// The runtime cannot be reached; worth trying again.
    Unavailable,
    /// The runtime did not answer in time.
    Timeout,
    /// The runtime does not know this call.
    Unimplemented,
    /// The runtime refused or failed, for the reason in the message.
    Failed,
}

/// A failed call to the container runtime.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct CriError {
    pub operation: &'static str,
    pub kind: ErrorKind,
    /// The runtime's own words, as people see them in events.
    pub message: String,
}

impl CriError {
    pub(crate) fn new(operation: &'static str, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { operation, kind, message: message.into() }
    }

    pub(crate) fn timeout(operation: &'static str, seconds: u64) -> Self {
        let message = format!("the container runtime did not answer {operation} within {seconds} s");
        Self::new(operation, ErrorKind::Timeout, message)
    }

    pub(crate) fn status(operation: &'static str, status: &tonic::Status) -> Self {
        let kind = match status.code() {
            Code::NotFound => ErrorKind::NotFound,
            Code::Unavailable => ErrorKind::Unavailable,
            Code::DeadlineExceeded => ErrorKind::Timeout,
            Code::Unimplemented => ErrorKind::Unimplemented,
            _ => ErrorKind::Failed,
        };
        let message = format!("rpc error: code = {:?} desc = {}", status.code(), status.message());
        Self::new(operation, kind, message)
    }

    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}
