//! The review that lists everything the caller may do.

use kube1_api::status::Status;
use serde_json::{Value, json};

use super::{Context, answer};
use crate::authz::Rule;
use crate::user::UserInfo;

/// What may I do in this namespace?
pub async fn self_subject_rules_review(ctx: &Context, user: &UserInfo, body: &Value) -> Result<Value, Status> {
    let namespace = body["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let found = ctx.authorizer.rules(user, namespace).await;
    let (paths, resources): (Vec<&Rule>, Vec<&Rule>) =
        found.rules.iter().partition(|rule| !rule.non_resource_urls.is_empty());
    let mut out = answer(body);
    // Upstream answers without the question.
    out["spec"] = json!({});
    out["status"] = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": found.incomplete});
    if !found.errors.is_empty() {
        out["status"]["evaluationError"] = found.errors.join(", ").into();
    }
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::context;
    use super::*;
    use crate::reader::testing::Objects;

    #[tokio::test]
    async fn rules_are_listed_by_kind() {
        let ctx = context(Arc::new(Objects::default()));
        let me = UserInfo::authenticated("me", &[]);
        let review = self_subject_rules_review(&ctx, &me, &json!({"spec": {"namespace": "a"}})).await.unwrap();
        assert_eq!(
            review["status"],
            json!({"resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}], "incomplete": false})
        );
        assert_eq!(self_subject_rules_review(&ctx, &me, &json!({"spec": {}})).await.unwrap_err().code(), 400);
    }
}
