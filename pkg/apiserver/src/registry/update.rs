//! Changing objects: what PUT, PATCH and the server's own changes have in common.

use std::sync::Arc;

use http::StatusCode;
use kube1_api::default::apply_defaults;
use kube1_api::field::{FieldError, FieldPath};
use kube1_api::name::{GroupKind, api_version};
use kube1_api::status::Status;
use kube1_api::validate::validate_update;
use serde_json::{Value, json};

use super::{Conversions, Endpoint, Written, decode, metadata, write_options};
use crate::admission::Operation;
use crate::call::Call;
use crate::encode::Encoder;
use crate::http::respond::Reply;
use crate::negotiate::Answer;
use crate::options::WriteOptions;
use crate::storage::{Object, StorageError};
use crate::strategy;

const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

/// A change of one object.
pub struct Change<'a> {
    pub options: &'a WriteOptions,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// The new object must name the version it replaces where the resource demands it.
    pub demands_version: bool,
    /// `make` has written managedFields itself.
    pub tracked: bool,
    /// Admission has seen the change in another form.
    pub admitted: bool,
}

impl Endpoint {
    /// PUT of the object or of a subresource of the same kind.
    pub async fn update(&self, call: &mut Call, subresource: &str) -> Result<Reply, Status> {
        let encoder = Encoder::new(&self.row, call, Answer::Object)?;
        let options = write_options(call, "UpdateOptions")?;
        let mut object = decode(call, &self.row, options.field_validation).await?;
        self.check_name(&object)?;
        self.check_same_namespace(&mut object)?;
        let exists = self.collection.get(&self.namespace, &self.name).is_some();
        if !exists && self.row.put_creates && subresource.is_empty() {
            self.authorize_create(call).await?;
            match metadata::text(&object, "uid") {
                "" => {}
                uid => return Err(self.other_uid(uid, "")),
            }
            metadata::metadata(&mut object).remove("resourceVersion");
            let created = self.create_object(call, object, &options, false).await?;
            return self.answer(&encoder, StatusCode::CREATED, created).await;
        }
        let change = Change { options: &options, subresource, demands_version: true, tracked: false, admitted: false };
        let updated = self.change(call, &change, |_, _| Ok(object.clone())).await?;
        self.answer(&encoder, StatusCode::OK, updated).await
    }

    /// Creating by PUT or apply takes the permission to create.
    pub async fn authorize_create(&self, call: &Call) -> Result<(), Status> {
        let mut question = call.info.clone();
        question.verb = "create".into();
        crate::http::pipeline::authorize(&*self.server.authorizer, &call.user, &question).await
    }

    /// Takes what `make` makes of the current object through everything an update passes, and stores it.
    ///
    /// `make` is called again when somebody else's change came first; it gets and returns objects of this endpoint's
    /// version. A resourceVersion or uid in what it returns is a precondition.
    pub async fn change(
        &self,
        call: &Call,
        change: &Change<'_>,
        make: impl Fn(&Value, &Conversions) -> Result<Value, Status> + Send + Sync,
    ) -> Result<Written, Status> {
        // Whoever is too slow tries again as long as the request may take; each time somebody else got on.
        loop {
            let stored = self.stored()?;
            let old = self.shown(&stored).await?;
            let new = self.converting(|versions| make(&old, versions)).await?;
            if let Outcome::Done(object) = self.try_change(call, change, &stored, old, new).await? {
                return Ok(object);
            }
        }
    }

    async fn try_change(
        &self,
        call: &Call,
        change: &Change<'_>,
        stored: &Arc<Object>,
        old: Value,
        mut new: Value,
    ) -> Result<Outcome, Status> {
        self.check_preconditions(change, stored, &new)?;
        let meta = metadata::metadata(&mut new);
        meta.insert("resourceVersion".into(), stored.revision().to_string().into());
        if meta.get("managedFields").is_some_and(|fields| *fields == json!([])) {
            // Told apart from fields that are left out even in the normal form.
            meta.insert("managedFields".into(), json!([{}]));
        }
        if call.info.verb == "update" {
            call.warnings.extend(strategy::dedup_owners(&mut new, false));
        }
        apply_defaults(&self.row, &mut new);
        let (row, options, context) = (&self.row, change.options, self.context(call));
        if !change.tracked {
            self.track(Some(&old), &mut new, &options.field_manager, change.subresource).await;
        }
        let mut attributes =
            self.attributes(call, Operation::Update, options.to_json("UpdateOptions"), options.dry_run);
        attributes.subresource = change.subresource.to_owned();
        attributes.object = Some(new);
        attributes.old = Some(old);
        let mut new = if change.admitted {
            attributes.object.take().unwrap_or_default()
        } else {
            self.mutate(call, &mut attributes).await?
        };
        let old = attributes.old.take().unwrap_or_default();
        call.warnings.extend(strategy::dedup_owners(&mut new, true));
        apply_defaults(row, &mut new);
        strategy::prepare_update(row, change.subresource, &mut new, &old, &context);
        let allocation = if change.subresource.is_empty() { self.allocate(&mut new, Some(&old))? } else { None };
        let mut found = self.admin_access(change.subresource, &new, Some(&old));
        found.extend(validate_update(row, &new, &old, change.subresource));
        let (tolerated, errors): (Vec<_>, Vec<_>) = found.into_iter().partition(|error| error.tolerated);
        call.warnings.extend(tolerated.iter().map(ToString::to_string));
        self.check(&self.name, errors)?;
        call.warnings.extend(strategy::warnings(row, &new, Some(&old)));
        attributes.object = Some(new);
        attributes.old = Some(old);
        if !change.admitted {
            self.validate(call, &mut attributes).await?;
        }
        let new = attributes.object.take().unwrap_or_default();
        let old = attributes.old.take().unwrap_or_default();
        let outdated = self.collection.is_outdated(&self.namespace, &self.name) || self.is_of_old_version(stored);
        if !metadata::differs(&new, &old) && !outdated {
            return Ok(Outcome::Done(Written::Stored(stored.clone())));
        }
        if options.dry_run {
            return Ok(Outcome::Done(self.simulated(new).await?));
        }
        let written = self.write(stored, new).await?;
        if let (Some(allocation), Outcome::Done(_)) = (allocation, &written) {
            allocation.commit().await;
        }
        Ok(written)
    }

    /// Whether a custom object is stored in another version than it would be now: writing it again moves it.
    fn is_of_old_version(&self, stored: &Object) -> bool {
        let wanted = api_version(&self.row.storage_group, &self.row.storage_version);
        // The stored form begins with the version.
        self.row.is_custom() && !stored.json().starts_with(format!("{{\"apiVersion\":\"{wanted}\",").as_bytes())
    }

    fn check_preconditions(&self, change: &Change<'_>, stored: &Object, new: &Value) -> Result<(), Status> {
        match metadata::text(new, "resourceVersion") {
            // Clients say "0" for whichever version there is.
            "" | "0" if change.demands_version && !self.row.unconditional_update => {
                let path = FieldPath::new("metadata").child("resourceVersion");
                let error = FieldError::invalid(&path, 0, "must be specified for an update");
                let kind = GroupKind::new(&self.row.group, &self.row.plural);
                return Err(Status::invalid(&kind, &self.name, vec![error]));
            }
            "" | "0" => {}
            given if given == stored.revision().to_string() => {}
            given if given.parse::<u64>().is_err() => {
                return Err(Status::failure(format!("strconv.ParseUint: parsing {given:?}: invalid syntax")));
            }
            _ => return Err(self.conflict(MODIFIED)),
        }
        match metadata::text(new, "uid") {
            // Only PUT makes a precondition of it; in a patch it is a field that cannot be changed.
            _ if !change.demands_version => Ok(()),
            "" => Ok(()),
            uid if uid == stored.uid() => Ok(()),
            uid => Err(self.other_uid(uid, stored.uid())),
        }
    }

    fn other_uid(&self, asked: &str, found: &str) -> Status {
        self.conflict(&format!(
            "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {asked}, UID in object meta: {found}",
            self.key()
        ))
    }

    /// Stores the changed object, or removes it when nothing holds it any more.
    async fn write(&self, stored: &Arc<Object>, new: Value) -> Result<Outcome, Status> {
        let released = strategy::is_released(&self.row, &new).then(|| new.clone());
        let written = if released.is_some() {
            self.collection.delete(&self.namespace, &self.name, stored.revision()).await
        } else {
            self.collection.update(self.to_stored(new).await?, stored.revision()).await
        };
        match written {
            Ok(object) => Ok(Outcome::Done(match released {
                None => Written::Stored(object),
                Some(last) => {
                    self.removed(&self.shown(&object).await?).await;
                    // Who lets go of it sees it without what held it.
                    Written::Simulated(last)
                }
            })),
            Err(StorageError::Conflict { .. }) => Ok(Outcome::Conflict),
            Err(error) => Err(error.to_status(&self.group_resource(), &self.name)),
        }
    }
}

enum Outcome {
    Done(Written),
    Conflict,
}
