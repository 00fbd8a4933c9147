//! Resources that are answered rather than stored: reviews of tokens and permissions, and token requests.
//!
//! Each function takes a decoded body and gives the object of the response. Permission to create the review itself is
//! checked by the caller.

mod access;
mod identity;
mod rules;
mod token_request;

use std::sync::Arc;

use kube1_pki::ServiceAccountKeys;
use serde_json::{Map, Value, json};

pub use access::{local_subject_access_review, self_subject_access_review, subject_access_review};
pub use identity::{openid_configuration, self_subject_review, token_review};
pub use rules::self_subject_rules_review;
pub use token_request::token_request;

use crate::authn::{Authenticator, ExternalSigner, ServiceAccountOptions};
use crate::authz::Authorizer;
use crate::reader::Reader;
use crate::user::UserInfo;

/// What reviews are answered from.
pub struct Context {
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub reader: Arc<dyn Reader>,
    pub service_account_keys: Arc<ServiceAccountKeys>,
    /// Signs new tokens instead of those keys.
    pub signer: Option<Arc<ExternalSigner>>,
    /// Issuer of new tokens.
    pub issuer: String,
    pub tokens: ServiceAccountOptions,
}

/// A user as the API writes it.
fn user_json(user: &UserInfo) -> Value {
    let mut out = Map::new();
    out.insert("username".into(), user.name.clone().into());
    if !user.uid.is_empty() {
        out.insert("uid".into(), user.uid.clone().into());
    }
    if !user.groups.is_empty() {
        out.insert("groups".into(), user.groups.clone().into());
    }
    if !user.extra.is_empty() {
        out.insert("extra".into(), json!(user.extra));
    }
    out.into()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// The body as the answer's beginning: what the client said, without status.
fn answer(body: &Value) -> Value {
    let mut out = body.clone();
    if !out["metadata"].is_object() {
        out["metadata"] = json!({});
    }
    out["status"] = json!({});
    out
}

fn now() -> String {
    let now = jiff::Timestamp::from_second(kube1_pki::clock::unix_now()).unwrap_or_default();
    now.to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing {
    use async_trait::async_trait;
    use kube1_pki::{Authority, PrivateKey};

    use super::*;
    use crate::authn::{Config, Trust, TrustOptions};
    use crate::authz::{Decision, Rule, Rules};
    use crate::reader::testing::Objects;
    use crate::request_info::RequestInfo;

    /// Lets alice get everything in namespace `a`, and denies namespace `secret`.
    pub struct Alice;

    #[async_trait]
    impl Authorizer for Alice {
        async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
            match (user.name.as_str(), request.verb.as_str(), request.namespace.as_str()) {
                (_, _, "secret") => Decision::Deny("hidden".into()),
                ("alice", "get", "a") => Decision::Allow,
                _ => Decision::NoOpinion(request.field_selector.clone()),
            }
        }

        async fn rules(&self, _: &UserInfo, _: &str) -> Rules {
            let paths = Rule { verbs: vec!["get".into()], non_resource_urls: vec!["/x".into()], ..Rule::default() };
            Rules { rules: vec![Rule::resources(&["get"], &[""], &["pods"], &[]), paths], ..Rules::default() }
        }
    }

    pub fn context(objects: Arc<Objects>) -> Context {
        let ca = Authority::create("a").unwrap();
        let keys = Arc::new(ServiceAccountKeys::new(PrivateKey::generate().unwrap()));
        let authenticator = Authenticator::new(Config {
            trust: Trust::open(ca.certificate_pem(), None, TrustOptions::default()).unwrap(),
            service_account_keys: keys.clone(),
            signer: None,
            issuers: vec!["https://k".into()],
            api_audiences: vec![],
            outside: crate::authn::Outside::none(),
            reader: objects.clone(),
        });
        Context {
            authenticator: Arc::new(authenticator),
            authorizer: Arc::new(Alice),
            reader: objects,
            service_account_keys: keys,
            signer: None,
            issuer: "https://k".into(),
            tokens: ServiceAccountOptions::default(),
        }
    }
}
