//! What the listener offers in a TLS handshake.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::ResolvesServerCert;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

/// Suites of Go's that this server does not have: those with CBC, RC4, 3DES, or RSA key exchange.
const WEAK: &[&str] = &[
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// The least version that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    #[default]
    Tls12,
    Tls13,
}

impl std::str::FromStr for TlsVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "VersionTLS12" => Ok(Self::Tls12),
            "VersionTLS13" => Ok(Self::Tls13),
            "VersionTLS10" | "VersionTLS11" => {
                Err("this server speaks no TLS before 1.2: use VersionTLS12 or VersionTLS13".to_owned())
            }
            _ => Err(format!("unknown tls version {text:?}: use VersionTLS12 or VersionTLS13")),
        }
    }
}

/// A cipher suite by its name in Go.
#[derive(Clone, Copy, Debug)]
pub struct CipherSuite(SupportedCipherSuite);

impl std::str::FromStr for CipherSuite {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let whole = match name {
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => {
                format!("{name}_SHA256")
            }
            name => name.to_owned(),
        };
        if let Some(suite) = ring::ALL_CIPHER_SUITES.iter().find(|suite| self::name(suite) == whole) {
            return Ok(Self(*suite));
        }
        if !WEAK.contains(&name) {
            return Err(format!("Cipher suite {name} not supported or doesn't exist"));
        }
        let all = ring::ALL_CIPHER_SUITES.iter().map(self::name).collect::<Vec<_>>().join(", ");
        Err(format!("Cipher suite {name} is weak and not supported by this server: use some of {all}"))
    }
}

/// Suites of TLS 1.3 have a mark of the version here that they have nowhere else.
fn name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

/// The flags of the listener's TLS.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    pub min_version: TlsVersion,
    /// Of TLS 1.2; those of 1.3 are all offered, as upstream does. Empty for all.
    pub suites: Vec<CipherSuite>,
}

/// The server's side of TLS: its certificate, and what is asked of clients.
pub fn tls_config(
    certificate: Arc<dyn ResolvesServerCert>,
    clients: Arc<dyn ClientCertVerifier>,
    options: &TlsOptions,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut provider = ring::default_provider();
    let mut versions: Vec<&SupportedProtocolVersion> = vec![&TLS13];
    if !options.suites.is_empty() {
        let chosen = |suite: &SupportedCipherSuite| options.suites.iter().any(|CipherSuite(c)| c == suite);
        provider.cipher_suites.retain(|suite| suite.tls13().is_some() || chosen(suite));
    }
    if options.min_version == TlsVersion::Tls12 && provider.cipher_suites.iter().any(|suite| suite.tls13().is_none()) {
        versions.push(&TLS12);
    }
    let mut config = ServerConfig::builder_with_provider(Arc::<CryptoProvider>::new(provider))
        .with_protocol_versions(&versions)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_suites_have_upstreams_names() {
        for (text, expected) in [
            ("VersionTLS12", Ok(TlsVersion::Tls12)),
            ("VersionTLS13", Ok(TlsVersion::Tls13)),
            ("VersionTLS11", Err("no TLS before 1.2")),
            ("tls1", Err("unknown tls version")),
        ] {
            match (text.parse::<TlsVersion>(), expected) {
                (Ok(version), Ok(expected)) => assert_eq!(version, expected),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
        for (text, expected) in [
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", ""),
            ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", ""),
            ("TLS_AES_256_GCM_SHA384", ""),
            ("TLS_RSA_WITH_AES_128_CBC_SHA", "is weak and not supported by this server: use some of TLS_AES_"),
            ("TLS_X", "Cipher suite TLS_X not supported or doesn't exist"),
        ] {
            let error = text.parse::<CipherSuite>().err().unwrap_or_default();
            assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{text}: {error}");
        }
    }
}
