//! The one string by which a node joins.

use std::fmt;
use std::str::FromStr;

use rand::Rng;

const SCHEME: &str = "kube1://";
const DEFAULT_PORT: &str = "6443";
const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A join token: `kube1://ID.SECRET@HOST:PORT[,HOST:PORT...]/HASH[/EXPIRY]`.
///
/// HASH is the hex SHA-256 of the CA certificate (DER); EXPIRY, in seconds since 1970, is only for better messages: the
/// servers decide.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// `HOST:PORT`, any of which may be down.
    pub servers: Vec<String>,
    pub ca_hash: String,
    pub id: String,
    pub secret: String,
    pub expires: Option<i64>,
}

/// What is wrong with a text that should be a join token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenParseError {
    #[error(
        "the join token must begin with {SCHEME}: copy the whole line that `kube1 token create` printed on a server"
    )]
    Scheme,
    #[error("the join token is incomplete: copy the whole line that `kube1 token create` printed on a server")]
    Incomplete,
    #[error("the join token names no usable server address: {0:?} is not HOST:PORT")]
    Server(String),
    #[error("the join token's hash of the CA is not 64 hexadecimal digits: it was probably cut off")]
    Hash,
    #[error("the join token's id and secret are not six and sixteen lower-case letters or digits")]
    Secret,
}

impl JoinToken {
    /// What the API server takes as a bearer token.
    pub fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// A new random id and secret.
    pub fn random() -> (String, String) {
        (random_text(6), random_text(16))
    }
}

fn random_text(length: usize) -> String {
    let mut random = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}

impl FromStr for JoinToken {
    type Err = TokenParseError;

    fn from_str(text: &str) -> Result<Self, TokenParseError> {
        let rest = text.trim().strip_prefix(SCHEME).ok_or(TokenParseError::Scheme)?;
        let (credential, rest) = rest.split_once('@').ok_or(TokenParseError::Incomplete)?;
        let (servers, rest) = rest.split_once('/').ok_or(TokenParseError::Incomplete)?;
        let (hash, expires) = rest.split_once('/').map_or((rest, None), |(hash, at)| (hash, Some(at)));
        if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(TokenParseError::Hash);
        }
        let (id, secret) = credential.split_once('.').ok_or(TokenParseError::Secret)?;
        let plain = |text: &str| text.bytes().all(|b| ALPHABET.contains(&b));
        if id.len() != 6 || secret.len() != 16 || !plain(id) || !plain(secret) {
            return Err(TokenParseError::Secret);
        }
        Ok(Self {
            servers: servers.split(',').map(address).collect::<Result<_, _>>()?,
            ca_hash: hash.to_ascii_lowercase(),
            id: id.into(),
            secret: secret.into(),
            expires: match expires {
                Some(at) => Some(at.parse().map_err(|_| TokenParseError::Incomplete)?),
                None => None,
            },
        })
    }
}

/// A server's address with its port.
fn address(text: &str) -> Result<String, TokenParseError> {
    let bad = || TokenParseError::Server(text.to_owned());
    let has_port = text.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let full = if has_port { text.to_owned() } else { format!("{text}:{DEFAULT_PORT}") };
    let parsed: http::uri::Authority = full.parse().map_err(|_| bad())?;
    // An authority may have anything between the brackets and the port.
    let plain = parsed.port().is_some_and(|port| full == format!("{}:{port}", parsed.host()));
    if parsed.host().is_empty() || !plain || parsed.port_u16().is_none() {
        return Err(bad());
    }
    Ok(full)
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}.{}@{}/{}", self.id, self.secret, self.servers.join(","), self.ca_hash)?;
        match self.expires {
            Some(at) => write!(f, "/{at}"),
            None => Ok(()),
        }
    }
}

/// Without the secret, which must not get into logs.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).field("servers", &self.servers).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_copied() {
        let (id, secret) = JoinToken::random();
        let servers = vec!["10.0.0.1:6443".into(), "[fd00::1]:6443".into(), "kube.example.com:443".into()];
        let token = JoinToken { servers, ca_hash: "ab".repeat(32), id, secret, expires: Some(1_800_000_000) };
        assert_eq!(format!(" {token}\n").parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains(&token.secret));
        let endless = JoinToken { expires: None, ..token };
        assert_eq!(endless.to_string().parse::<JoinToken>().unwrap(), endless);
    }

    #[test]
    fn a_damaged_token_says_what_is_wrong() {
        let hash = "ab".repeat(32);
        for (text, expected) in [
            ("10.0.0.1".to_owned(), TokenParseError::Scheme),
            ("kube1://abcdef.0123456789abcdef".to_owned(), TokenParseError::Incomplete),
            (format!("kube1://abcdef.0123456789abcdef@10.0.0.1:6443/{}", &hash[..40]), TokenParseError::Hash),
            (format!("kube1://abc.0123456789abcdef@10.0.0.1:6443/{hash}"), TokenParseError::Secret),
            (format!("kube1://abcdef.0123456789ABCDEF@10.0.0.1:6443/{hash}"), TokenParseError::Secret),
            (
                format!("kube1://abcdef.0123456789abcdef@10.0.0.1:x/{hash}"),
                TokenParseError::Server("10.0.0.1:x".into()),
            ),
            (format!("kube1://abcdef.0123456789abcdef@/{hash}"), TokenParseError::Server(String::new())),
        ] {
            assert_eq!(text.parse::<JoinToken>().unwrap_err(), expected, "{text}");
        }
        let text = format!("kube1://abcdef.0123456789abcdef@10.0.0.1,fd00::1/{hash}");
        let parsed = text.parse::<JoinToken>();
        assert_eq!(parsed.unwrap_err(), TokenParseError::Server("fd00::1".into()), "an IPv6 address needs brackets");
    }
}
