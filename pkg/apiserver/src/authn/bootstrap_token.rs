//! Bootstrap tokens: Secrets of kube-system that let nodes ask for their first certificate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube1_pki::clock;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::TokenError;
use crate::reader::Reader;
use crate::user::{AUTHENTICATED, UserInfo};

const GROUP: &str = "system:bootstrappers";
/// Hex SHA-256 of the secret, in place of `token-secret`.
const SECRET_HASH: &str = "token-secret-sha256";

/// The user of `token`; `None` when it does not have the form `id.secret` of bootstrap tokens.
pub fn authenticate(token: &str, reader: &dyn Reader) -> Result<Option<UserInfo>, TokenError> {
    let Some((id, secret)) = parse(token) else { return Ok(None) };
    let name = format!("bootstrap-token-{id}");
    let found = reader.get("", "secrets", "kube-system", &name).ok_or(TokenError::UnknownBootstrapToken)?;
    let field = |key: &str| data(&found, key).unwrap_or_default();
    // Our own tokens are kept as a hash; other tools write the secret itself.
    let same_secret = match field(SECRET_HASH).as_str() {
        "" => constant_time_equal(field("token-secret").as_bytes(), secret.as_bytes()),
        hash => constant_time_equal(hash.as_bytes(), hex::encode(Sha256::digest(secret)).as_bytes()),
    };
    if found["type"] != "bootstrap.kubernetes.io/token" || !same_secret || field("token-id") != id {
        return Err(TokenError::UnknownBootstrapToken);
    }
    if !found["metadata"]["deletionTimestamp"].is_null() || is_expired(&field("expiration")) {
        return Err(TokenError::Expired);
    }
    if field("usage-bootstrap-authentication") != "true" {
        return Err(TokenError::UnknownBootstrapToken);
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in field("auth-extra-groups").split(',').map(str::trim).filter(|g| !g.is_empty()) {
        if !group.strip_prefix("system:bootstrappers:").is_some_and(is_group_tail) {
            return Err(TokenError::UnknownBootstrapToken);
        }
        groups.push(group.to_owned());
    }
    groups.push(AUTHENTICATED.into());
    Ok(Some(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() }))
}

fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

fn is_group_tail(tail: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    tail.len() <= 256
        && tail.bytes().last().is_some_and(plain)
        && tail.bytes().all(|b| plain(b) || b == b':' || b == b'-')
}

/// An expiration that does not parse counts as expired, as upstream does.
fn is_expired(expiration: &str) -> bool {
    !expiration.is_empty()
        && expiration.parse::<jiff::Timestamp>().map_or(true, |at| at.as_second() <= clock::unix_now())
}

/// A decoded member of a Secret's data.
pub(super) fn data(secret: &Value, key: &str) -> Option<String> {
    let bytes = STANDARD.decode(secret["data"][key].as_str()?).ok()?;
    String::from_utf8(bytes).ok()
}

/// Compares without telling by its duration where the first difference is.
pub(super) fn constant_time_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reader::testing::Objects;

    fn secret(change: (&str, &str)) -> Value {
        let mut data = json!({"token-id": "abcdef", "token-secret": "0123456789abcdef", "expiration": "2099-01-01T00:00:00Z",
            "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:kube1:default-node-token"});
        data[change.0] = change.1.into();
        let data: Value = data
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), Value::from(STANDARD.encode(v.as_str().unwrap()))))
            .collect();
        json!({"metadata": {"namespace": "kube-system", "name": "bootstrap-token-abcdef"}, "data": data,
            "type": "bootstrap.kubernetes.io/token"})
    }

    #[test]
    fn only_a_live_token_with_the_right_secret_is_a_user() {
        let objects = Objects::default();
        let ask = |token: &str| authenticate(token, &objects);
        let token = "abcdef.0123456789abcdef";
        assert!(matches!(ask(token), Err(TokenError::UnknownBootstrapToken)));
        assert!(ask("not-a-bootstrap-token").unwrap().is_none());
        for (change, expected) in [
            (("x", ""), None),
            (("token-secret", "0123456789abcdeg"), Some(TokenError::UnknownBootstrapToken)),
            (("expiration", "2020-01-01T00:00:00Z"), Some(TokenError::Expired)),
            (("expiration", "soon"), Some(TokenError::Expired)),
            (("usage-bootstrap-authentication", "false"), Some(TokenError::UnknownBootstrapToken)),
            (("auth-extra-groups", "system:masters"), Some(TokenError::UnknownBootstrapToken)),
            ((SECRET_HASH, "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f"), None),
            ((SECRET_HASH, "0123456789abcdef"), Some(TokenError::UnknownBootstrapToken)),
        ] {
            objects.put("secrets", secret(change));
            assert_eq!(ask(token).err(), expected, "{change:?}");
        }
        objects.put("secrets", secret(("expiration", "")));
        let user = ask(token).unwrap().unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups[..2], ["system:bootstrappers", "system:bootstrappers:kube1:default-node-token"]);
    }
}
