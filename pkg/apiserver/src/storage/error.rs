//! How writing to a collection fails.

use kube1_api::name::GroupResource;
use kube1_api::status::Status;
use kube1_store::StoreError;

/// Why an object was not written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("the object already exists")]
    AlreadyExists,
    #[error("the object does not exist")]
    NotFound,
    /// Somebody else changed the object first; it now has this revision.
    #[error("the object has been modified; please apply your changes to the latest version and try again")]
    Conflict { current: u64 },
    #[error("the object has no metadata.name")]
    Malformed,
    #[error("{0}")]
    Encrypt(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StorageError {
    /// The failure as the API reports it.
    pub fn to_status(&self, resource: &GroupResource, name: &str) -> Status {
        match self {
            Self::AlreadyExists => Status::already_exists(resource, name),
            Self::NotFound => Status::not_found(resource, name),
            Self::Conflict { .. } => Status::conflict(resource, name, self),
            Self::Malformed => Status::bad_request(self.to_string()),
            Self::Encrypt(_) | Self::Store(_) => Status::internal(self),
        }
    }
}
