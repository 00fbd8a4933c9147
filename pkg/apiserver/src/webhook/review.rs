//! AdmissionReview: the question and the answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube1_api::patch::json_patch;
use kube1_api::status::Status;
use serde_json::{Map, Value, json};

use crate::user::UserInfo;

/// What a webhook is asked.
pub struct Review<'a> {
    pub version: &'a str,
    pub uid: String,
    pub kind: (&'a str, &'a str, &'a str),
    pub resource: (&'a str, &'a str, &'a str),
    pub request_kind: (&'a str, &'a str, &'a str),
    pub request_resource: (&'a str, &'a str, &'a str),
    pub subresource: &'a str,
    pub name: &'a str,
    pub namespace: &'a str,
    pub operation: &'a str,
    pub user: &'a UserInfo,
    pub object: Option<&'a Value>,
    pub old_object: Option<&'a Value>,
    pub options: &'a Value,
    pub dry_run: bool,
}

/// What a webhook answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub allowed: bool,
    /// What the webhook says of a denial: a Status, or null.
    pub status: Value,
    pub patch: Option<Value>,
    pub warnings: Vec<String>,
    pub audit_annotations: Map<String, Value>,
}

fn kind((group, version, kind): (&str, &str, &str)) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn resource((group, version, resource): (&str, &str, &str)) -> Value {
    json!({"group": group, "version": version, "resource": resource})
}

impl Review<'_> {
    pub fn to_json(&self) -> Value {
        let user = self.user;
        let mut request = json!({
            "uid": self.uid, "kind": kind(self.kind), "resource": resource(self.resource),
            "requestKind": kind(self.request_kind), "requestResource": resource(self.request_resource),
            "operation": self.operation, "userInfo": {"username": user.name, "groups": user.groups},
            "object": self.object, "oldObject": self.old_object, "dryRun": self.dry_run, "options": self.options,
        });
        for (key, text) in [("name", self.name), ("namespace", self.namespace), ("subResource", self.subresource)] {
            if !text.is_empty() {
                request[key] = text.into();
            }
        }
        if !self.subresource.is_empty() {
            request["requestSubResource"] = self.subresource.into();
        }
        if !user.uid.is_empty() {
            request["userInfo"]["uid"] = user.uid.clone().into();
        }
        if !user.extra.is_empty() {
            request["userInfo"]["extra"] = json!(user.extra);
        }
        let version = format!("admission.k8s.io/{}", self.version);
        json!({"kind": "AdmissionReview", "apiVersion": version, "request": request})
    }

    /// Reads the answer to this question; the error says what is wrong with it.
    pub fn answer(&self, body: &[u8], mutating: bool) -> Result<Answer, String> {
        let review: Value = serde_json::from_slice(body)
            .map_err(|error| format!("failed to call webhook: couldn't get version/kind; json parse error: {error}"))?;
        let response = self.verify(&review, mutating).map_err(|e| format!("received invalid webhook response: {e}"))?;
        let patch = match response["patch"].as_str().filter(|p| mutating && !p.is_empty()) {
            None => None,
            Some(_) if self.version == "v1" && response["patchType"] != "JSONPatch" => {
                return Err(format!("unsupported patch type {}", response["patchType"]));
            }
            Some(text) => {
                let undecodable = |why: String| format!("received undecodable patch in webhook response: {why}");
                let bytes = STANDARD.decode(text).map_err(|error| undecodable(error.to_string()))?;
                let patch: Value = serde_json::from_slice(&bytes).map_err(|error| undecodable(error.to_string()))?;
                Some(patch).filter(|p| p.as_array().is_none_or(|operations| !operations.is_empty()))
            }
        };
        let warnings = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(Answer {
            allowed: response["allowed"].as_bool().unwrap_or(false),
            status: response["status"].clone(),
            patch,
            warnings: warnings.map(str::to_owned).collect(),
            audit_annotations: response["auditAnnotations"].as_object().cloned().unwrap_or_default(),
        })
    }
}

impl Review<'_> {
    /// Whether a response is one to this question.
    fn verify<'a>(&self, review: &'a Value, mutating: bool) -> Result<&'a Value, String> {
        let response = review.get("response").filter(|r| r.is_object()).ok_or("webhook response was absent")?;
        if self.version != "v1" {
            return Ok(response);
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if response["uid"] != self.uid.as_str() {
            return Err(format!("expected response.uid={:?}, got {:?}", self.uid, text(&response["uid"])));
        }
        let (api_version, kind) = (text(&review["apiVersion"]), text(&review["kind"]));
        if (api_version.as_str(), kind.as_str()) != ("admission.k8s.io/v1", "AdmissionReview") {
            let expected = "admission.k8s.io/v1, Kind=AdmissionReview";
            return Err(format!("expected webhook response of {expected}, got {api_version}, Kind={kind}"));
        }
        let (patch, kind) = (!text(&response["patch"]).is_empty(), response["patchType"].as_str());
        let wrong = match (mutating, patch, kind) {
            (true, true, None) => "webhook returned response.patch but not response.patchType",
            (true, false, Some(_)) => "webhook returned response.patchType but not response.patch",
            (true, true, Some("")) => "webhook returned invalid response.patchType of \"\"",
            (false, true, _) => "validating webhook may not return response.patch",
            (false, _, Some(_)) => "validating webhook may not return response.patchType",
            _ => return Ok(response),
        };
        Err(wrong.to_owned())
    }
}

impl Answer {
    /// The object with the webhook's patch; unchanged without one.
    pub fn apply(&self, object: Value) -> Result<Value, Status> {
        match &self.patch {
            None => Ok(object),
            Some(patch) => json_patch(&object, patch).map_err(Status::internal),
        }
    }

    /// The denial of webhook `name` as the client sees it.
    pub fn denied(&self, name: &str) -> Option<Status> {
        if self.allowed {
            return None;
        }
        let code = self.status["code"].as_u64().and_then(|c| u16::try_from(c).ok()).filter(|c| *c >= 400);
        let said = [&self.status["message"], &self.status["reason"]];
        let said = said.iter().find_map(|t| t.as_str().filter(|t| !t.is_empty()));
        let said = said.map_or(" without explanation".to_owned(), |said| format!(": {said}"));
        let text = format!("admission webhook \"{name}\" denied the request{said}");
        Some(Status::relayed(&self.status, code.unwrap_or(400), text))
    }
}

/// A review to try answers on.
#[cfg(any(test, fuzzing))]
fn sample(user: &UserInfo) -> Review<'_> {
    Review {
        version: "v1",
        uid: "u-1".into(),
        kind: ("apps", "v1", "Deployment"),
        resource: ("apps", "v1", "deployments"),
        request_kind: ("apps", "v1", "Deployment"),
        request_resource: ("apps", "v1", "deployments"),
        subresource: "",
        name: "web",
        namespace: "default",
        operation: "CREATE",
        user,
        object: None,
        old_object: None,
        options: &Value::Null,
        dry_run: false,
    }
}

/// What hostile input is tried on: the answer of a webhook, and what becomes of an object by its patch.
#[cfg(any(test, fuzzing))]
pub(crate) fn hostile(body: &[u8]) {
    let user = UserInfo::default();
    for version in ["v1", "v1beta1"] {
        let review = Review { version, ..sample(&user) };
        if let Ok(answer) = review.answer(body, true) {
            let _ = (answer.denied("w"), answer.apply(json!({"metadata": {"name": "n"}, "spec": {"a": [1]}})));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(response: Value) -> Result<Answer, String> {
        let user = UserInfo::anonymous();
        let body = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        sample(&user).answer(body.to_string().as_bytes(), true)
    }

    #[test]
    fn answers_that_are_none_are_told_apart() {
        let user = UserInfo::anonymous();
        let whole = |response: Value| json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        let (patch, ok) = (STANDARD.encode("[{}]"), "u-1");
        for (mutating, body, expected) in [
            (true, json!({}), "webhook response was absent"),
            (true, whole(json!({"uid": "x"})), "expected response.uid=\"u-1\", got \"x\""),
            (
                true,
                json!({"kind": "Pod", "apiVersion": "v1", "response": {"uid": ok}}),
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got v1, Kind=Pod",
            ),
            (
                true,
                whole(json!({"uid": ok, "patch": patch})),
                "webhook returned response.patch but not response.patchType",
            ),
            (
                true,
                whole(json!({"uid": ok, "patchType": "JSONPatch"})),
                "webhook returned response.patchType but not response.patch",
            ),
            (false, whole(json!({"uid": ok, "patch": patch})), "validating webhook may not return response.patch"),
            (
                false,
                whole(json!({"uid": ok, "patchType": "JSONPatch"})),
                "validating webhook may not return response.patchType",
            ),
        ] {
            let found = sample(&user).answer(body.to_string().as_bytes(), mutating).unwrap_err();
            assert_eq!(found, format!("received invalid webhook response: {expected}"));
        }
    }

    #[test]
    fn answers_are_believed_only_when_they_are_to_the_question() {
        assert!(answer(json!({"uid": "other", "allowed": true})).unwrap_err().contains("response.uid"));
        assert!(answer(json!({"uid": "u-1", "allowed": true})).unwrap().allowed);
        let denied = answer(json!({"uid": "u-1", "allowed": false, "status": {"message": "no", "code": 200}})).unwrap();
        let status = denied.denied("w.example").unwrap();
        assert_eq!((status.code(), status.message()), (400, "admission webhook \"w.example\" denied the request: no"));
        let denied = json!({"uid": "u-1", "allowed": false, "status": {"reason": "Odd", "code": 418,
            "details": {"name": "n", "kind": "k", "causes": [{"reason": "R", "message": "m", "field": "f"}]}}});
        let status = answer(denied).unwrap().denied("w.example").unwrap().to_json();
        assert_eq!(
            status,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Odd", "code": 418,
                "message": "admission webhook \"w.example\" denied the request: Odd",
                "details": {"name": "n", "kind": "k", "causes": [{"reason": "R", "message": "m", "field": "f"}]}})
        );
        let patch = STANDARD.encode(r#"[{"op":"add","path":"/a","value":1}]"#);
        let patched = answer(json!({"uid": "u-1", "allowed": true, "patch": patch, "patchType": "JSONPatch"})).unwrap();
        assert_eq!(patched.apply(json!({})).unwrap(), json!({"a": 1}));
        assert!(answer(json!({"uid": "u-1", "allowed": true, "patch": "?", "patchType": "JSONPatch"})).is_err());
    }
}
