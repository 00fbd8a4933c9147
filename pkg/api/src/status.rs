//! The Status object: how the API says that something failed.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::field::FieldError;
use crate::name::{GroupKind, GroupResource};

/// Field errors that a refusal tells: an object of a million wrong elements would get an answer of hundreds of megabytes.
const CAUSES_MAX: usize = 1000;

/// One cause of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// A failure as the API reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    inner: Box<Inner>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Inner {
    code: u16,
    reason: Cow<'static, str>,
    message: String,
    name: String,
    group: String,
    kind: String,
    uid: String,
    causes: Vec<Cause>,
    retry_after_seconds: u32,
    continue_token: String,
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { inner: Box::new(Inner { code, reason: reason.into(), message: message.into(), ..Inner::default() }) }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.inner.group = group.into();
        self.inner.kind = kind.into();
        self.inner.name = name.into();
        self
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// `cause` says what is forbidden and why.
    pub fn forbidden(resource: &GroupResource, name: &str, cause: impl fmt::Display) -> Self {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {cause}"),
            (false, true) => format!("{resource} is forbidden: {cause}"),
            (false, false) => format!("{resource} \"{name}\" is forbidden: {cause}"),
        };
        Self::new(403, "Forbidden", message).about(&resource.group, &resource.resource, name)
    }

    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} \"{name}\" not found")).about(
            &resource.group,
            &resource.resource,
            name,
        )
    }

    /// There is no such path below a known group.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// A path that other methods have.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub fn method_not_supported(resource: &GroupResource, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind \"{resource}\"");
        Self::new(405, "MethodNotAllowed", message).about(&resource.group, &resource.resource, "")
    }

    pub fn not_acceptable<T: AsRef<str>>(types: &[T]) -> Self {
        let types: Vec<&str> = types.iter().map(AsRef::as_ref).collect();
        let message = format!("only the following media types are accepted: {}", types.join(", "));
        Self::new(406, "NotAcceptable", message)
    }

    /// The answer has no form of the kind that was asked for; `is` says what it is instead.
    pub fn not_acceptable_as(kind: &str, is: &str) -> Self {
        Self::new(406, "NotAcceptable", format!("you requested {kind}, but the requested object {is}"))
    }

    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{resource} \"{name}\" already exists")).about(
            &resource.group,
            &resource.resource,
            name,
        )
    }

    /// No free name could be made from `generateName`.
    pub fn generate_name_conflict(resource: &GroupResource, name: &str, retry_after_seconds: u32) -> Self {
        let message = format!(
            "{resource} \"{name}\" already exists, the server was not able to generate a unique name for the object"
        );
        let mut status = Self::new(409, "AlreadyExists", message).about(&resource.group, &resource.resource, name);
        status.inner.retry_after_seconds = retry_after_seconds;
        status
    }

    pub fn conflict(resource: &GroupResource, name: &str, cause: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {cause}");
        Self::new(409, "Conflict", message).about(&resource.group, &resource.resource, name)
    }

    /// A failure that somebody else tells of: its reason and details, with this code and message.
    pub fn relayed(told: &Value, code: u16, message: impl Into<String>) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let details = &told["details"];
        let cause = |cause: &Value| Cause {
            reason: text(&cause["reason"]),
            message: text(&cause["message"]),
            field: text(&cause["field"]),
        };
        let inner = Inner {
            code,
            reason: text(&told["reason"]).into(),
            message: message.into(),
            name: text(&details["name"]),
            group: text(&details["group"]),
            kind: text(&details["kind"]),
            uid: text(&details["uid"]),
            causes: details["causes"].as_array().into_iter().flatten().map(cause).collect(),
            retry_after_seconds: details["retryAfterSeconds"].as_u64().and_then(|s| s.try_into().ok()).unwrap_or(0),
            continue_token: String::new(),
        };
        Self { inner: Box::new(inner) }
    }

    /// The same failure under another code.
    #[must_use]
    pub fn with_code(mut self, code: u16) -> Self {
        self.inner.code = code;
        self.inner.reason = reason_of(code).into();
        self
    }

    /// The same failure for another reason.
    #[must_use]
    pub fn with_reason(mut self, reason: &'static str) -> Self {
        self.inner.reason = reason.into();
        self
    }

    /// Server-side apply met fields of other managers.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<Cause>) -> Self {
        let mut status = Self::new(409, "Conflict", message);
        status.inner.causes = causes;
        status
    }

    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "Gone", message)
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: {}", message.into()))
    }

    pub fn unsupported_media_type(types: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            types.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub fn invalid(kind: &GroupKind, name: &str, mut errors: Vec<FieldError>) -> Self {
        let left_out = errors.len().saturating_sub(CAUSES_MAX);
        errors.truncate(CAUSES_MAX);
        let mut texts: Vec<String> = Vec::new();
        for text in errors.iter().map(ToString::to_string) {
            // The message says everything once, the causes as often as it was found.
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        texts.extend((left_out > 0).then(|| format!("and {left_out} more")));
        let text = if let [one] = &texts[..] { one.clone() } else { format!("[{}]", texts.join(", ")) };
        let mut status = Self::new(422, "Invalid", format!("{kind} \"{name}\" is invalid: {text}")).about(
            &kind.group,
            &kind.kind,
            name,
        );
        status.inner.causes = errors
            .iter()
            .map(|e| Cause { reason: e.kind.reason().into(), message: e.body(), field: e.field.clone() })
            .collect();
        status
    }

    /// The request is well formed, but cannot be carried out on the object as it is.
    pub fn unprocessable() -> Self {
        Self::new(422, "Invalid", "the server rejected our request due to an error in our request")
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::new(429, "TooManyRequests", message);
        status.inner.retry_after_seconds = retry_after_seconds;
        status
    }

    pub fn internal(cause: impl fmt::Display) -> Self {
        let cause = cause.to_string();
        let mut status = Self::new(500, "InternalError", format!("Internal error occurred: {cause}"));
        status.inner.causes = vec![Cause { message: cause, ..Cause::default() }];
        status
    }

    /// A failure that fits no other reason, in its own words.
    pub fn failure(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    pub fn timeout(message: impl fmt::Display) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {message}"))
    }

    /// A reader asked for a state that the server has not reached.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let mut status = Self::timeout(message).with_cause("ResourceVersionTooLarge", "Too large resource version", "");
        status.inner.retry_after_seconds = 1;
        status
    }

    /// The same with another message.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.inner.message = message.into();
        self
    }

    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        self.inner.causes.push(Cause { reason: reason.into(), message: message.into(), field: field.into() });
        self
    }

    #[must_use]
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.inner.message.insert_str(0, prefix);
        self
    }

    #[must_use]
    pub fn with_uid(mut self, uid: &str) -> Self {
        self.inner.uid = uid.into();
        self
    }

    /// A token with which an expired list can go on.
    #[must_use]
    pub fn with_continue(mut self, token: impl Into<String>) -> Self {
        self.inner.continue_token = token.into();
        self
    }

    pub fn code(&self) -> u16 {
        self.inner.code
    }

    pub fn reason(&self) -> &str {
        &self.inner.reason
    }

    pub fn message(&self) -> &str {
        &self.inner.message
    }

    pub fn retry_after_seconds(&self) -> u32 {
        self.inner.retry_after_seconds
    }

    pub fn to_json(&self) -> Value {
        let inner = &self.inner;
        let mut details = Map::new();
        for (key, value) in [("name", &inner.name), ("group", &inner.group), ("kind", &inner.kind), ("uid", &inner.uid)]
        {
            if !value.is_empty() {
                details.insert(key.into(), value.clone().into());
            }
        }
        if !inner.causes.is_empty() {
            details.insert("causes".into(), inner.causes.iter().map(cause_json).collect());
        }
        if inner.retry_after_seconds > 0 {
            details.insert("retryAfterSeconds".into(), inner.retry_after_seconds.into());
        }
        let mut metadata = Map::new();
        if !inner.continue_token.is_empty() {
            metadata.insert("continue".into(), inner.continue_token.clone().into());
        }
        let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": inner.message, "reason": inner.reason, "code": inner.code});
        if !details.is_empty() || inner.code == 422 {
            status["details"] = details.into();
        }
        if let Some(members) = status.as_object_mut().filter(|_| inner.reason.is_empty()) {
            members.remove("reason");
        }
        status
    }
}

fn reason_of(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        413 => "RequestEntityTooLarge",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        _ => "",
    }
}

fn cause_json(cause: &Cause) -> Value {
    let mut value = Map::new();
    for (key, text) in [("reason", &cause.reason), ("message", &cause.message), ("field", &cause.field)] {
        if !text.is_empty() {
            value.insert(key.into(), text.clone().into());
        }
    }
    value.into()
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::FieldPath;

    #[test]
    fn statuses_have_upstreams_shape() {
        let resource = GroupResource::new("apps", "deployments");
        let status = Status::not_found(&resource, "web").to_json();
        assert_eq!(
            status,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404, "reason": "NotFound",
                "message": "deployments.apps \"web\" not found",
                "details": {"name": "web", "group": "apps", "kind": "deployments"}})
        );
        let errors = vec![
            FieldError::required(&FieldPath::new("a"), ""),
            FieldError::invalid(&FieldPath::new("b"), 0, "must be positive"),
        ];
        let many = (0..5000).map(|n| FieldError::required(&FieldPath::new("a").index(n), "")).collect();
        let status = Status::invalid(&GroupKind::new("", "Pod"), "p", many);
        assert!(status.message().ends_with(", a[999]: Required value, and 4000 more]"), "{}", status.message());
        let status = Status::invalid(&GroupKind::new("", "Pod"), "p", errors).to_json();
        assert_eq!(
            status["message"],
            "Pod \"p\" is invalid: [a: Required value, b: Invalid value: 0: must be positive]"
        );
        assert_eq!(
            status["details"]["causes"][1],
            json!({"reason": "FieldValueInvalid", "message": "Invalid value: 0: must be positive", "field": "b"})
        );
    }
}
