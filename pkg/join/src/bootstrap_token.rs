//! Bootstrap tokens on the server's side: Secrets of kube-system.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube1_pki::clock;
use sha2::{Digest, Sha256};

use crate::{JoinError, JoinToken};

/// Group that the tokens of joining nodes are in.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers:kube1:default-node-token";

const NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const NAME_PREFIX: &str = "bootstrap-token-";

/// A token to be made.
#[derive(Clone, Debug, Default)]
pub struct NewToken {
    pub description: String,
    /// Without one the token does not expire.
    pub ttl: Option<Duration>,
    /// `HOST:PORT` of the servers that nodes shall join.
    pub servers: Vec<String>,
    pub ca_hash: String,
}

/// What is shown of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    pub id: String,
    pub description: String,
    /// RFC 3339; none when it does not expire.
    pub expires: Option<String>,
    pub is_expired: bool,
    /// Whether nodes may join with it; other tools keep tokens for other purposes.
    pub for_joining: bool,
}

/// Makes a token and stores it.
pub async fn create_token(client: &kube::Client, new: &NewToken) -> Result<JoinToken, JoinError> {
    let (id, secret) = JoinToken::random();
    let expires = new.ttl.map(|ttl| clock::unix_now() + i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX / 2));
    let object = token_secret(&id, &secret, &new.description, expires);
    secrets(client).create(&PostParams::default(), &object).await?;
    Ok(JoinToken { servers: new.servers.clone(), ca_hash: new.ca_hash.clone(), id, secret, expires })
}

/// The Secret of a token; `expires` in seconds since 1970. It holds a hash, so that reading it lets nobody join.
pub fn token_secret(id: &str, secret: &str, description: &str, expires: Option<i64>) -> Secret {
    let hash = hex::encode(Sha256::digest(secret));
    let mut data = BTreeMap::new();
    for (key, value) in [
        ("token-id", id),
        ("token-secret-sha256", hash.as_str()),
        ("description", description),
        ("auth-extra-groups", BOOTSTRAPPERS),
        ("usage-bootstrap-authentication", "true"),
    ] {
        if !value.is_empty() {
            data.insert(key.to_owned(), value.to_owned());
        }
    }
    if let Some(at) = expires.and_then(|at| jiff::Timestamp::from_second(at).ok()) {
        data.insert("expiration".into(), at.to_string());
    }
    Secret {
        metadata: ObjectMeta {
            name: Some(format!("{NAME_PREFIX}{id}")),
            namespace: Some(NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        type_: Some(SECRET_TYPE.into()),
        string_data: Some(data),
        ..Secret::default()
    }
}

/// All tokens, by id.
pub async fn list_tokens(client: &kube::Client) -> Result<Vec<TokenInfo>, JoinError> {
    let params = ListParams::default().fields(&format!("type={SECRET_TYPE}"));
    let mut found: Vec<TokenInfo> = secrets(client).list(&params).await?.iter().filter_map(describe).collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

/// Deletes a token, so that nobody can join with it any more. Nodes that have joined stay.
pub async fn delete_token(client: &kube::Client, id: &str) -> Result<(), JoinError> {
    // People paste what they have: the whole token names its id too.
    let id = id.parse::<JoinToken>().map_or_else(|_| id.to_owned(), |token| token.id);
    let id = id.split('.').next().unwrap_or_default();
    if id.len() != 6 || !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Err(JoinError::TokenId(id.to_owned()));
    }
    match secrets(client).delete(&format!("{NAME_PREFIX}{id}"), &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(JoinError::NoSuchToken(id.to_owned())),
        Err(error) => Err(error.into()),
    }
}

fn secrets(client: &kube::Client) -> Api<Secret> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn describe(secret: &Secret) -> Option<TokenInfo> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?;
        String::from_utf8(bytes.0.clone()).ok()
    };
    let expires = text("expiration");
    let end = expires.as_deref().map(|at| at.parse::<jiff::Timestamp>().map_or(0, |at| at.as_second()));
    Some(TokenInfo {
        id: text("token-id").or_else(|| secret.metadata.name.as_ref()?.strip_prefix(NAME_PREFIX).map(str::to_owned))?,
        description: text("description").unwrap_or_default(),
        is_expired: end.is_some_and(|end| end <= clock::unix_now()),
        expires,
        for_joining: text("auth-extra-groups")
            .is_some_and(|groups| groups.split(',').any(|g| g.trim() == BOOTSTRAPPERS))
            && text("usage-bootstrap-authentication").as_deref() == Some("true"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn a_stored_token_is_described_without_its_secret() {
        let mut secret = token_secret("abcdef", "0123456789abcdef", "for the lab", Some(1_000_000_000));
        let data = secret.string_data.take().unwrap();
        assert!(data.values().all(|value| !value.contains("0123456789abcdef")), "{data:?}");
        secret.data = Some(data.into_iter().map(|(k, v)| (k, ByteString(v.into_bytes()))).collect());
        assert_eq!(
            describe(&secret).unwrap(),
            TokenInfo {
                id: "abcdef".into(),
                description: "for the lab".into(),
                expires: Some("2001-09-09T01:46:40Z".into()),
                is_expired: true,
                for_joining: true,
            }
        );
        secret.data.as_mut().unwrap().remove("expiration");
        assert!(!describe(&secret).unwrap().is_expired);
    }
}
