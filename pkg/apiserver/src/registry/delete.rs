//! Deleting objects: at once, gracefully, or once their finalizers are gone.

use std::sync::Arc;

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::pending::Operation;
use super::{Endpoint, metadata};
use crate::call::Call;
use crate::convert;
use crate::encode::{self, Encoder};
use crate::http::respond::{Reply, success_status};
use crate::negotiate::{self, Format};
use crate::options::{DeleteOptions, Propagation};
use crate::storage::{Object, StorageError};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const ATTEMPTS: usize = 5;

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
        let encoder = Encoder::new(&self.row, call, false)?;
        match self.delete_object(call, &options).await? {
            Deleted::Waiting(object) => {
                let code = if options.explicit_no_orphans { StatusCode::ACCEPTED } else { StatusCode::OK };
                encoder.object(code, object)
            }
            Deleted::Removed(object) if self.row.delete_returns_object => encoder.object(StatusCode::OK, object),
            Deleted::Removed(object) => {
                let uid = metadata::text(&object, "uid");
                let status = success_status(&self.name, &self.row.group, &self.row.plural, uid);
                encode::reply(call, StatusCode::OK, &status, true)
            }
        }
    }

    /// Deletes the endpoint's object as far as it can be at once.
    pub async fn delete_object(&self, call: &Call, options: &DeleteOptions) -> Result<Deleted, Status> {
        let mut attempt = 0;
        loop {
            let stored = self.stored()?;
            match self.try_delete(call, options, &stored).await {
                // Without a condition on the version the client does not care what was changed meanwhile.
                Err(DeleteError::Raced) if attempt < ATTEMPTS && options.resource_version.is_none() => attempt += 1,
                Err(DeleteError::Raced) => return Err(self.conflict("the object has been modified")),
                Err(DeleteError::Status(status)) => return Err(status),
                Ok(deleted) => return Ok(deleted),
            }
        }
    }

    async fn try_delete(
        &self,
        call: &Call,
        options: &DeleteOptions,
        stored: &Arc<Object>,
    ) -> Result<Deleted, DeleteError> {
        self.check_delete_preconditions(options, stored)?;
        let old = self.shown(stored);
        let mut attributes = self.attributes(call, Operation::Delete, options.to_json(), options.dry_run);
        attributes.old = Some(old.clone());
        self.server.admission.mutate(&mut attributes).await?;
        self.server.admission.validate(&mut attributes).await?;
        call.warnings.extend(std::mem::take(&mut attributes.warnings));
        let Some(new) = self.marked(options, &old) else {
            if options.dry_run {
                return Ok(Deleted::Removed(old));
            }
            let removed = self.collection.delete(&self.namespace, &self.name, stored.revision()).await;
            let removed = removed.map_err(|e| self.delete_error(&e))?;
            return Ok(Deleted::Removed(self.shown(&removed)));
        };
        if options.dry_run || new == old {
            return Ok(Deleted::Waiting(new));
        }
        let mut kept = new;
        convert::to_storage(&self.row, &mut kept);
        let updated = self.collection.update(kept, stored.revision()).await.map_err(|e| self.delete_error(&e))?;
        Ok(Deleted::Waiting(self.shown(&updated)))
    }

    fn delete_error(&self, error: &StorageError) -> DeleteError {
        match error {
            StorageError::Conflict { .. } => DeleteError::Raced,
            other => DeleteError::Status(other.to_status(&self.group_resource(), &self.name)),
        }
    }

    fn check_delete_preconditions(&self, options: &DeleteOptions, stored: &Object) -> Result<(), Status> {
        let fails = |what: &str, asked: &str, found: &str| {
            self.conflict(&format!(
                "Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}"
            ))
        };
        if let Some(uid) = options.uid.as_deref().filter(|u| *u != stored.uid()) {
            return Err(fails("UID", uid, stored.uid()));
        }
        let revision = stored.revision().to_string();
        if let Some(asked) = options.resource_version.as_deref().filter(|r| *r != revision) {
            return Err(fails("ResourceVersion", asked, &revision));
        }
        Ok(())
    }

    /// The object marked as being deleted; `None` when nothing keeps it.
    fn marked(&self, options: &DeleteOptions, old: &Value) -> Option<Value> {
        let mut new = old.clone();
        set_finalizers(&mut new, wanted_propagation(&self.row.group, &self.row.plural, options, old));
        let held = !super::update::is_finished(&self.row.plural, &with_deletion(&new));
        let grace = if self.row.group.is_empty() && self.row.plural == "pods" { pod_grace(options, old) } else { 0 };
        if !held && grace == 0 {
            return None;
        }
        let already = !old["metadata"]["deletionTimestamp"].is_null();
        let before = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        if already && (grace >= before || grace == 0 && before == 0) {
            // A repeated request may only shorten the period.
            return Some(new);
        }
        mark(&mut new, if already { Some(before) } else { None }, grace);
        if self.row.plural == "namespaces" && self.row.group.is_empty() {
            new["status"]["phase"] = "Terminating".into();
        }
        Some(new)
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
    DeleteOptions::parse(&call.query, body.as_ref())
}

fn with_deletion(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"]["deletionTimestamp"] = "now".into();
    object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
    object
}

fn has_finalizer(object: &Value, name: &str) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|f| f.iter().any(|x| x == name))
}

/// What the request, the object's own finalizers or the resource's default say, in this order.
fn wanted_propagation(group: &str, plural: &str, options: &DeleteOptions, old: &Value) -> Option<Propagation> {
    if plural == "events" {
        return None;
    }
    if options.propagation.is_some() {
        return options.propagation;
    }
    if has_finalizer(old, ORPHAN) {
        return Some(Propagation::Orphan);
    }
    if has_finalizer(old, FOREGROUND) {
        return Some(Propagation::Foreground);
    }
    matches!((group, plural), ("", "replicationcontrollers") | ("batch", "jobs")).then_some(Propagation::Orphan)
}

/// Adds the finalizer of the propagation and removes that of the other one.
fn set_finalizers(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let wanted = match propagation {
        Propagation::Orphan => Some(ORPHAN),
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Background => None,
    };
    let mut list = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    list.retain(|f| (f != ORPHAN && f != FOREGROUND) || f.as_str() == wanted);
    if let Some(wanted) = wanted.filter(|w| !list.iter().any(|f| f == w)) {
        list.push(json!(wanted));
    }
    let metadata = metadata::metadata(object);
    if list.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), list.into());
    }
}

/// How long a pod gets to end itself.
fn pod_grace(options: &DeleteOptions, pod: &Value) -> i64 {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    let period = options.grace_period_seconds.or(pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30);
    if period < 0 { 1 } else { period }
}

/// Writes when and how the object is being deleted; `before` is the period of an earlier request.
fn mark(object: &mut Value, before: Option<i64>, grace: i64) {
    let metadata = metadata::metadata(object);
    let now = Timestamp::now();
    let at = match before {
        // The earlier request's end moves forward by what the period became shorter.
        Some(before) => {
            let old = metadata["deletionTimestamp"].as_str().and_then(|t| t.parse::<Timestamp>().ok()).unwrap_or(now);
            old + SignedDuration::from_secs(grace - before)
        }
        None => now + SignedDuration::from_secs(grace),
    };
    metadata.insert("deletionTimestamp".into(), at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|g| *g > 0) {
        metadata.insert("generation".into(), (generation + 1).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propagation_becomes_a_finalizer() {
        let mut object = json!({"metadata": {"finalizers": ["x/y", "orphan"]}});
        set_finalizers(&mut object, Some(Propagation::Foreground));
        assert_eq!(object["metadata"]["finalizers"], json!(["x/y", "foregroundDeletion"]));
        set_finalizers(&mut object, Some(Propagation::Background));
        assert_eq!(object["metadata"]["finalizers"], json!(["x/y"]));
        let options = DeleteOptions::default();
        let job = wanted_propagation("batch", "jobs", &options, &json!({}));
        assert_eq!(job, Some(Propagation::Orphan));
        assert_eq!(wanted_propagation("apps", "deployments", &options, &json!({})), None);
    }

    #[test]
    fn pods_get_time_to_end_once_they_are_bound() {
        let options = |grace| DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() };
        let pod =
            json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}, "status": {"phase": "Running"}});
        assert_eq!(pod_grace(&options(None), &pod), 5);
        assert_eq!(pod_grace(&options(Some(0)), &pod), 0);
        assert_eq!(pod_grace(&options(None), &json!({"spec": {}})), 0);
        assert_eq!(pod_grace(&options(None), &json!({"spec": {"nodeName": "n"}, "status": {"phase": "Failed"}})), 0);
        let mut object = json!({"metadata": {"generation": 2}});
        mark(&mut object, None, 5);
        assert_eq!(
            (&object["metadata"]["generation"], &object["metadata"]["deletionGracePeriodSeconds"]),
            (&json!(3), &json!(5))
        );
    }
}
