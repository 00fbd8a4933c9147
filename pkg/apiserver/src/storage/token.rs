//! The opaque token with which a list goes on.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube1_api::status::Status;
use serde::{Deserialize, Serialize};

const VERSION: &str = "meta.k8s.io/v1";
/// Revision in tokens that go on with whatever is newest.
const NEWEST: i64 = -1;

#[derive(Debug, Deserialize, Serialize)]
struct Encoded {
    v: String,
    rv: i64,
    start: String,
}

/// Where a list goes on and in which state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// `None`: the newest state.
    pub revision: Option<u64>,
    /// Namespace and name of the last object that was sent.
    pub namespace: String,
    pub name: String,
}

impl Token {
    pub fn encode(&self) -> String {
        let key =
            if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) };
        let rv = self.revision.map_or(NEWEST, |r| i64::try_from(r).unwrap_or(i64::MAX));
        let encoded = Encoded { v: VERSION.into(), rv, start: format!("{key}\0") };
        // A struct of strings and numbers always encodes.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&encoded).unwrap_or_default())
    }

    pub fn decode(text: &str) -> Result<Self, Status> {
        let bad = |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|e| bad(&e.to_string()))?;
        let token: Encoded = serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))?;
        if token.v != VERSION {
            return Err(bad("server does not recognize this encoded version"));
        }
        if token.rv == 0 {
            return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        let key = token.start.strip_suffix('\0').ok_or_else(|| bad("encoded start key empty or invalid"))?;
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        Ok(Self { revision: u64::try_from(token.rv).ok(), namespace: namespace.into(), name: name.into() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_trip() {
        for (revision, namespace, name) in [(Some(7), "ns", "a.b"), (None, "", "node")] {
            let token = Token { revision, namespace: namespace.into(), name: name.into() };
            assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        }
        for text in ["%", "e30", ""] {
            assert_eq!(Token::decode(text).unwrap_err().code(), 400);
        }
    }
}
