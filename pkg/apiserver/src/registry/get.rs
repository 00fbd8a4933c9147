//! Reading one object.

use http::StatusCode;
use kube1_api::status::Status;

use super::Endpoint;
use crate::call::Call;
use crate::encode::Encoder;
use crate::http::respond::Reply;
use crate::negotiate::Answer;
use crate::options::{bad_version, resource_version};

impl Endpoint {
    /// As [`Endpoint::get`] for rows without a conversion webhook, at whatever revision the object is.
    pub fn read(&self, call: &Call) -> Result<Reply, Status> {
        let encoder = Encoder::new(&self.row, call, Answer::Object)?;
        encoder.stored(StatusCode::OK, self.stored()?.line())
    }

    pub async fn get(&self, call: &Call) -> Result<Reply, Status> {
        let encoder = Encoder::new(&self.row, call, Answer::Object)?;
        let version = call.query.get("resourceVersion").unwrap_or_default();
        if let Some(asked) = resource_version(version).map_err(|_| Status::failure(bad_version(version)))? {
            self.server.storage.wait_for(asked).await?;
        }
        let object = self.stored()?;
        if self.row.conversion.is_some() {
            return encoder.object(StatusCode::OK, self.shown(&object).await?);
        }
        encoder.stored(StatusCode::OK, object.line())
    }
}
