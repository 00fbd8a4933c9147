//! Reviews of identities, and the documents by which others verify tokens.

use kube1_api::status::Status;
use serde_json::{Value, json};

use super::{Context, answer, now, strings, user_json};
use crate::user::UserInfo;

/// Whose token is this?
pub async fn token_review(ctx: &Context, _user: &UserInfo, body: &Value) -> Result<Value, Status> {
    let token = body["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let mut audiences = strings(&body["spec"]["audiences"]);
    if audiences.is_empty() {
        audiences = ctx.authenticator.api_audiences().to_vec();
    }
    let mut out = answer(body);
    out["status"] = match ctx.authenticator.authenticate_token(token, &audiences).await {
        Ok(found) => json!({"authenticated": true, "user": user_json(&found.user), "audiences": found.audiences}),
        Err(error) => json!({"user": {}, "error": format!("[invalid bearer token, {error}]")}),
    };
    Ok(out)
}

/// Who am I?
pub async fn self_subject_review(_ctx: &Context, user: &UserInfo, body: &Value) -> Result<Value, Status> {
    let mut out = answer(body);
    out["metadata"] = json!({"creationTimestamp": now()});
    out["status"] = json!({"userInfo": user_json(user)});
    Ok(out)
}

/// `/.well-known/openid-configuration`: where to find the keys (`/openid/v1/jwks` of `ServiceAccountKeys::jwks`).
pub fn openid_configuration(ctx: &Context) -> Value {
    let below = || format!("{}/openid/v1/jwks", ctx.issuer);
    json!({
        "issuer": ctx.issuer,
        "jwks_uri": ctx.tokens.jwks_uri.clone().unwrap_or_else(below),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ctx.service_account_keys.algorithms(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::context;
    use super::*;
    use crate::reader::testing::Objects;

    #[tokio::test]
    async fn a_bad_token_is_a_review_too() {
        let ctx = context(Arc::new(Objects::default()));
        let me = UserInfo::authenticated("me", &[]);
        let review = token_review(&ctx, &me, &json!({"spec": {"token": "abc"}})).await.unwrap();
        assert_eq!(review["status"]["error"], "[invalid bearer token, no authenticator knows this token]");
        assert!(review["status"].get("authenticated").is_none());
        assert_eq!(token_review(&ctx, &me, &json!({"spec": {}})).await.unwrap_err().code(), 400);
    }

    #[tokio::test]
    async fn i_am_told_who_i_am() {
        let ctx = context(Arc::new(Objects::default()));
        let me = UserInfo::authenticated("me", &["dev"]);
        let review = self_subject_review(&ctx, &me, &json!({"kind": "SelfSubjectReview"})).await.unwrap();
        assert_eq!(review["status"]["userInfo"], json!({"username": "me", "groups": ["dev", "system:authenticated"]}));
    }
}
