//! Reviews of permissions.

use kube1_api::field::{FieldError, FieldPath};
use kube1_api::name::GroupKind;
use kube1_api::selector::{FieldSelector, LabelSelector};
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
    if let Some(why) = ignored(&body["spec"]) {
        out["status"]["evaluationError"] = why.into();
    }
    Ok(out)
}

fn refuse(kind: &str, errors: Vec<FieldError>) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&GroupKind::new(GROUP, kind), "", errors)) }
}

fn check_attributes(spec: &Value) -> Vec<FieldError> {
    let path = FieldPath::new("spec");
    let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let mut errors = match (resource.is_null(), other.is_null()) {
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
    };
    check_selectors(resource, &mut errors);
    errors
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
        version: match text("version") {
            // Any will do.
            none if none.is_empty() => "*".into(),
            version => version,
        },
        namespace: text("namespace"),
        resource: text("resource"),
        subresource: text("subresource"),
        name: text("name"),
        label_selector: selector(&attributes["labelSelector"], true).0,
        field_selector: selector(&attributes["fieldSelector"], false).0,
        ..RequestInfo::default()
    }
}

/// What of a selector is understood, in its one-line form, and whether that is not all of it: what is left out only makes
/// the selection, and so the permission asked about, wider.
fn selector(selector: &Value, labels: bool) -> (String, bool) {
    let requirements = selector["requirements"].as_array().map(Vec::as_slice).unwrap_or_default();
    if requirements.is_empty() {
        let raw = selector["rawSelector"].as_str().unwrap_or_default();
        let parses = if labels { LabelSelector::parse(raw).is_ok() } else { FieldSelector::parse(raw).is_ok() };
        return if parses { (raw.to_owned(), false) } else { (String::new(), true) };
    }
    let term = |requirement: &Value| {
        let (key, values) = (requirement["key"].as_str()?, strings(&requirement["values"]));
        let term = match (requirement["operator"].as_str()?, &values[..]) {
            ("In", [value]) => format!("{key}={value}"),
            ("NotIn", [value]) => format!("{key}!={value}"),
            ("In", several) if labels => format!("{key} in ({})", several.join(",")),
            ("NotIn", several) if labels => format!("{key} notin ({})", several.join(",")),
            ("Exists", []) if labels => key.to_owned(),
            ("DoesNotExist", []) if labels => format!("!{key}"),
            _ => return None,
        };
        let parses = if labels { LabelSelector::parse(&term).is_ok() } else { FieldSelector::parse(&term).is_ok() };
        parses.then_some(term)
    };
    let terms: Vec<String> = requirements.iter().filter_map(term).collect();
    (terms.join(","), terms.len() < requirements.len())
}

/// What of the selectors was not understood.
fn ignored(spec: &Value) -> Option<String> {
    let told = [("fieldSelector", false), ("labelSelector", true)].into_iter().filter_map(|(key, labels)| {
        let (understood, incomplete) = selector(&spec["resourceAttributes"][key], labels);
        let how = if understood.is_empty() { "ignored" } else { "partially ignored" };
        incomplete.then(|| format!("spec.resourceAttributes.{key} {how} due to parse error"))
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// A selector needs its requirements or its text, but not both. Operators that are not known yet are let pass.
fn check_selectors(attributes: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec").child("resourceAttributes");
    for (key, labels) in [("fieldSelector", false), ("labelSelector", true)] {
        let (selector, path) = (&attributes[key], path.child(key));
        if selector.is_null() {
            continue;
        }
        let raw = selector["rawSelector"].as_str().unwrap_or_default();
        let requirements = selector["requirements"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !raw.is_empty() && !requirements.is_empty() {
            let why = "may not specified at the same time as requirements";
            errors.push(FieldError::invalid(&path.child("rawSelector"), raw, why));
        }
        if raw.is_empty() && requirements.is_empty() {
            let why = format!("when {path} is specified, requirements or rawSelector is required");
            errors.push(FieldError::required(&path.child("requirements"), why));
        }
        for (at, requirement) in requirements.iter().enumerate() {
            let path = path.child("requirements").index(at);
            let values = path.child("values");
            if !labels && requirement["key"].as_str().unwrap_or_default().is_empty() {
                errors.push(FieldError::required(&path.child("key"), "must be specified"));
            }
            match (requirement["operator"].as_str().unwrap_or_default(), strings(&requirement["values"]).is_empty()) {
                ("In" | "NotIn", true) => {
                    errors.push(FieldError::required(&values, "must be specified when `operator` is 'In' or 'NotIn'"))
                }
                ("Exists" | "DoesNotExist", false) => errors.push(FieldError::forbidden(
                    &values,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                )),
                _ => {}
            }
        }
    }
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
    async fn selectors_are_checked_and_what_is_not_understood_is_told() {
        let ctx = context(Arc::new(Objects::default()));
        let me = UserInfo::authenticated("bob", &[]);
        let ask = async |key: &str, selector: Value| {
            let body = json!({"spec": {"resourceAttributes": {"verb": "list", key: selector}}});
            self_subject_access_review(&ctx, &me, &body).await.map(|mut answer| answer["status"].take())
        };
        let terms = |terms: Value| json!({ "requirements": terms });
        let node = json!({"key": "spec.nodeName", "operator": "In", "values": ["n"]});
        let two = json!({"key": "a", "operator": "In", "values": ["n", "m"]});
        for (key, selector, reason, ignored) in [
            ("fieldSelector", json!({"rawSelector": "a=b"}), "a=b", ""),
            ("fieldSelector", json!({"rawSelector": "a"}), "", "fieldSelector ignored"),
            ("fieldSelector", terms(json!([node, two])), "spec.nodeName=n", "fieldSelector partially ignored"),
            ("fieldSelector", terms(json!([{"key": "a", "operator": "New"}])), "", "fieldSelector ignored"),
            ("labelSelector", terms(json!([two, {"key": "b", "operator": "DoesNotExist"}])), "", ""),
            ("labelSelector", json!({"rawSelector": "a in (b"}), "", "labelSelector ignored"),
        ] {
            let status = ask(key, selector.clone()).await.unwrap();
            assert_eq!(status["reason"].as_str().unwrap_or_default(), reason, "{selector}");
            let told = status["evaluationError"].as_str().unwrap_or_default();
            assert_eq!((told.is_empty(), told.contains(ignored)), (ignored.is_empty(), true), "{selector}: {told}");
        }
        let (found, incomplete) = selector(&terms(json!([two, {"key": "b", "operator": "Exists"}])), true);
        assert_eq!((found.as_str(), incomplete), ("a in (n,m),b", false));
        for (selector, message) in [
            (
                json!({}),
                "when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
            ),
            (
                json!({"rawSelector": "a=b", "requirements": [node]}),
                "may not specified at the same time as requirements",
            ),
            (terms(json!([{"operator": "In", "values": ["x"]}])), "key: Required value: must be specified"),
            (terms(json!([{"key": "a", "operator": "In"}])), "must be specified when `operator` is 'In' or 'NotIn'"),
            (terms(json!([{"key": "a", "operator": "Exists", "values": ["x"]}])), "may not be specified when"),
        ] {
            let status = ask("fieldSelector", selector.clone()).await.unwrap_err();
            assert!(status.code() == 422 && status.message().contains(message), "{}", status.message());
        }
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
