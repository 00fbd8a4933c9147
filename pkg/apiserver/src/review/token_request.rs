//! Tokens for service accounts.

use kube1_api::field::{FieldError, FieldPath};
use kube1_api::name::{GroupKind, GroupResource};
use kube1_api::status::Status;
use kube1_pki::clock;
use serde_json::{Value, json};

use super::{Context, answer, now, strings};
use crate::call::Warnings;
use crate::user::UserInfo;

const EXPIRATION_DEFAULT: i64 = 3600;
const EXPIRATION_MIN: i64 = 600;
const EXPIRATION_MAX: i64 = 1 << 32;
/// A pod's own token asks for exactly this; clients from before rotation keep theirs for a year with a warning.
const POD_TOKEN_EXPIRATION: i64 = 3607;
const EXTENDED_EXPIRATION: i64 = 365 * 24 * 3600;

/// The parts of the claims that come from what a token is bound to.
#[derive(Default)]
struct Bound {
    pod: Option<Value>,
    secret: Option<Value>,
    node: Option<Value>,
}

impl Bound {
    fn claims(self, namespace: &str, account: &str, uid: &Value) -> Value {
        let mut claims = json!({"namespace": namespace, "serviceaccount": {"name": account, "uid": uid}});
        for (key, reference) in [("pod", self.pod), ("secret", self.secret), ("node", self.node)] {
            if let Some(reference) = reference {
                claims[key] = reference;
            }
        }
        claims
    }
}

/// Makes a token for the account `namespace`/`name`; `body` is a TokenRequest.
pub async fn token_request(
    ctx: &Context,
    _user: &UserInfo,
    namespace: &str,
    name: &str,
    body: &Value,
    warnings: &Warnings,
) -> Result<Value, Status> {
    let account = ctx
        .reader
        .get("", "serviceaccounts", namespace, name)
        .ok_or_else(|| Status::not_found(&GroupResource::new("", "serviceaccounts"), name))?;
    for (key, expected) in [("name", name), ("namespace", namespace)] {
        let given = body["metadata"][key].as_str().unwrap_or_default();
        if !given.is_empty() && given != expected {
            return Err(Status::bad_request(format!("metadata.{key} {given:?} must match the URL's {expected:?}")));
        }
    }
    let (given, uid) = (body["metadata"]["uid"].as_str().unwrap_or_default(), &account["metadata"]["uid"]);
    if !given.is_empty() && uid != given {
        let uid = uid.as_str().unwrap_or_default();
        let cause =
            format!("the UID in the token request ({given}) does not match the UID of the service account ({uid})");
        return Err(Status::conflict(&GroupResource::new("authentication.k8s.io", "tokenrequests"), name, cause));
    }
    let seconds = expiration(&body["spec"])?;
    let mut audiences = strings(&body["spec"]["audiences"]);
    if audiences.is_empty() {
        audiences = ctx.authenticator.api_audiences().to_vec();
    }
    let bound = bind(ctx, namespace, name, &body["spec"]["boundObjectRef"])?;
    let longest = ctx.tokens.max_expiration.map_or(i64::MAX, |most| i64::try_from(most.as_secs()).unwrap_or(i64::MAX));
    if seconds > longest {
        warnings.add(format!("requested expiration of {seconds} seconds shortened to {longest} seconds"));
    }
    let seconds = seconds.min(longest);
    let extended = ctx.tokens.extend_expiration
        && bound.pod.is_some()
        && seconds == POD_TOKEN_EXPIRATION
        && audiences.iter().all(|a| ctx.authenticator.api_audiences().contains(a));
    let issued = clock::unix_now();
    let mut private = bound.claims(namespace, name, &account["metadata"]["uid"]);
    if extended {
        private["warnafter"] = (issued + seconds).into();
    }
    // The longest expiration is for what is asked for, which is what clients that renew go by.
    let lifetime = if extended { EXTENDED_EXPIRATION } else { seconds };
    let claims = json!({"iss": ctx.issuer, "aud": audiences, "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "iat": issued, "nbf": issued, "exp": issued + lifetime, "jti": uuid::Uuid::new_v4().to_string(),
        "kubernetes.io": private});
    let token = match &ctx.signer {
        Some(signer) => signer.sign(&claims).await.map_err(|e| e.to_string()),
        None => ctx.service_account_keys.sign(&claims).map_err(|e| e.to_string()),
    };
    let token = token.map_err(|why| Status::internal(format!("failed to generate token: {why}")))?;
    let mut out = answer(body);
    out["metadata"] = json!({"name": name, "namespace": namespace, "creationTimestamp": now()});
    out["spec"]["audiences"] = audiences.into();
    out["spec"]["expirationSeconds"] = seconds.into();
    let end = jiff::Timestamp::from_second(issued + seconds).map_err(Status::internal)?;
    out["status"] = json!({"token": token, "expirationTimestamp": end.to_string()});
    Ok(out)
}

fn expiration(spec: &Value) -> Result<i64, Status> {
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(EXPIRATION_DEFAULT);
    let problem = match seconds {
        ..EXPIRATION_MIN => "may not specify a duration less than 10 minutes",
        EXPIRATION_MIN..=EXPIRATION_MAX => return Ok(seconds),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let error = FieldError::invalid(&FieldPath::new("spec").child("expirationSeconds"), seconds, problem);
    Err(Status::invalid(&GroupKind::new("authentication.k8s.io", "TokenRequest"), "", vec![error]))
}

fn bind(ctx: &Context, namespace: &str, account: &str, reference: &Value) -> Result<Bound, Status> {
    let Some(fields) = reference.as_object() else { return Ok(Bound::default()) };
    let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
    let find = |plural: &str, namespace: &str| {
        let object = ctx.reader.get("", plural, namespace, text("name"));
        let object = object.ok_or_else(|| Status::not_found(&GroupResource::new("", plural), text("name")))?;
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        if !text("uid").is_empty() && text("uid") != uid {
            let cause = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
                 deleted and then recreated",
                text("uid")
            );
            return Err(Status::conflict(&GroupResource::new("", plural), text("name"), cause));
        }
        Ok((json!({"name": text("name"), "uid": uid}), object))
    };
    match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => {
            let (pod, object) = find("pods", namespace)?;
            if object["spec"]["serviceAccountName"] != account {
                let problem = "to pod running with different serviceaccount";
                return Err(Status::bad_request(format!("cannot bind token for serviceaccount {account:?} {problem}")));
            }
            Ok(Bound { pod: Some(pod), node: node_of(ctx, &object), ..Bound::default() })
        }
        ("v1", "Secret") => Ok(Bound { secret: Some(find("secrets", namespace)?.0), ..Bound::default() }),
        ("v1", "Node") => Ok(Bound { node: Some(find("nodes", "")?.0), ..Bound::default() }),
        (version, kind) => {
            let what = format!("{version}, Kind={kind}");
            Err(Status::bad_request(format!("cannot bind token for serviceaccount {account:?} to type {what}")))
        }
    }
}

fn node_of(ctx: &Context, pod: &Value) -> Option<Value> {
    let name = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty())?;
    // A node that is gone cannot be bound to; the token is then only the pod's.
    let node = ctx.reader.get("", "nodes", "", name)?;
    Some(json!({"name": name, "uid": node["metadata"]["uid"]}))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::context;
    use super::*;
    use crate::reader::testing::Objects;

    fn objects() -> Arc<Objects> {
        let objects = Arc::new(Objects::default());
        let meta = |namespace: &str, name: &str, uid: &str| json!({"namespace": namespace, "name": name, "uid": uid});
        objects.put("serviceaccounts", json!({"metadata": meta("a", "default", "s1")}));
        let spec = json!({"serviceAccountName": "default", "nodeName": "n"});
        objects.put("pods", json!({"metadata": meta("a", "p", "p1"), "spec": spec}));
        objects.put("pods", json!({"metadata": meta("a", "q", "p2"), "spec": {"serviceAccountName": "other"}}));
        objects.put("nodes", json!({"metadata": meta("", "n", "n1")}));
        objects
    }

    fn pod(name: &str, uid: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid})
    }

    #[tokio::test]
    async fn a_token_is_good_for_this_server_until_its_pod_is_gone() {
        let objects = objects();
        let mut ctx = context(objects.clone());
        ctx.tokens.max_expiration = Some(std::time::Duration::from_secs(7200));
        let me = UserInfo::authenticated("system:node:n", &[]);
        let body = json!({"spec": {"expirationSeconds": 3607, "boundObjectRef": pod("p", "p1")}});
        let answer = token_request(&ctx, &me, "a", "default", &body, &Warnings::default()).await.unwrap();
        let token = answer["status"]["token"].as_str().unwrap();
        let claims = ctx.service_account_keys.verify(token).unwrap().claims;
        let (issued, end) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
        assert_eq!((end - issued, &claims["kubernetes.io"]["warnafter"]), (EXTENDED_EXPIRATION, &json!(issued + 3607)));
        assert_eq!(claims["kubernetes.io"]["node"], json!({"name": "n", "uid": "n1"}));
        let review = json!({"spec": {"token": token}});
        let found = super::super::token_review(&ctx, &me, &review).await.unwrap();
        assert_eq!(found["status"]["user"]["username"], "system:serviceaccount:a:default");
        assert_eq!(found["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
        assert_eq!(found["status"]["audiences"], json!(["https://k"]));
        objects.remove("pods", "a", "p");
        let other = json!({"spec": {"token": token, "audiences": ["https://k", "more"]}});
        assert!(super::super::token_review(&ctx, &me, &other).await.unwrap()["status"]["error"].is_string());
    }

    #[tokio::test]
    async fn wrong_requests_are_refused() {
        let ctx = context(objects());
        let me = UserInfo::authenticated("me", &[]);
        for (name, spec, code) in [
            ("gone", json!({}), 404),
            ("default", json!({"expirationSeconds": 599}), 422),
            ("default", json!({"expirationSeconds": 4_294_967_297_i64}), 422),
            ("default", json!({"boundObjectRef": pod("gone", "")}), 404),
            ("default", json!({"boundObjectRef": pod("p", "old")}), 409),
            ("default", json!({"boundObjectRef": pod("q", "")}), 400),
            ("default", json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Service", "name": "p"}}), 400),
        ] {
            let status = token_request(&ctx, &me, "a", name, &json!({"spec": spec.clone()}), &Warnings::default())
                .await
                .unwrap_err();
            assert_eq!(status.code(), code, "{spec}");
        }
        let other = json!({"metadata": {"uid": "s0"}, "spec": {}});
        assert_eq!(
            token_request(&ctx, &me, "a", "default", &other, &Warnings::default()).await.unwrap_err().code(),
            409
        );
        let body = json!({"metadata": {"uid": "s1"}, "spec": {"audiences": ["vault"]}});
        let answer = token_request(&ctx, &me, "a", "default", &body, &Warnings::default()).await.unwrap();
        assert_eq!(answer["spec"], json!({"audiences": ["vault"], "expirationSeconds": 3600}));
    }
}
