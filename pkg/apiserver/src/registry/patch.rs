//! PATCH: JSON patch, merge patch, strategic merge patch, server-side apply.

use http::StatusCode;
use jiff::Timestamp;
use kube1_api::codec::{FieldValidation, check_value, parse_json, parse_yaml, plain_numbers};
use kube1_api::field::{FieldError, FieldPath};
use kube1_api::name::GroupKind;
use kube1_api::patch::{json_patch, merge_patch, shown, strategic_merge_patch, unfit};
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use serde_json::Value;

use super::{Change, Conversions, Endpoint, metadata, write_options};
use crate::call::Call;
use crate::encode::Encoder;
use crate::http::respond::Reply;
use crate::negotiate::{Answer, content_type};
use crate::options::WriteOptions;
use crate::strategy;

/// The formats of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

const TYPES: [(&str, PatchKind); 4] = [
    ("application/json-patch+json", PatchKind::Json),
    ("application/merge-patch+json", PatchKind::Merge),
    ("application/strategic-merge-patch+json", PatchKind::Strategic),
    ("application/apply-patch+yaml", PatchKind::Apply),
];

impl PatchKind {
    /// Reads it off the Content-Type; 415 for what the resource does not take.
    pub fn of(call: &Call, custom: bool) -> Result<Self, Status> {
        let given = content_type(call.headers());
        let taken = TYPES.iter().filter(|(_, kind)| !custom || *kind != PatchKind::Strategic);
        let found = taken.clone().find(|(media, _)| *media == given);
        found
            .map(|(_, kind)| *kind)
            .ok_or_else(|| Status::unsupported_media_type(&taken.map(|(media, _)| *media).collect::<Vec<_>>()))
    }
}

/// A parsed patch.
pub struct Patch {
    pub kind: PatchKind,
    pub body: Value,
    /// A sentence for each member that came twice.
    duplicates: Vec<String>,
}

impl Patch {
    pub async fn read(call: &mut Call, custom: bool) -> Result<Self, Status> {
        let kind = PatchKind::of(call, custom)?;
        let bytes = call.read_body().await?;
        let (body, duplicates) = match kind {
            PatchKind::Apply => (parse_yaml(&bytes)?, Vec::new()),
            _ => parse_json(&bytes).map_err(|status| status.with_prefix("error decoding patch: "))?,
        };
        let mut body = if body.is_null() && kind == PatchKind::Strategic { serde_json::json!({}) } else { body };
        if kind == PatchKind::Merge && !body.is_object() {
            let why = not_decoded(&body, "map[string]interface {}");
            return Err(Status::bad_request(why));
        }
        if kind == PatchKind::Json {
            let operation = body.as_array().into_iter().flatten().find(|operation| !operation.is_object());
            let wrong = if body.is_array() { operation.map(|o| (o, "")) } else { Some((&body, "[]")) };
            if let Some((value, list)) = wrong {
                return Err(Status::bad_request(not_decoded(value, &format!("{list}handlers.jsonPatchOp"))));
            }
        }
        call.trail.request_patch(&body);
        let duplicates = duplicates.into_iter().map(|path| format!("duplicate field \"{path}\"")).collect();
        if matches!(kind, PatchKind::Strategic | PatchKind::Apply) {
            // What is merged value by value may say a whole number as `1.0`; the others are patches of the text.
            plain_numbers(&mut body);
        }
        Ok(Self { kind, body, duplicates })
    }
}

/// A strategic merge patch. What it says of the kind counts for nothing: some clients send the parent's to a subresource.
pub fn strategic_patch(row: &Resource, old: &Value, patch: &Value) -> Result<Value, Status> {
    let mut new = strategic_merge_patch(row.shape(), old, patch)?;
    for member in ["apiVersion", "kind"] {
        if let (Some(object), Some(own)) = (new.as_object_mut(), old.get(member)) {
            object.insert(member.to_owned(), own.clone());
        }
    }
    Ok(new)
}

/// Why a patch of another type than its format's is none.
fn not_decoded(body: &Value, wanted: &str) -> String {
    let found = match body {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::Null => "null",
    };
    format!("error decoding patch: json: cannot unmarshal {found} into Go value of type {wanted}")
}

impl Endpoint {
    /// PATCH of the object or of a subresource of the same kind.
    pub async fn patch(&self, call: &mut Call, subresource: &str) -> Result<Reply, Status> {
        let encoder = Encoder::new(&self.row, call, Answer::Object)?;
        let options = write_options(call, "PatchOptions")?;
        let patch = Patch::read(call, self.row.is_custom()).await?;
        check_options(&options, patch.kind)?;
        if patch.kind == PatchKind::Apply {
            return self.apply(call, &encoder, &options, &patch.body, subresource).await;
        }
        let change = Change { options: &options, subresource, demands_version: false, tracked: false, admitted: false };
        let warnings = call.warnings.clone();
        let patched = self.change(call, &change, |old, _| {
            let new = self.patched(old, &patch)?;
            let checked = self.checked(new, &patch, options.field_validation)?;
            warnings.extend(checked.1);
            Ok(checked.0)
        });
        self.answer(&encoder, StatusCode::OK, patched.await?).await
    }

    fn patched(&self, old: &Value, patch: &Patch) -> Result<Value, Status> {
        match patch.kind {
            PatchKind::Json => Ok(json_patch(old, &patch.body)?),
            PatchKind::Merge => Ok(merge_patch(old, &patch.body)),
            PatchKind::Strategic | PatchKind::Apply => strategic_patch(&self.row, old, &patch.body),
        }
    }

    /// What a patch made must still be an object of the kind, with the same name.
    fn checked(&self, new: Value, patch: &Patch, validation: FieldValidation) -> Result<(Value, Vec<String>), Status> {
        let (duplicates, by_value) = (&patch.duplicates, patch.kind == PatchKind::Strategic);
        let text = if by_value { shown(&patch.body) } else { new.to_string() };
        let refused = |problem: &str| {
            let error = FieldError::invalid(&FieldPath::new("patch"), text.as_str(), problem);
            Status::invalid(&GroupKind::default(), "", vec![error])
        };
        if by_value {
            unfit(self.row.shape(), &new).map_err(|problem| refused(&problem))?;
        }
        let kind = new["kind"].as_str().unwrap_or_default();
        if self.row.is_custom() && !kind.is_empty() && kind != self.row.kind {
            let error = FieldError::invalid(&FieldPath::new("kind"), kind, format!("must be {}", self.row.kind));
            return Err(Status::invalid(&GroupKind::new(&self.row.group, kind), &self.name, vec![error]));
        }
        let prefix = format!("{0} in version \"{1}\" cannot be handled as a {0}: ", self.row.kind, self.row.version);
        let decoded = check_value(&self.row, new, validation)
            .map_err(|status| refused(status.message().strip_prefix(&prefix).unwrap_or(status.message())))?;
        if validation == FieldValidation::Strict && !duplicates.is_empty() {
            return Err(refused(&format!("strict decoding error: {}", duplicates.join(", "))));
        }
        let mut warnings = decoded.warnings;
        if validation == FieldValidation::Warn {
            warnings.extend_from_slice(duplicates);
        }
        let mut value = decoded.value;
        self.check_name(&value)?;
        self.check_same_namespace(&mut value)?;
        Ok((value, warnings))
    }

    async fn apply(
        &self,
        call: &mut Call,
        encoder: &Encoder,
        options: &WriteOptions,
        config: &Value,
        subresource: &str,
    ) -> Result<Reply, Status> {
        let mut config = config.clone();
        // Messages name the namespace only where the configuration does.
        let names_namespace = !metadata::text(&config, "namespace").is_empty();
        self.check_applied(&mut config)?;
        if !names_namespace {
            metadata::metadata(&mut config).remove("namespace");
        }
        let (manager, force) = (options.field_manager.as_str(), options.force.unwrap_or(false));
        let now = strategy::time_text(Timestamp::now());
        let merge = |live: Option<&Value>, versions: &Conversions| {
            let made = self.manager(manager, subresource, &now, versions).apply(live, &config, force)?;
            self.check_restored(&config, &made).map(|()| made)
        };
        if self.collection.get(&self.namespace, &self.name).is_none() && subresource.is_empty() {
            self.authorize_create(call).await?;
            if let Some(uid) = config["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
                return Err(self.conflict(&format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                )));
            }
            let object = self.converting(|versions| merge(None, versions)).await?;
            match self.create_object(call, object, options, true).await {
                // Somebody else was faster: what follows changes theirs.
                Err(status) if status.reason() == "AlreadyExists" => {}
                created => return self.answer(encoder, StatusCode::CREATED, created?).await,
            }
        }
        let change = Change { options, subresource, demands_version: false, tracked: true, admitted: false };
        let applied = self.change(call, &change, |old, versions| {
            let mut new = merge(Some(old), versions)?;
            // What the applier says of these is a precondition.
            for member in ["resourceVersion", "uid"] {
                if let Some(value) = config["metadata"].get(member) {
                    metadata::metadata(&mut new).insert(member.into(), value.clone());
                }
            }
            Ok(new)
        });
        self.answer(encoder, StatusCode::OK, applied.await?).await
    }

    /// What was merged by the schema must still be an object of the kind: texts may be no bytes, times, quantities.
    fn check_restored(&self, config: &Value, made: &Value) -> Result<(), Status> {
        if self.row.is_custom() {
            return Ok(());
        }
        let Err(status) = check_value(&self.row, made.clone(), FieldValidation::Ignore) else { return Ok(()) };
        let kind = format!("{}, Kind={}", gv(&self.row), self.row.kind);
        let (namespace, name) = (metadata::text(config, "namespace"), metadata::text(config, "name"));
        let message = status.message();
        let problem = message.split_once(" cannot be handled as a ").map_or(message, |(_, rest)| rest);
        let problem = problem.split_once(": ").map_or(problem, |(_, rest)| rest);
        Err(Status::failure(format!(
            "failed to convert new object ({namespace}/{name}; {kind}) to proper version: unable to convert unstructured \
             object to {kind}: error decoding from json: {problem}"
        )))
    }

    /// An applied configuration names its kind and, if anything, the object of the path.
    fn check_applied(&self, config: &mut Value) -> Result<(), Status> {
        if !config.is_object() {
            return Err(Status::bad_request("the applied configuration is not an object"));
        }
        let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version != self.row.api_version() || kind != self.row.kind {
            let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
            return Err(Status::bad_request(format!("invalid object type: {group}/{version}, Kind={kind}")));
        }
        if !config["metadata"]["managedFields"].as_array().is_none_or(Vec::is_empty) {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        if metadata::text(config, "name").is_empty() {
            metadata::metadata(config).insert("name".into(), self.name.clone().into());
        }
        self.check_name(config)?;
        self.check_same_namespace(config)
    }
}

/// Group and version as Go shows them: the core group's is `/v1`.
fn gv(row: &Resource) -> String {
    format!("{}/{}", row.group, row.version)
}

/// Options that only apply takes, or that it demands.
pub fn check_options(options: &WriteOptions, kind: PatchKind) -> Result<(), Status> {
    let error = match kind {
        PatchKind::Apply if !options.manager_given => {
            FieldError::required(&FieldPath::new("fieldManager"), "is required for apply patch")
        }
        PatchKind::Apply => return Ok(()),
        _ if options.force.is_some() => {
            FieldError::forbidden(&FieldPath::new("force"), "may not be specified for non-apply patch")
        }
        _ => return Ok(()),
    };
    Err(Status::invalid(&GroupKind::new("meta.k8s.io", "PatchOptions"), "", vec![error]))
}
