//! Identities and credentials as hostile clients send them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use super::jwt::keys::{KeySet, Signed};
use super::{
    Authorities, ProxyHeaders, TokenError, Trust, TrustOptions, bootstrap_token, impersonation, request_header,
    service_account, x509,
};
use crate::reader::Reader;

struct Nothing;

impl Reader for Nothing {
    fn get(&self, _group: &str, _plural: &str, _namespace: &str, _name: &str) -> Option<Value> {
        None
    }
}

/// `Impersonate-*` and `X-Remote-*`.
pub fn headers(headers: &HeaderMap) {
    let _ = impersonation::requested(headers);
    let _ = request_header::user(headers, &ProxyHeaders::default());
}

/// The bytes as a token of any kind, as its claims, as keys and as a certificate.
pub fn credentials(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let claims = URL_SAFE_NO_PAD.encode(data);
    for token in [text.as_ref(), &format!("eyJhbGciOiJFUzI1NiJ9.{claims}.AAAA"), &format!("{claims}.{claims}.{claims}")]
    {
        token_of_any_kind(token, data);
    }
    let _ = Authorities::from_pem(&text);
    let certificate = CertificateDer::from(data.to_vec());
    let _ = x509::user_of(&certificate);
    if let Ok(trust) = Trust::open(&text, None, TrustOptions::default()) {
        let _ = trust.peer(&[certificate]);
    }
}

fn token_of_any_kind(token: &str, data: &[u8]) {
    assert_ne!(
        bootstrap_token::authenticate(token, &Nothing).ok().flatten().map(|user| user.name),
        Some(String::new())
    );
    let _ = service_account::issuer_of(token);
    let keys = KeySet::from_jwks(&serde_json::from_slice(data).unwrap_or_default());
    let Some(signed) = Signed::parse(token) else { return };
    let known = keys.knows(&signed);
    assert!(!keys.verify(&signed) || known, "a key made the signature that is not known");
    let _: Result<(), TokenError> = service_account::check_times(&signed.claims);
    let _ = service_account::shared_audiences(&signed.claims["aud"], &["a".to_owned()]);
}
