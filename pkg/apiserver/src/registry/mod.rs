//! The generic registry: one path for every row of the resource table.

mod create;
mod delete;
mod delete_collection;
mod device_access;
mod get;
mod list;
mod metadata;
mod patch;
mod selection;
mod special;
mod update;
mod versions;
mod watch;

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use kube1_api::apply::Manager;
use kube1_api::codec::{Decoded, FieldValidation, decode_json, decode_yaml};
use kube1_api::field::FieldError;
use kube1_api::name::{GroupKind, GroupResource, api_version};
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use serde_json::Value;

pub use patch::{Patch, PatchKind, check_options as check_patch_options, strategic_patch};
pub use update::Change;
pub use versions::Conversions;

use crate::admission::{Attributes, Operation};
use crate::call::Call;
use crate::convert;
use crate::dial::Resolver;
use crate::encode::Encoder;
use crate::http::respond::Reply;
use crate::negotiate::{self, Format};
use crate::options::WriteOptions;
use crate::server::Server;
use crate::storage::{Collection, Object};
use crate::strategy;

/// The outcome of a write.
pub enum Written {
    /// What the store holds now, or held last.
    Stored(Arc<Object>),
    /// What a dry run would have stored.
    Simulated(Value),
}

/// A row of the table as one request addresses it.
#[derive(Clone)]
pub struct Endpoint {
    pub server: Arc<Server>,
    pub row: Arc<Resource>,
    pub collection: Arc<Collection>,
    /// Empty for cluster-scoped resources, and for requests over all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
}

impl Endpoint {
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.row.group, &self.row.plural)
    }

    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(&self.row.group, &self.row.kind)
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(&self.group_resource(), &self.name)
    }

    pub fn conflict(&self, cause: &str) -> Status {
        Status::conflict(&self.group_resource(), &self.name, cause)
    }

    /// 422 when there are errors.
    pub fn check(&self, name: &str, errors: Vec<FieldError>) -> Result<(), Status> {
        if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&self.group_kind(), name, errors)) }
    }

    /// The stored object of this endpoint.
    pub fn stored(&self) -> Result<Arc<Object>, Status> {
        self.collection.get(&self.namespace, &self.name).ok_or_else(|| self.not_found())
    }

    /// A stored object in the form of this endpoint's version.
    pub async fn shown(&self, object: &Object) -> Result<Value, Status> {
        let mut all = self.all_shown(vec![object.value()]).await?;
        all.pop().ok_or_else(|| Status::internal("a conversion lost its object"))
    }

    /// Stored objects in the form of this endpoint's version.
    pub async fn all_shown(&self, values: Vec<Value>) -> Result<Vec<Value>, Status> {
        let api_version = self.row.api_version();
        let mut values = values;
        values.iter_mut().for_each(|value| convert::adapt(&self.row, value));
        let mut values = self.converted(&api_version, values).await?;
        values.iter_mut().for_each(|value| convert::from_storage(&self.row, value));
        Ok(values)
    }

    /// What the conversion webhook makes of objects, if there is one.
    async fn converted(&self, wanted: &str, values: Vec<Value>) -> Result<Vec<Value>, Status> {
        if self.row.conversion.is_none() {
            return Ok(values);
        }
        let resolver = Resolver::new(&self.server.storage, &self.server.table.load());
        let resolver = resolver.ok_or_else(|| Status::internal("services are not served"))?;
        convert::webhook::convert(&resolver, &self.row, wanted, values).await
    }

    /// The answer to a write.
    pub(super) async fn answer(&self, encoder: &Encoder, code: StatusCode, written: Written) -> Result<Reply, Status> {
        match written {
            Written::Stored(object) if self.row.conversion.is_none() => encoder.stored(code, object.line()),
            written => encoder.object(code, self.value(written).await?),
        }
    }

    /// What was written, in the form of this endpoint's version.
    pub async fn value(&self, written: Written) -> Result<Value, Status> {
        match written {
            Written::Stored(object) => self.shown(&object).await,
            Written::Simulated(value) => Ok(value),
        }
    }

    /// An object of this endpoint's version in the form that is stored.
    async fn to_stored(&self, value: Value) -> Result<Value, Status> {
        let wanted = api_version(&self.row.storage_group, &self.row.storage_version);
        let mut all = self.converted(&wanted, vec![value]).await?;
        let mut value = all.pop().ok_or_else(|| Status::internal("a conversion lost its object"))?;
        convert::to_storage(&self.row, &mut value);
        Ok(value)
    }

    /// What a dry run answers: a conversion would have its say on the way to the store and back.
    async fn simulated(&self, value: Value) -> Result<Written, Status> {
        if self.row.conversion.is_none() {
            return Ok(Written::Simulated(value));
        }
        let stored = self.to_stored(value).await?;
        let mut all = self.converted(&self.row.api_version(), vec![stored]).await?;
        all.pop().map(Written::Simulated).ok_or_else(|| Status::internal("a conversion lost its object"))
    }

    /// Circumstances of this write.
    pub fn context<'a>(&self, call: &'a Call) -> strategy::Context<'a> {
        strategy::Context { now: Timestamp::now(), user: &call.user }
    }

    /// What admission plugins are told about a write.
    pub fn attributes(&self, call: &Call, operation: Operation, options: Value, dry_run: bool) -> Attributes {
        let mut attributes =
            Attributes::new(call.user.clone(), self.row.clone(), operation, &self.namespace, &self.name);
        attributes.subresource.clone_from(&call.info.subresource);
        attributes.options = Some(options);
        attributes.dry_run = dry_run;
        attributes.deadline = call.deadline;
        attributes
    }

    /// Somebody who writes through this endpoint.
    pub fn manager<'a>(
        &'a self,
        name: &'a str,
        subresource: &'a str,
        now: &'a str,
        versions: &'a Conversions,
    ) -> Manager<'a> {
        let schema = self.row.custom_schema.as_ref().map(|s| s.schema());
        Manager { resource: &self.row, schema, name, subresource, now, versions }
    }

    /// Runs admission's mutating part on a new or changed object.
    pub async fn mutate(&self, call: &Call, attributes: &mut Attributes) -> Result<Value, Status> {
        let result = self.server.admission.mutate(attributes).await;
        noted(call, attributes);
        result.map(|()| attributes.object.take().unwrap_or_default())
    }

    /// Runs admission's validating part.
    pub async fn validate(&self, call: &Call, attributes: &mut Attributes) -> Result<(), Status> {
        let result = self.server.admission.validate(attributes).await;
        noted(call, attributes);
        result
    }
}

/// What admission makes of an object of a kind that is answered and not stored.
pub async fn admitted(
    server: &Server,
    call: &Call,
    row: &Arc<Resource>,
    object: Value,
    options: &WriteOptions,
) -> Result<Value, Status> {
    let (user, namespace) = (call.user.clone(), &call.info.namespace);
    let name = metadata::text(&object, "name");
    let mut attributes = Attributes::new(user, row.clone(), Operation::Create, namespace, name);
    attributes.options = Some(options.to_json("CreateOptions"));
    attributes.dry_run = options.dry_run;
    attributes.deadline = call.deadline;
    attributes.object = Some(object);
    admit(server, call, attributes).await
}

/// Runs all of admission on the object of a request that stores nothing of its own.
pub async fn admit(server: &Server, call: &Call, mut attributes: Attributes) -> Result<Value, Status> {
    let mut result = server.admission.mutate(&mut attributes).await;
    if result.is_ok() {
        result = server.admission.validate(&mut attributes).await;
    }
    noted(call, &mut attributes);
    result.map(|()| attributes.object.take().unwrap_or_default())
}

/// Reads an object of the endpoint's kind from the request's body.
pub async fn decode(call: &mut Call, row: &Resource, validation: FieldValidation) -> Result<Value, Status> {
    let format = negotiate::body_format(call.headers(), row.has_protobuf())?;
    let body = call.read_body().await?;
    let Decoded { value, warnings } = match format {
        Format::Json => decode_json(row, &body, validation)?,
        Format::Yaml => decode_yaml(row, &body, validation)?,
        Format::Protobuf => Decoded { value: crate::encode::decode_protobuf(row, &body)?, warnings: Vec::new() },
    };
    call.warnings.extend(warnings);
    call.trail.request_object(&value);
    Ok(value)
}

/// Passes on what admission has to say to the client and to the audit.
fn noted(call: &Call, attributes: &mut Attributes) {
    call.warnings.extend(std::mem::take(&mut attributes.warnings));
    call.trail.annotate_all(std::mem::take(&mut attributes.audit_annotations));
}

/// Options of a write; `kind` names them in errors.
pub fn write_options(call: &Call, kind: &str) -> Result<WriteOptions, Status> {
    let agent = match call.user_agent() {
        "" => component(&call.user.name),
        agent => agent,
    };
    WriteOptions::parse(&call.query, agent, kind)
}

/// The component behind a user name, for those that say nothing else of themselves: it owns the fields it writes.
fn component(user: &str) -> &str {
    match user.strip_prefix("system:") {
        Some(name) if name.starts_with("node:") => "kubelet",
        Some(name) => name.rsplit(':').next().unwrap_or_default(),
        None => "unknown",
    }
}
