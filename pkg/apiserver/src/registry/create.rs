//! Creating objects.

use http::StatusCode;
use kube1_api::default::apply_defaults;
use kube1_api::status::Status;
use kube1_api::validate::validate_create;
use serde_json::Value;

use super::{Endpoint, Written, decode, metadata, write_options};
use crate::admission::{Attributes, Operation};
use crate::call::Call;
use crate::encode::Encoder;
use crate::http::respond::Reply;
use crate::negotiate::Answer;
use crate::options::WriteOptions;
use crate::storage::StorageError;
use crate::strategy;

/// Names that are tried for a `generateName`.
const ATTEMPTS: usize = 8;

impl Endpoint {
    /// POST on a collection.
    pub async fn create(&self, call: &mut Call) -> Result<Reply, Status> {
        let encoder = Encoder::new(&self.row, call, Answer::Object)?;
        let options = write_options(call, "CreateOptions")?;
        let object = decode(call, &self.row, options.field_validation).await?;
        let created = self.create_object(call, object, &options, false).await?;
        self.answer(&encoder, StatusCode::CREATED, created).await
    }

    /// Takes an object of this endpoint's version through everything a creation passes, and stores it.
    /// `tracked` objects bring their managedFields.
    pub async fn create_object(
        &self,
        call: &Call,
        object: Value,
        options: &WriteOptions,
        tracked: bool,
    ) -> Result<Written, Status> {
        let mut object = object;
        self.check_namespace(&mut object)?;
        if !metadata::text(&object, "resourceVersion").is_empty() {
            return Err(Status::failure("resourceVersion should not be set on objects to be created"));
        }
        strategy::wipe_system_fields(&mut object);
        call.warnings.extend(strategy::dedup_owners(&mut object, false));
        apply_defaults(&self.row, &mut object);
        if !tracked {
            self.track(None, &mut object, &options.field_manager, "").await;
        }
        if self.row.terminating {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status::forbidden(&self.group_resource(), metadata::text(&object, "name"), why));
        }
        let mut attributes =
            self.attributes(call, Operation::Create, options.to_json("CreateOptions"), options.dry_run);
        attributes.name = metadata::text(&object, "name").to_owned();
        attributes.object = Some(object);
        let mut object = self.mutate(call, &mut attributes).await?;
        call.warnings.extend(strategy::dedup_owners(&mut object, true));
        apply_defaults(&self.row, &mut object);
        let generate = match metadata::text(&object, "name") {
            "" => metadata::text(&object, "generateName").to_owned(),
            _ => String::new(),
        };
        if generate.is_empty() {
            return self.try_create(call, &mut attributes, object, options).await;
        }
        // Admission has changed the object once, as upstream's does, whichever name it gets.
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let name = strategy::generate_name(&generate);
            let mut named = object.clone();
            name.clone_into(&mut attributes.name);
            metadata::metadata(&mut named).insert("name".into(), name.as_str().into());
            match self.try_create(call, &mut attributes, named, options).await {
                Err(status) if status.reason() == "AlreadyExists" => last = name,
                done => return done,
            }
        }
        Err(Status::generate_name_conflict(&self.group_resource(), &last, 1))
    }

    async fn try_create(
        &self,
        call: &Call,
        attributes: &mut Attributes,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let context = self.context(call);
        strategy::fill_system_fields(&mut object, context.now);
        strategy::prepare_create(&self.row, &mut object, &context);
        if (self.row.group.as_str(), self.row.plural.as_str()) == ("", "pods") {
            call.warnings.extend(strategy::carry_app_armor(&mut object));
        }
        let allocation = self.allocate(&mut object, None)?;
        let name = metadata::text(&object, "name").to_owned();
        let mut errors = self.admin_access("", &object, None);
        errors.extend(validate_create(&self.row, &object));
        self.check(&name, errors)?;
        call.warnings.extend(strategy::warnings(&self.row, &object, None));
        attributes.object = Some(object);
        self.validate(call, attributes).await?;
        let object = attributes.object.take().unwrap_or_default();
        if options.dry_run {
            if self.collection.get(metadata::text(&object, "namespace"), &name).is_some() {
                return Err(StorageError::AlreadyExists.to_status(&self.group_resource(), &name));
            }
            return self.simulated(object).await;
        }
        match self.collection.create(self.to_stored(object).await?).await {
            Ok(created) => {
                if let Some(allocation) = allocation {
                    allocation.commit().await;
                }
                Ok(Written::Stored(created))
            }
            Err(error) => Err(self.create_failure(&error, &name)),
        }
    }

    /// Tells when the name is held by an object on its way out.
    fn create_failure(&self, error: &StorageError, name: &str) -> Status {
        let status = error.to_status(&self.group_resource(), name);
        let namespace = if self.row.namespaced { self.namespace.as_str() } else { "" };
        let dying = self.collection.get(namespace, name).is_some_and(|o| o.is_deleting());
        if matches!(error, StorageError::AlreadyExists) && dying {
            return status.with_prefix("object is being deleted: ");
        }
        status
    }
}
