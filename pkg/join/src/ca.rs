//! Fetching the cluster's CA from a server that cannot be verified yet, and checking it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, DATE, HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use kube1_pki::{AnyServer, certificates_from_pem, clock, to_pem};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::{JoinError, JoinToken, Servers};

const BUNDLE_BYTES_MAX: usize = 256 * 1024;
/// Certificates are dated back by a day, so a clock may be behind by nearly that.
const SKEW_MAX: i64 = 23 * 3600;
/// From here on a difference is worth a warning.
const SKEW_NOTED: i64 = 300;

/// The PEM of the CA certificate that the token's hash names, from the first server that answers.
///
/// Cancel-safe. The answer is not trusted in any other way: what does not have that hash is refused.
pub async fn fetch_ca(token: &JoinToken) -> Result<String, JoinError> {
    let servers = Servers::new(token.servers.iter().cloned());
    let tls = crate::servers::tls_with_verifier(Arc::new(AnyServer))?;
    let (server, stream) = servers
        .connect(&tls)
        .await
        .map_err(|source| JoinError::Unreachable { servers: token.servers.join(", "), source })?;
    let strange = |reason: String| JoinError::NotAServer { server: server.clone(), reason };
    let answer = get_cacerts(TokioIo::new(stream), &server);
    let (date, body) = tokio::time::timeout(std::time::Duration::from_secs(10), answer)
        .await
        .map_err(|_| strange("no answer within 10 s".into()))?
        .map_err(strange)?;
    check_clock(date.as_deref())?;
    verify_ca(&body, &token.ca_hash).map_err(|found| match found {
        Some(found) => JoinError::WrongAuthority { server, found, expected: token.ca_hash.clone() },
        None => JoinError::NotAServer { server, reason: "no certificate in its answer".into() },
    })
}

/// The certificate of `bundle` with this hash, in PEM; else the hash of the first one, if there is one.
pub fn verify_ca(bundle: &str, hash: &str) -> Result<String, Option<String>> {
    let certificates = certificates_from_pem(bundle).map_err(|_| None)?;
    let hash_of = |der: &CertificateDer<'_>| hex::encode(Sha256::digest(der));
    match certificates.iter().find(|der| hash_of(der) == hash) {
        Some(der) => Ok(to_pem("CERTIFICATE", der)),
        None => Err(certificates.first().map(hash_of)),
    }
}

type Stream = TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

/// `GET /cacerts`: the Date header and the text.
async fn get_cacerts(stream: Stream, host: &str) -> Result<(Option<String>, String), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(|e| text(&e))?;
    let request = http::Request::get("/cacerts")
        .header(HOST, host)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| text(&e))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| text(&e))?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("status {}", response.status()));
        }
        let date = response.headers().get(DATE).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), BUNDLE_BYTES_MAX).collect().await.map_err(|e| text(&e))?;
        let body = String::from_utf8(body.to_bytes().into()).map_err(|e| text(&e))?;
        Ok((date, body))
    };
    tokio::pin!(exchange);
    tokio::select! {
        done = &mut exchange => done,
        // The connection's part may be over before the answer is read.
        _ = connection => exchange.await,
    }
}

fn check_clock(date: Option<&str>) -> Result<(), JoinError> {
    let parsed = date.and_then(|d| jiff::fmt::rfc2822::parse(d).ok());
    let Some(server) = parsed.map(|at| at.timestamp().as_second()) else { return Ok(()) };
    let ahead = clock::unix_now() - server;
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    let seconds = ahead.abs();
    if seconds > SKEW_MAX {
        return Err(JoinError::ClockSkew { seconds, direction });
    }
    if seconds > SKEW_NOTED {
        tracing::warn!(seconds, "this node's clock is {direction} the server's; set it, or tokens may not be accepted");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use kube1_pki::Authority;

    use super::*;

    #[test]
    fn only_the_certificate_with_the_hash_is_taken() {
        let (a, b) = (Authority::create("a").unwrap(), Authority::create("b").unwrap());
        let bundle = format!("{}{}", a.certificate_pem(), b.certificate_pem());
        assert_eq!(verify_ca(&bundle, &b.hash()).unwrap(), b.certificate_pem());
        assert_eq!(verify_ca(a.certificate_pem(), &b.hash()).unwrap_err(), Some(a.hash()));
        assert_eq!(verify_ca("<html>", &b.hash()).unwrap_err(), None);
    }

    #[test]
    fn a_wrong_clock_is_named() {
        let at = |ahead: i64| {
            let server = jiff::Timestamp::from_second(clock::unix_now() - ahead).unwrap();
            check_clock(Some(&jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&server).unwrap()))
        };
        at(0).unwrap();
        at(-3600).unwrap();
        assert!(matches!(at(2 * 24 * 3600), Err(JoinError::ClockSkew { direction: "ahead of", .. })));
        assert!(matches!(at(-2 * 24 * 3600), Err(JoinError::ClockSkew { direction: "behind", .. })));
        check_clock(Some("nonsense")).unwrap();
    }
}
