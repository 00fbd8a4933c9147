//! Service-account tokens.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube1_pki::{ServiceAccountKeyFiles, ServiceAccountKeys, clock};
use serde_json::Value;

use super::x509::CREDENTIAL_ID;
use super::{TokenError, TokenUser, bootstrap_token};
use crate::reader::Reader;
use crate::user::{AUTHENTICATED, UserInfo};

/// Clocks may differ by this much.
const LEEWAY: i64 = 60;
/// How long a token outlives the start of the deletion of what it is bound to.
const DELETION_GRACE: i64 = 60;
pub(super) const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
const USER_PREFIX: &str = "system:serviceaccount:";

/// The flags of service-account tokens.
#[derive(Clone, Debug)]
pub struct ServiceAccountOptions {
    /// Keys beside the cluster's own; followed while the server runs.
    pub key_files: ServiceAccountKeyFiles,
    /// The socket of a service that signs tokens, instead of any key here.
    pub signing_endpoint: Option<PathBuf>,
    /// The first is put into new tokens, all are accepted; without any the name of the API in the cluster.
    pub issuers: Vec<String>,
    /// What tokens for this server are for; the issuers when empty.
    pub api_audiences: Vec<String>,
    /// Where others find the keys; below the issuer if not given.
    pub jwks_uri: Option<String>,
    /// Longest life of a token, of those of pods too.
    pub max_expiration: Option<Duration>,
    /// Whether the tokens of pods, which are renewed every hour, live for a year.
    pub extend_expiration: bool,
}

impl Default for ServiceAccountOptions {
    fn default() -> Self {
        Self {
            key_files: ServiceAccountKeyFiles::default(),
            signing_endpoint: None,
            issuers: Vec::new(),
            api_audiences: Vec::new(),
            jwks_uri: None,
            max_expiration: None,
            extend_expiration: true,
        }
    }
}

/// Verifies the tokens that this cluster signed.
pub struct ServiceAccountTokens {
    keys: Arc<ServiceAccountKeys>,
    issuers: Vec<String>,
    reader: Arc<dyn Reader>,
}

impl ServiceAccountTokens {
    /// Tokens of the first issuer are made here; those of the others are accepted too.
    pub fn new(keys: Arc<ServiceAccountKeys>, issuers: Vec<String>, reader: Arc<dyn Reader>) -> Self {
        Self { keys, issuers, reader }
    }

    /// The user of `token` and those of `audiences` it is meant for; `None` when it is not from one of our issuers.
    pub fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Option<TokenUser>, TokenError> {
        let Some(issuer) = issuer_of(token) else { return Ok(None) };
        let legacy = issuer == LEGACY_ISSUER;
        if !legacy && !self.issuers.contains(&issuer) {
            return Ok(None);
        }
        let claims = self.keys.verify(token)?.claims;
        if legacy {
            return self.legacy(token, &claims, audiences).map(Some);
        }
        check_times(&claims)?;
        let audiences = shared_audiences(&claims["aud"], audiences)?;
        let user = self.bound_user(&claims)?;
        Ok(Some(TokenUser { user: user.into(), audiences, not_after: claims["exp"].as_i64().unwrap_or(0) }))
    }

    fn bound_user(&self, claims: &Value) -> Result<UserInfo, TokenError> {
        let private = &claims["kubernetes.io"];
        let namespace = private["namespace"].as_str().unwrap_or_default();
        let name = private["serviceaccount"]["name"].as_str().unwrap_or_default();
        if claims["sub"] != format!("{USER_PREFIX}{namespace}:{name}") {
            return Err(TokenError::Claims("its subject is not its service account"));
        }
        let mut user = self.account(namespace, name, &private["serviceaccount"]["uid"])?;
        self.check_live("secrets", namespace, &private["secret"])?;
        self.check_live("pods", namespace, &private["pod"])?;
        self.check_live("nodes", "", &private["node"])?;
        let mut add = |key: &str, value: &Value| {
            if let Some(text) = value.as_str().filter(|t| !t.is_empty()) {
                user.extra.insert(key.into(), vec![text.to_owned()]);
            }
        };
        for (kind, parts) in [("pod", ["name", "uid"]), ("node", ["name", "uid"])] {
            for part in parts {
                add(&format!("authentication.kubernetes.io/{kind}-{part}"), &private[kind][part]);
            }
        }
        if let Some(id) = claims["jti"].as_str() {
            user.extra.insert(CREDENTIAL_ID.into(), vec![format!("JTI={id}")]);
        }
        Ok(user)
    }

    fn account(&self, namespace: &str, name: &str, uid: &Value) -> Result<UserInfo, TokenError> {
        let account = self.reader.get("", "serviceaccounts", namespace, name).ok_or(TokenError::NoAccount)?;
        if account["metadata"]["uid"] != *uid || deleted_long_ago(&account) {
            return Err(TokenError::NoAccount);
        }
        Ok(UserInfo {
            name: format!("{USER_PREFIX}{namespace}:{name}"),
            uid: uid.as_str().unwrap_or_default().into(),
            groups: groups(namespace),
            extra: Default::default(),
        })
    }

    /// A reference in the claims, when there is one, must be to an object that is still the same.
    fn check_live(&self, plural: &'static str, namespace: &str, reference: &Value) -> Result<(), TokenError> {
        let Some(name) = reference["name"].as_str() else { return Ok(()) };
        let live = self.reader.get("", plural, namespace, name);
        match live {
            Some(object) if object["metadata"]["uid"] == reference["uid"] && !deleted_long_ago(&object) => Ok(()),
            _ => Err(TokenError::BoundObjectGone(plural)),
        }
    }

    /// A token kept in a Secret, which never expires but must still be there.
    fn legacy(&self, token: &str, claims: &Value, audiences: &[String]) -> Result<TokenUser, TokenError> {
        let claim = |key: &str| claims[format!("kubernetes.io/serviceaccount/{key}")].as_str().unwrap_or_default();
        let namespace = claim("namespace");
        let secret = self
            .reader
            .get("", "secrets", namespace, claim("secret.name"))
            .ok_or(TokenError::BoundObjectGone("secrets"))?;
        let held = bootstrap_token::data(&secret, "token").unwrap_or_default();
        let invalidated = !secret["metadata"]["labels"]["kubernetes.io/legacy-token-invalid-since"].is_null();
        if !bootstrap_token::constant_time_equal(held.as_bytes(), token.as_bytes())
            || invalidated
            || !secret["metadata"]["deletionTimestamp"].is_null()
        {
            return Err(TokenError::BoundObjectGone("secrets"));
        }
        let uid = Value::from(claim("service-account.uid"));
        let user = self.account(namespace, claim("service-account.name"), &uid)?;
        Ok(TokenUser { user: user.into(), audiences: audiences.to_vec(), not_after: i64::MAX })
    }
}

/// The groups of a service account of `namespace`.
pub fn groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}"), AUTHENTICATED.into()]
}

/// The issuer a JSON web token claims, not verified.
pub(super) fn issuer_of(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Value = serde_json::from_slice(&bytes).ok()?;
    claims["iss"].as_str().map(str::to_owned)
}

/// Checks `exp` and `nbf` against the clock.
pub(super) fn check_times(claims: &Value) -> Result<(), TokenError> {
    let now = clock::unix_now();
    let number = |key: &str| claims[key].as_f64().map(|seconds| seconds as i64);
    if number("exp").is_none_or(|end| now > end.saturating_add(LEEWAY)) {
        return Err(TokenError::Expired);
    }
    if number("nbf").is_some_and(|start| now < start.saturating_sub(LEEWAY)) {
        return Err(TokenError::NotYetValid);
    }
    Ok(())
}

/// The audiences a token and its recipient have in common; at least one.
pub(super) fn shared_audiences(claim: &Value, wanted: &[String]) -> Result<Vec<String>, TokenError> {
    let has = |audience: &str| match claim {
        Value::String(one) => one == audience,
        Value::Array(many) => many.iter().any(|a| a == audience),
        _ => false,
    };
    let shared: Vec<String> = wanted.iter().filter(|a| has(a)).cloned().collect();
    if shared.is_empty() { Err(TokenError::Audience) } else { Ok(shared) }
}

fn deleted_long_ago(object: &Value) -> bool {
    let deleted = object["metadata"]["deletionTimestamp"].as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok());
    deleted.is_some_and(|at| at.as_second() < clock::unix_now() - DELETION_GRACE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use kube1_pki::PrivateKey;
    use serde_json::json;

    use super::*;
    use crate::reader::testing::Objects;

    fn claims(change: impl FnOnce(&mut Value)) -> Value {
        let mut claims = json!({"iss": "https://k", "aud": ["https://k", "vault"], "sub": "system:serviceaccount:a:default",
            "exp": clock::unix_now() + 600, "nbf": clock::unix_now(), "jti": "id",
            "kubernetes.io": {"namespace": "a", "serviceaccount": {"name": "default", "uid": "s1"},
                "pod": {"name": "p", "uid": "p1"}, "node": {"name": "n", "uid": "n1"}}});
        change(&mut claims);
        claims
    }

    fn objects() -> Arc<Objects> {
        let objects = Arc::new(Objects::default());
        for (plural, namespace, name, uid) in
            [("serviceaccounts", "a", "default", "s1"), ("pods", "a", "p", "p1"), ("nodes", "", "n", "n1")]
        {
            objects.put(plural, json!({"metadata": {"namespace": namespace, "name": name, "uid": uid}}));
        }
        objects
    }

    #[test]
    fn a_token_lives_as_long_as_its_objects_and_is_for_its_audiences() {
        let keys = Arc::new(ServiceAccountKeys::new(PrivateKey::generate().unwrap()));
        let objects = objects();
        let tokens = ServiceAccountTokens::new(keys.clone(), vec!["https://k".into()], objects.clone());
        let ask =
            |claims: Value, audience: &str| tokens.authenticate(&keys.sign(&claims).unwrap(), &[audience.to_owned()]);
        let found = ask(claims(|_| ()), "https://k").unwrap().unwrap();
        assert_eq!((found.user.name.as_str(), found.user.uid.as_str()), ("system:serviceaccount:a:default", "s1"));
        assert_eq!(found.user.groups[1], "system:serviceaccounts:a");
        assert_eq!(found.user.extra["authentication.kubernetes.io/node-name"], ["n"]);
        assert_eq!(found.user.extra[CREDENTIAL_ID], ["JTI=id"]);
        assert_eq!(ask(claims(|_| ()), "vault").unwrap().unwrap().audiences, ["vault"]);
        for (change, expected) in [
            (Box::new(|c: &mut Value| c["aud"] = "x".into()) as Box<dyn FnOnce(&mut Value)>, TokenError::Audience),
            (Box::new(|c| c["exp"] = (clock::unix_now() - 120).into()), TokenError::Expired),
            (Box::new(|c| c["exp"] = Value::Null), TokenError::Expired),
            (Box::new(|c| c["nbf"] = (clock::unix_now() + 120).into()), TokenError::NotYetValid),
            (Box::new(|c| c["kubernetes.io"]["serviceaccount"]["uid"] = "old".into()), TokenError::NoAccount),
            (Box::new(|c| c["kubernetes.io"]["pod"]["uid"] = "old".into()), TokenError::BoundObjectGone("pods")),
            (Box::new(|c| c["kubernetes.io"]["node"]["name"] = "m".into()), TokenError::BoundObjectGone("nodes")),
            (
                Box::new(|c| c["sub"] = "system:serviceaccount:kube-system:x".into()),
                TokenError::Claims("its subject is not its service account"),
            ),
        ] {
            assert_eq!(ask(claims(change), "https://k").unwrap_err(), expected);
        }
        assert!(ask(claims(|c| c["iss"] = "https://other".into()), "https://k").unwrap().is_none());
        let foreign = ServiceAccountKeys::new(PrivateKey::generate().unwrap()).sign(&claims(|_| ())).unwrap();
        assert!(matches!(tokens.authenticate(&foreign, &[]), Err(TokenError::Signature(_))));
        objects.remove("pods", "a", "p");
        assert_eq!(ask(claims(|_| ()), "https://k").unwrap_err(), TokenError::BoundObjectGone("pods"));
    }

    #[test]
    fn a_secret_token_needs_its_secret() {
        let keys = Arc::new(ServiceAccountKeys::new(PrivateKey::generate().unwrap()));
        let objects = objects();
        let tokens = ServiceAccountTokens::new(keys.clone(), vec!["https://k".into()], objects.clone());
        let token = keys
            .sign(&json!({"iss": LEGACY_ISSUER, "kubernetes.io/serviceaccount/namespace": "a",
                "kubernetes.io/serviceaccount/secret.name": "t", "kubernetes.io/serviceaccount/service-account.name": "default",
                "kubernetes.io/serviceaccount/service-account.uid": "s1"}))
            .unwrap();
        let audiences = ["https://k".to_owned()];
        assert_eq!(tokens.authenticate(&token, &audiences).unwrap_err(), TokenError::BoundObjectGone("secrets"));
        let text = base64::engine::general_purpose::STANDARD.encode(&token);
        objects.put("secrets", json!({"metadata": {"namespace": "a", "name": "t"}, "data": {"token": text}}));
        assert_eq!(tokens.authenticate(&token, &audiences).unwrap().unwrap().user.uid, "s1");
    }
}
