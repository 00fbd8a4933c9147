//! Deleting objects: at once, gracefully, or once their finalizers are gone.

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use kube1_api::status::Status;
use serde_json::Value;

use super::{Endpoint, metadata};
use crate::admission::Operation;
use crate::call::Call;
use crate::encode::Encoder;
use crate::http::respond::{Reply, success_status};
use crate::negotiate::{self, Answer, Format};
use crate::options::DeleteOptions;
use crate::storage::{Object, StorageError};
use crate::strategy::{self, DeletePlan};

/// What became of an object.
pub enum Deleted {
    /// It is gone; its last state.
    Removed(Value),
    /// It waits for finalizers, its grace period or a namespace's end.
    Waiting(Value),
}

impl Endpoint {
    /// DELETE of one object.
    pub async fn delete(&self, call: &mut Call) -> Result<Reply, Status> {
        let options = read_options(call).await?;
        let encoder = Encoder::new(&self.row, call, Answer::Object)?;
        match self.delete_object(call, &options).await? {
            Deleted::Waiting(object) => {
                let code = if options.explicit_no_orphans { StatusCode::ACCEPTED } else { StatusCode::OK };
                encoder.object(code, object)
            }
            Deleted::Removed(object) if self.row.delete_returns_object => encoder.object(StatusCode::OK, object),
            Deleted::Removed(object) => {
                let uid = metadata::text(&object, "uid");
                let status = success_status(&self.name, &self.row.group, &self.row.plural, uid);
                encoder.status(StatusCode::OK, &status)
            }
        }
    }

    /// Deletes the endpoint's object as far as it can be at once.
    pub async fn delete_object(&self, call: &Call, options: &DeleteOptions) -> Result<Deleted, Status> {
        self.delete_for(Some(call), options).await
    }

    /// The same for a request that admission has judged already as something else, such as an eviction.
    pub async fn delete_admitted(&self, options: &DeleteOptions) -> Result<Deleted, Status> {
        self.delete_for(None, options).await
    }

    async fn delete_for(&self, judged: Option<&Call>, options: &DeleteOptions) -> Result<Deleted, Status> {
        loop {
            let stored = self.stored()?;
            match self.try_delete(judged, options, &stored).await {
                // Without a condition on the version the client does not care what was changed meanwhile.
                Err(DeleteError::Raced) if options.resource_version.is_none() => {}
                Err(DeleteError::Raced) => return Err(self.conflict("the object has been modified")),
                Err(DeleteError::Status(status)) => return Err(status),
                Ok(deleted) => return Ok(deleted),
            }
        }
    }

    async fn admit_delete(&self, call: &Call, options: &DeleteOptions, old: &Value) -> Result<(), Status> {
        let mut attributes = self.attributes(call, Operation::Delete, options.to_json(), options.dry_run);
        if call.info.verb == "deletecollection" {
            // The request names none.
            attributes.name.clear();
        }
        attributes.old = Some(old.clone());
        self.mutate(call, &mut attributes).await?;
        self.validate(call, &mut attributes).await
    }

    async fn try_delete(
        &self,
        judged: Option<&Call>,
        options: &DeleteOptions,
        stored: &Arc<Object>,
    ) -> Result<Deleted, DeleteError> {
        let old = self.shown(stored).await?;
        strategy::check_preconditions(&self.row, &old, options)?;
        if let Some(call) = judged {
            self.admit_delete(call, options, &old).await?;
        }
        match strategy::delete_plan(&self.row, &old, options, Timestamp::now()) {
            DeletePlan::Pending => Ok(Deleted::Waiting(old)),
            DeletePlan::Mark(marked) if options.dry_run => Ok(Deleted::Waiting(marked)),
            DeletePlan::Remove if options.dry_run => Ok(Deleted::Removed(old)),
            DeletePlan::Mark(marked) => {
                let marked = self.to_stored(marked).await?;
                let updated = self.collection.update(marked, stored.revision()).await;
                let updated = updated.map_err(|e| self.delete_error(&e))?;
                Ok(Deleted::Waiting(self.shown(&updated).await?))
            }
            DeletePlan::Remove => {
                let removed = self.collection.delete(&self.namespace, &self.name, stored.revision()).await;
                let removed = self.shown(&*removed.map_err(|e| self.delete_error(&e))?).await?;
                self.removed(&removed).await;
                Ok(Deleted::Removed(removed))
            }
        }
    }

    fn delete_error(&self, error: &StorageError) -> DeleteError {
        match error {
            StorageError::Conflict { .. } => DeleteError::Raced,
            other => DeleteError::Status(other.to_status(&self.group_resource(), &self.name)),
        }
    }
}

enum DeleteError {
    /// The object was changed since it was read.
    Raced,
    Status(Status),
}

impl From<Status> for DeleteError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Delete options of a request's body, or of its query when there is none.
pub(super) async fn read_options(call: &mut Call) -> Result<DeleteOptions, Status> {
    let bytes = call.read_body().await?;
    let body: Option<Value> = if bytes.is_empty() {
        None
    } else {
        Some(match negotiate::body_format(call.headers(), true)? {
            Format::Json => serde_json::from_slice(&bytes)
                .map_err(|e| Status::bad_request(format!("couldn't decode the delete options: {e}")))?,
            Format::Yaml => kube1_api::codec::parse_yaml(&bytes)?,
            Format::Protobuf => crate::encode::decode_delete_options(&bytes)?,
        })
    };
    if let Some(body) = &body {
        call.trail.request_object(body);
    }
    DeleteOptions::parse(&call.query, body.as_ref())
}
