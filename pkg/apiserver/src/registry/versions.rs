//! Objects of an endpoint in the other versions of their kind, for those who own fields there.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;
use kube1_api::apply::Versions;
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use serde_json::Value;

use super::{Endpoint, metadata};
use crate::{convert, strategy};

/// Conversions between the versions of a kind.
///
/// Those that a webhook makes take time: they fail at first, and are noted to be made by [`Endpoint::converting`].
pub struct Conversions {
    endpoint: Endpoint,
    rows: OnceLock<Vec<Arc<Resource>>>,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    /// An object, and what became of it in an API version.
    known: Vec<(Value, String, Result<Value, Status>)>,
    wanted: Option<(Value, String)>,
}

impl Conversions {
    fn of(endpoint: &Endpoint) -> Self {
        Self { endpoint: endpoint.clone(), rows: OnceLock::new(), made: Mutex::default() }
    }

    fn rows(&self) -> &[Arc<Resource>] {
        let own = &self.endpoint.row;
        let is_same = |row: &Resource| {
            (&row.storage_group, &row.storage_plural, &row.kind) == (&own.storage_group, &own.storage_plural, &own.kind)
        };
        self.rows.get_or_init(|| self.endpoint.server.table.load().iter().filter(|r| is_same(r)).cloned().collect())
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a webhook's conversion leads to, if it was asked before; else notes the wish.
    fn asked(&self, object: &Value, api_version: &str) -> Result<Value, Status> {
        let mut made = self.made();
        let known = made.known.iter().find(|(from, to, _)| to == api_version && from == object);
        if let Some((.., result)) = known {
            return result.clone();
        }
        made.wanted = Some((object.clone(), api_version.to_owned()));
        Err(Status::internal(format!("the object is not converted to {api_version} yet")))
    }
}

impl Versions for Conversions {
    fn row(&self, api_version: &str) -> Option<&Resource> {
        self.rows().iter().find(|row| row.api_version() == api_version).map(|row| &**row)
    }

    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, Status> {
        let from = object["apiVersion"].as_str().unwrap_or_default();
        let (Some(from), Some(to)) = (self.row(from), self.row(api_version)) else {
            return Err(Status::internal(format!("objects of {from:?} cannot be converted to {api_version:?}")));
        };
        let mut object = if self.endpoint.row.conversion.is_some() {
            self.asked(object, api_version)?
        } else {
            let mut stored = object.clone();
            convert::to_storage(from, &mut stored);
            stored
        };
        convert::from_storage(to, &mut object);
        Ok(object)
    }
}

impl Endpoint {
    /// Records in a new or changed object who wrote which of its fields. Where that cannot be told, nobody has.
    pub(super) async fn track(&self, old: Option<&Value>, new: &mut Value, name: &str, subresource: &str) {
        let now = strategy::time_text(Timestamp::now());
        if self.row.conversion.is_none() {
            let versions = Conversions::of(self);
            return forgive(self.manager(name, subresource, &now, &versions).track_update(old, new));
        }
        let tracked = self.converting(|versions| {
            let mut new = new.clone();
            self.manager(name, subresource, &now, versions).track_update(old, &mut new)?;
            Ok(new)
        });
        match tracked.await {
            Ok(tracked) => *new = tracked,
            Err(status) => {
                metadata::metadata(new).remove("managedFields");
                forgive(Err(status));
            }
        }
    }

    /// Runs `run` again with every conversion that it lacked.
    pub async fn converting<T>(&self, run: impl Fn(&Conversions) -> Result<T, Status>) -> Result<T, Status> {
        let conversions = Conversions::of(self);
        loop {
            let result = run(&conversions);
            let Some((object, wanted)) = conversions.made().wanted.take() else { return result };
            let converted = self.converted(&wanted, vec![object.clone()]).await;
            let converted =
                converted.and_then(|mut all| all.pop().ok_or_else(|| Status::internal("nothing came back")));
            conversions.made().known.push((object, wanted, converted));
        }
    }
}

/// A write does not fail because its fields' owners cannot be told.
fn forgive(tracked: Result<(), Status>) {
    if let Err(status) = tracked {
        tracing::warn!(problem = status.message(), "who owns the fields of an object is forgotten");
    }
}
