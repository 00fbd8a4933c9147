//! Options of requests: from the query, and for deletes also from the body.

use kube1_api::codec::FieldValidation;
use kube1_api::field::{FieldError, FieldPath};
use kube1_api::name::GroupKind;
use kube1_api::selector::{FieldSelector, LabelSelector};
use kube1_api::status::Status;
use serde_json::{Value, json};

use crate::query::Query;

const META: &str = "meta.k8s.io";

/// What of a collection's history a reader wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VersionMatch {
    #[default]
    Unset,
    Exact,
    NotOlderThan,
}

/// Options of list, watch and deletecollection.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    pub limit: u64,
    pub continue_token: String,
    /// `None` when unset; `Some(0)` means any version.
    pub resource_version: Option<u64>,
    pub version_match: VersionMatch,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    pub fn parse(query: &Query, watch: bool) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let match_text = query.get("resourceVersionMatch").unwrap_or_default();
        let version_text = query.get("resourceVersion").unwrap_or_default();
        // What is wrong with the options is told before what is wrong with this one alone.
        let version = resource_version(version_text);
        let options = Self {
            labels: LabelSelector::parse(query.get("labelSelector").unwrap_or_default())
                .map_err(|e| Status::bad_request(e.to_string()))?,
            fields: FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())
                .map_err(|e| Status::bad_request(e.to_string()))?,
            limit: number(query, "limit")?.unwrap_or(0),
            continue_token: query.get("continue").unwrap_or_default().into(),
            resource_version: version.as_ref().map_or(Some(u64::MAX), |version| *version),
            version_match: match match_text {
                "Exact" => VersionMatch::Exact,
                "NotOlderThan" => VersionMatch::NotOlderThan,
                _ => VersionMatch::Unset,
            },
            timeout_seconds: number(query, "timeoutSeconds")?,
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.maybe_flag("sendInitialEvents"),
        };
        if !matches!(match_text, "" | "Exact" | "NotOlderThan") {
            let path = FieldPath::new("resourceVersionMatch");
            errors.push(FieldError::not_supported(&path, match_text, &["Exact", "NotOlderThan", ""]));
        }
        if watch {
            options.check_watch(&mut errors)
        } else {
            options.check_list(match_text, &mut errors)
        }
        if errors.is_empty() {
            version.map(|_| options)
        } else {
            Err(Status::invalid(&GroupKind::new(META, "ListOptions"), "", errors))
        }
    }

    fn check_list(&self, match_text: &str, errors: &mut Vec<FieldError>) {
        let mut forbid = |field: &str, why: &str| errors.push(FieldError::forbidden(&FieldPath::new(field), why));
        if !match_text.is_empty() {
            if self.resource_version.is_none() {
                forbid("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !self.continue_token.is_empty() {
                forbid("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided");
            }
            if self.version_match == VersionMatch::Exact && self.resource_version == Some(0) {
                forbid("resourceVersionMatch", "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
        }
        if self.send_initial_events.is_some() {
            forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
    }

    fn check_watch(&self, errors: &mut Vec<FieldError>) {
        let mut forbid = |field: &str, why: &str| errors.push(FieldError::forbidden(&FieldPath::new(field), why));
        if !self.continue_token.is_empty() {
            forbid("continue", "continue is forbidden for watch");
        }
        match (self.send_initial_events, self.version_match) {
            (None, VersionMatch::Unset) | (Some(_), VersionMatch::NotOlderThan) => {}
            (None, _) => forbid(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
            (Some(_), _) => forbid(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
        }
    }
}

/// Options of create, update and patch.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    /// The manager was named by the request rather than derived from its user agent.
    pub manager_given: bool,
    pub field_validation: FieldValidation,
    /// Apply takes fields from other managers.
    pub force: Option<bool>,
}

impl WriteOptions {
    pub fn parse(query: &Query, user_agent: &str, kind: &str) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let field_validation = match query.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let path = FieldPath::new("fieldValidation");
                errors.push(FieldError::not_supported(&path, other, &["", "Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        let manager = query.get("fieldManager").unwrap_or_default();
        if manager.len() > 128 {
            errors.push(FieldError::too_long(&FieldPath::new("fieldManager"), 128));
        }
        for (at, c) in manager.char_indices().filter(|(_, c)| !is_printable(*c)) {
            let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
            errors.push(FieldError::invalid(&FieldPath::new("fieldManager"), manager, why));
        }
        if !errors.is_empty() {
            return Err(Status::invalid(&GroupKind::new(META, kind), "", errors));
        }
        let agent = user_agent.split('/').next().unwrap_or_default();
        let short: String = agent.chars().filter(|c| is_printable(*c)).take(128).collect();
        Ok(Self {
            dry_run,
            manager_given: !manager.is_empty(),
            field_manager: if manager.is_empty() { short } else { manager.into() },
            field_validation,
            force: query.maybe_flag("force"),
        })
    }

    /// The options as the API object that admission sees.
    pub fn to_json(&self, kind: &str) -> Value {
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        if self.manager_given {
            options["fieldManager"] = self.field_manager.clone().into();
        }
        let validation = match self.field_validation {
            FieldValidation::Ignore => "Ignore",
            FieldValidation::Warn => "Warn",
            FieldValidation::Strict => "Strict",
        };
        options["fieldValidation"] = validation.into();
        if let Some(force) = self.force.filter(|_| kind == "PatchOptions") {
            options["force"] = force.into();
        }
        options
    }
}

/// What happens to an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub dry_run: bool,
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    /// `orphanDependents=false` was given in its old form.
    pub explicit_no_orphans: bool,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads the body if there is one, the query otherwise.
    pub fn parse(query: &Query, body: Option<&Value>) -> Result<Self, Status> {
        let from_query;
        let given = match body {
            Some(body) if !body.is_null() => {
                check_delete_body(body)?;
                body
            }
            _ => {
                from_query = query_delete_options(query)?;
                &from_query
            }
        };
        let mut errors = Vec::new();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let orphans = given["orphanDependents"].as_bool();
        let mut propagation = match given["propagationPolicy"].as_str() {
            None => None,
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let path = FieldPath::new("propagationPolicy");
                errors.push(FieldError::not_supported(&path, other, &["Foreground", "Background", "Orphan", "nil"]));
                None
            }
        };
        if orphans.is_some() && !given["propagationPolicy"].is_null() {
            let path = FieldPath::new("propagationPolicy");
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(&path, given["propagationPolicy"].clone(), why));
        } else if let Some(orphans) = orphans {
            propagation = Some(if orphans { Propagation::Orphan } else { Propagation::Background });
        }
        let dry_runs = given["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let dry_run = dry_run(dry_runs, &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid(&GroupKind::new(META, "DeleteOptions"), "", errors));
        }
        Ok(Self {
            dry_run,
            grace_period_seconds: given["gracePeriodSeconds"].as_i64().map(|s| if s < 0 { 1 } else { s }),
            propagation,
            explicit_no_orphans: orphans == Some(false),
            uid: text(&given["preconditions"]["uid"]),
            resource_version: text(&given["preconditions"]["resourceVersion"]),
        })
    }

    pub fn to_json(&self) -> Value {
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        if let Some(seconds) = self.grace_period_seconds {
            options["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(propagation) = self.propagation {
            options["propagationPolicy"] = format!("{propagation:?}").into();
        }
        for (key, value) in [("uid", &self.uid), ("resourceVersion", &self.resource_version)] {
            if let Some(value) = value {
                options["preconditions"][key] = value.clone().into();
            }
        }
        options
    }
}

/// 400 for a body that is of another kind, or whose members are of other types.
fn check_delete_body(body: &Value) -> Result<(), Status> {
    type Member = (&'static str, &'static str, fn(&Value) -> bool);
    const MEMBERS: [Member; 8] = [
        ("/gracePeriodSeconds", "an integer", Value::is_i64),
        ("/orphanDependents", "a boolean", Value::is_boolean),
        ("/propagationPolicy", "a string", Value::is_string),
        ("/preconditions", "an object", Value::is_object),
        ("/preconditions/uid", "a string", Value::is_string),
        ("/preconditions/resourceVersion", "a string", Value::is_string),
        ("/dryRun", "a list of strings", is_texts),
        ("/apiVersion", "a string", Value::is_string),
    ];
    if !body.is_object() {
        return Err(Status::bad_request("couldn't decode the delete options: the body is not a JSON object"));
    }
    match &body["kind"] {
        Value::Null => {}
        Value::String(kind) if matches!(kind.as_str(), "" | "DeleteOptions") => {}
        kind => return Err(Status::bad_request(format!("the body is a {kind}, not DeleteOptions"))),
    }
    let wrong = |(path, _, fits): &&Member| body.pointer(path).is_some_and(|value| !value.is_null() && !fits(value));
    match MEMBERS.iter().find(wrong) {
        None => Ok(()),
        Some((path, wanted, _)) => {
            let field = path[1..].replace('/', ".");
            Err(Status::bad_request(format!("couldn't decode the delete options: {field} is not {wanted}")))
        }
    }
}

fn is_texts(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Value::is_string))
}

fn query_delete_options(query: &Query) -> Result<Value, Status> {
    let mut options = json!({});
    if let Some(text) = query.text("gracePeriodSeconds") {
        let seconds: i64 = text.parse().map_err(|_| bad_number(text))?;
        options["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(policy) = query.text("propagationPolicy") {
        options["propagationPolicy"] = policy.into();
    }
    if let Some(orphans) = query.maybe_flag("orphanDependents") {
        options["orphanDependents"] = orphans.into();
    }
    options["dryRun"] = query.all("dryRun").map(Value::from).collect();
    Ok(options)
}

/// Only the single value `All` is a dry run; none at all is not.
fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let values: Vec<&str> = values.filter(|v| !v.is_empty()).collect();
    if values.iter().any(|value| *value != "All") {
        errors.push(FieldError::not_supported(&FieldPath::new("dryRun"), json!(values), &["All"]));
    }
    !values.is_empty()
}

fn bad_number(text: &str) -> Status {
    Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
}

fn number(query: &Query, key: &str) -> Result<Option<u64>, Status> {
    let Some(text) = query.text(key) else { return Ok(None) };
    let parsed: i64 = text.parse().map_err(|_| bad_number(text))?;
    // Negative limits and timeouts have always meant "none".
    Ok(u64::try_from(parsed).ok())
}

fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace() || c.escape_debug().count() > 2)
}

/// A resourceVersion of a query or an object; empty is `None`.
pub fn resource_version(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Status::bad_request(format!("invalid resource version: {}", bad_version(text))))
}

/// What is wrong with a resourceVersion.
pub fn bad_version(text: &str) -> String {
    format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax")
}

#[cfg(test)]
mod tests;
