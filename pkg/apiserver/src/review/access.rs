//! Reviews of permissions.

use kube1_api::field::{FieldError, FieldPath};
use kube1_api::name::GroupKind;
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::{Context, answer, strings};
use crate::authz::Decision;
use crate::request_info::RequestInfo;
use crate::user::UserInfo;

const GROUP: &str = "authorization.k8s.io";

/// May the user named in the body do this?
pub async fn subject_access_review(ctx: &Context, _user: &UserInfo, body: &Value) -> Result<Value, Status> {
    let spec = &body["spec"];
    let mut errors = check_attributes(spec);
    check_subject(spec, &mut errors);
    refuse("SubjectAccessReview", errors)?;
    decide(ctx, &subject(spec), body).await
}

/// The same, for things of one namespace.
pub async fn local_subject_access_review(
    ctx: &Context,
    _user: &UserInfo,
    namespace: &str,
    body: &Value,
) -> Result<Value, Status> {
    let spec = &body["spec"];
    let path = FieldPath::new("spec");
    let mut errors = check_attributes(spec);
    check_subject(spec, &mut errors);
    let asked = spec["resourceAttributes"]["namespace"].as_str().unwrap_or_default();
    if asked != namespace {
        let field = path.child("resourceAttributes").child("namespace");
        errors.push(FieldError::invalid(&field, asked, "must match metadata.namespace"));
    }
    if !spec["nonResourceAttributes"].is_null() {
        let field = path.child("nonResourceAttributes");
        errors.push(FieldError::invalid(
            &field,
            spec["nonResourceAttributes"].clone(),
            "disallowed on this kind of request",
        ));
    }
    refuse("LocalSubjectAccessReview", errors)?;
    decide(ctx, &subject(spec), body).await
}

/// May the caller do this?
pub async fn self_subject_access_review(ctx: &Context, user: &UserInfo, body: &Value) -> Result<Value, Status> {
    refuse("SelfSubjectAccessReview", check_attributes(&body["spec"]))?;
    decide(ctx, user, body).await
}

async fn decide(ctx: &Context, user: &UserInfo, body: &Value) -> Result<Value, Status> {
    let (decision, reason) = ctx.authorizer.explain(user, &request(&body["spec"])).await;
    let mut out = answer(body);
    out["status"] = match decision {
        Decision::Allow if reason.is_empty() => json!({"allowed": true}),
        Decision::Allow => json!({"allowed": true, "reason": reason}),
        Decision::Deny(reason) => json!({"allowed": false, "denied": true, "reason": reason}),
        Decision::NoOpinion(reason) if reason.is_empty() => json!({"allowed": false}),
        Decision::NoOpinion(reason) => json!({"allowed": false, "reason": reason}),
    };
    Ok(out)
}

fn refuse(kind: &str, errors: Vec<FieldError>) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&GroupKind::new(GROUP, kind), "", errors)) }
}

fn check_attributes(spec: &Value) -> Vec<FieldError> {
    let path = FieldPath::new("spec");
    let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    match (resource.is_null(), other.is_null()) {
        (false, false) => vec![FieldError::invalid(
            &path.child("nonResourceAttributes"),
            other.clone(),
            "cannot be specified in combination with resourceAttributes",
        )],
        (true, true) => vec![FieldError::invalid(
            &path.child("resourceAttributes"),
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )],
        _ => vec![],
    }
}

fn check_subject(spec: &Value, errors: &mut Vec<FieldError>) {
    let user = spec["user"].as_str().unwrap_or_default();
    if user.is_empty() && strings(&spec["groups"]).is_empty() {
        let path = FieldPath::new("spec").child("user");
        errors.push(FieldError::invalid(&path, user, "at least one of user or group must be specified"));
    }
}

fn subject(spec: &Value) -> UserInfo {
    let text = |key: &str| spec[key].as_str().unwrap_or_default().to_owned();
    let extra = spec["extra"].as_object().into_iter().flatten();
    UserInfo {
        name: text("user"),
        uid: text("uid"),
        groups: strings(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.to_lowercase(), strings(values))).collect(),
    }
}

/// The request that a review asks about.
fn request(spec: &Value) -> RequestInfo {
    if !spec["nonResourceAttributes"].is_null() {
        let attributes = &spec["nonResourceAttributes"];
        let text = |key: &str| attributes[key].as_str().unwrap_or_default().to_owned();
        return RequestInfo { path: text("path"), verb: text("verb"), ..RequestInfo::default() };
    }
    let attributes = &spec["resourceAttributes"];
    let text = |key: &str| attributes[key].as_str().unwrap_or_default().to_owned();
    RequestInfo {
        is_resource: true,
        verb: text("verb"),
        group: text("group"),
        version: text("version"),
        namespace: text("namespace"),
        resource: text("resource"),
        subresource: text("subresource"),
        name: text("name"),
        label_selector: selector(&attributes["labelSelector"]),
        field_selector: selector(&attributes["fieldSelector"]),
        ..RequestInfo::default()
    }
}

/// A selector of a review in its one-line form. Requirements that it cannot express are left out, which only makes the
/// selection, and so the permission asked about, wider.
fn selector(selector: &Value) -> String {
    if let Some(raw) = selector["rawSelector"].as_str().filter(|raw| !raw.is_empty()) {
        return raw.to_owned();
    }
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    let terms: Vec<String> = requirements
        .filter_map(|requirement| {
            let key = requirement["key"].as_str()?;
            match (requirement["operator"].as_str()?, &strings(&requirement["values"])[..]) {
                ("In", [value]) => Some(format!("{key}={value}")),
                ("NotIn", [value]) => Some(format!("{key}!={value}")),
                _ => None,
            }
        })
        .collect();
    terms.join(",")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::context;
    use super::*;
    use crate::reader::testing::Objects;

    #[tokio::test]
    async fn decisions_are_told() {
        let ctx = context(Arc::new(Objects::default()));
        let me = UserInfo::authenticated("alice", &[]);
        let spec =
            |namespace: &str| json!({"user": "alice", "resourceAttributes": {"verb": "get", "namespace": namespace}});
        for (namespace, expected) in [
            ("a", json!({"allowed": true})),
            ("b", json!({"allowed": false})),
            ("secret", json!({"allowed": false, "denied": true, "reason": "hidden"})),
        ] {
            let body = json!({"spec": spec(namespace)});
            assert_eq!(subject_access_review(&ctx, &me, &body).await.unwrap()["status"], expected);
            let local = local_subject_access_review(&ctx, &me, namespace, &body).await.unwrap();
            assert_eq!(local["status"], expected);
            let mut body = body.clone();
            body["spec"].as_object_mut().unwrap().remove("user");
            let own = self_subject_access_review(&ctx, &me, &body).await.unwrap();
            assert_eq!((&own["status"], &own["spec"]), (&expected, &body["spec"]));
        }
        let selecting = json!({"spec": {"resourceAttributes": {"verb": "list", "fieldSelector":
            {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n"]}]}}}});
        assert_eq!(
            self_subject_access_review(&ctx, &me, &selecting).await.unwrap()["status"]["reason"],
            "spec.nodeName=n"
        );
    }

    #[tokio::test]
    async fn incomplete_questions_are_refused() {
        let ctx = context(Arc::new(Objects::default()));
        let me = UserInfo::authenticated("alice", &[]);
        for (spec, message) in [
            (json!({"user": "x"}), "exactly one of nonResourceAttributes or resourceAttributes must be specified"),
            (json!({"user": "x", "resourceAttributes": {}, "nonResourceAttributes": {}}), "in combination"),
            (json!({"resourceAttributes": {}}), "at least one of user or group must be specified"),
        ] {
            let status = subject_access_review(&ctx, &me, &json!({ "spec": spec })).await.unwrap_err();
            assert_eq!(status.code(), 422);
            assert!(status.message().contains(message), "{}", status.message());
        }
        let body = json!({"spec": {"user": "x", "resourceAttributes": {"namespace": "a"}}});
        let status = local_subject_access_review(&ctx, &me, "b", &body).await.unwrap_err();
        assert!(status.message().contains("must match metadata.namespace"));
    }
}
