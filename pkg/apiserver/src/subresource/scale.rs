//! The scale subresource: replicas of any resource that has them.

use http::StatusCode;
use jiff::Timestamp;
use kube1_api::codec::check_value;
use kube1_api::field::{FieldError, FieldPath};
use kube1_api::name::GroupKind;
use kube1_api::patch::{json_patch, merge_patch};
use kube1_api::selector::LabelSelector;
use kube1_api::status::Status;
use kube1_api::table::jsonpath;
use serde_json::{Value, json};

use super::body;
use crate::admission::Operation;
use crate::call::Call;
use crate::encode::Encoder;
use crate::http::respond::Reply;
use crate::negotiate::Answer;
use crate::options::WriteOptions;
use crate::registry::{self, Change, Endpoint, Patch, PatchKind, strategic_patch};
use crate::strategy;

const API_VERSION: &str = "autoscaling/v1";
const KIND: &str = "Scale";

/// GET, PUT and PATCH of a Scale.
pub async fn route(endpoint: &Endpoint, call: &mut Call) -> Result<Reply, Status> {
    let mut encoder = Encoder::new(&endpoint.row, call, Answer::Object)?;
    encoder.row = body::row(&endpoint.row, API_VERSION, KIND).into();
    let verb = call.info.verb.clone();
    let scale = match verb.as_str() {
        "get" => of(endpoint, &endpoint.shown(&*endpoint.stored()?).await?)?,
        "update" => {
            let options = registry::write_options(call, "UpdateOptions")?;
            let new = body::decode(call, &endpoint.row, API_VERSION, KIND).await?;
            write(endpoint, call, &options, |_| Ok(new.clone())).await?
        }
        _ => {
            let options = registry::write_options(call, "PatchOptions")?;
            let patch = Patch::read(call, endpoint.row.is_custom()).await?;
            registry::check_patch_options(&options, patch.kind)?;
            if patch.kind == PatchKind::Apply {
                apply(endpoint, call, &options, &patch.body).await?
            } else {
                write(endpoint, call, &options, |old| patched(endpoint, old, &patch)).await?
            }
        }
    };
    encoder.object(StatusCode::OK, scale)
}

fn patched(endpoint: &Endpoint, old: &Value, patch: &Patch) -> Result<Value, Status> {
    let row = body::row(&endpoint.row, API_VERSION, KIND);
    let new = match patch.kind {
        PatchKind::Json => json_patch(old, &patch.body)?,
        PatchKind::Merge => merge_patch(old, &patch.body),
        PatchKind::Strategic | PatchKind::Apply => strategic_patch(&row, old, &patch.body)?,
    };
    Ok(check_value(&row, new, Default::default())?.value)
}

/// Changes the parent's replicas to those of the Scale that `make` makes of the current one.
async fn write(
    endpoint: &Endpoint,
    call: &Call,
    options: &WriteOptions,
    make: impl Fn(&Value) -> Result<Value, Status> + Send + Sync,
) -> Result<Value, Status> {
    let old = of(endpoint, &endpoint.shown(&*endpoint.stored()?).await?)?;
    let mut attributes =
        endpoint.attributes(call, Operation::Update, options.to_json("UpdateOptions"), options.dry_run);
    attributes.object = Some(make(&old)?);
    attributes.old = Some(old.clone());
    let admitted = endpoint.mutate(call, &mut attributes).await?;
    attributes.object = Some(admitted.clone());
    endpoint.validate(call, &mut attributes).await?;
    // What admission made of the number holds for the retries too.
    let replicas = check_replicas(endpoint, &admitted)?;
    let change = Change { options, subresource: "scale", demands_version: false, tracked: false, admitted: true };
    let changed = endpoint.change(call, &change, |parent, _| {
        let mut scale = make(&of(endpoint, parent)?)?;
        scale["spec"]["replicas"] = replicas.into();
        merged(endpoint, parent, &scale)
    });
    of(endpoint, &endpoint.value(changed.await?).await?)
}

fn check_replicas(endpoint: &Endpoint, scale: &Value) -> Result<i64, Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    // Custom resources are judged with their parent.
    if replicas >= 0 || endpoint.row.is_custom() {
        return Ok(replicas);
    }
    let path = FieldPath::new("spec").child("replicas");
    let error = FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
    Err(Status::invalid(&GroupKind::new("autoscaling", KIND), &endpoint.name, vec![error]))
}

/// The parent with the replicas, and the preconditions, of a Scale.
fn merged(endpoint: &Endpoint, parent: &Value, scale: &Value) -> Result<Value, Status> {
    for (member, url) in [("name", &endpoint.name), ("namespace", &endpoint.namespace)] {
        let given = scale["metadata"][member].as_str().unwrap_or_default();
        if !given.is_empty() && given != url {
            return Err(Status::bad_request(format!(
                "the {member} of the object ({given}) does not match the {member} on the URL ({url})"
            )));
        }
    }
    let mut new = parent.clone();
    for member in ["resourceVersion", "uid"] {
        if let Some(text) = scale["metadata"][member].as_str().filter(|t| !t.is_empty()) {
            new["metadata"][member] = text.into();
        }
    }
    let path = replicas_path(endpoint);
    let slot = path.iter().fold(&mut new, |value, key| &mut value[key.as_str()]);
    *slot = scale["spec"]["replicas"].clone();
    Ok(new)
}

async fn apply(endpoint: &Endpoint, call: &Call, options: &WriteOptions, config: &Value) -> Result<Value, Status> {
    if endpoint.row.is_custom() {
        let text = |member: &str| config["metadata"][member].as_str().unwrap_or_default();
        return Err(Status::failure(format!(
            "failed to convert new object ({}/{}; {API_VERSION}, Kind={KIND}) to proper version: \
             request to convert CR to an invalid group/version: {API_VERSION}",
            text("namespace"),
            text("name")
        )));
    }
    let force = options.force.unwrap_or(false);
    let change = Change { options, subresource: "scale", demands_version: false, tracked: true, admitted: false };
    let now = strategy::time_text(Timestamp::now());
    let changed = endpoint.change(call, &change, |parent, versions| {
        endpoint.manager(&options.field_manager, "scale", &now, versions).apply(Some(parent), config, force)
    });
    of(endpoint, &endpoint.value(changed.await?).await?)
}

fn replicas_path(endpoint: &Endpoint) -> Vec<String> {
    let path = endpoint.row.scale.as_ref().map_or(".spec.replicas", |s| s.spec_replicas_path.as_str());
    path.trim_start_matches('.').split('.').map(str::to_owned).collect()
}

/// The Scale of a parent.
fn of(endpoint: &Endpoint, parent: &Value) -> Result<Value, Status> {
    let mut metadata = json!({});
    for member in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = parent["metadata"].get(member) {
            metadata[member] = value.clone();
        }
    }
    let wanted = replicas_path(endpoint).iter().fold(parent, |value, key| &value[key.as_str()]).clone();
    let mut status = json!({"replicas": 0});
    match &endpoint.row.scale {
        None => {
            status["replicas"] = parent["status"]["replicas"].as_i64().unwrap_or(0).into();
            status["selector"] = selector_text(&parent["spec"]["selector"])?.into();
        }
        Some(paths) => {
            if wanted.is_null() {
                return Err(Status::internal(format!(
                    "the spec replicas field {:?} does not exist",
                    paths.spec_replicas_path
                )));
            }
            let found = jsonpath::first(&paths.status_replicas_path, parent).and_then(Value::as_i64);
            status["replicas"] = found.unwrap_or(0).into();
            let path = Some(&paths.label_selector_path).filter(|p| !p.is_empty());
            let selector = path.and_then(|p| jsonpath::first(p, parent));
            if let Some(text) = selector.and_then(Value::as_str) {
                status["selector"] = text.into();
            }
        }
    }
    let wanted = wanted.as_i64().unwrap_or(0);
    Ok(
        json!({"kind": KIND, "apiVersion": API_VERSION, "metadata": metadata, "spec": {"replicas": wanted}, "status": status}),
    )
}

/// A selector object, or the plain map of replication controllers, as text.
fn selector_text(selector: &Value) -> Result<String, Status> {
    let structured = selector.get("matchLabels").is_some_and(Value::is_object)
        || selector.get("matchExpressions").is_some_and(Value::is_array);
    let selector = if structured { selector.clone() } else { json!({"matchLabels": selector}) };
    LabelSelector::from_value(&selector).map(|s| s.to_string()).map_err(Status::internal)
}
