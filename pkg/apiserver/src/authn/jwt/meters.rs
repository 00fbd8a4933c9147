//! Metrics of outside issuers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::metrics::{Gauges, Histograms, Registrar};
use crate::reload::server_hash;

const TIMES: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What is measured of issuers, under upstream's names. Issuers and keys are told by hashes. Cheap to clone.
#[derive(Clone)]
pub struct JwtMetrics {
    times: Histograms,
    fetched: Gauges,
    keys: Gauges,
    /// The hash of each issuer's keys, by issuer.
    current: Arc<Mutex<HashMap<String, String>>>,
    server: String,
}

impl Default for JwtMetrics {
    /// Metrics that nobody reads.
    fn default() -> Self {
        Self::new(&mut Registrar::default())
    }
}

fn hash(data: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(data)))
}

impl JwtMetrics {
    pub fn new(r: &mut Registrar) -> Self {
        let name = |name: &str| format!("apiserver_authentication_jwt_authenticator_{name}");
        Self {
            times: r.histograms(
                &name("latency_seconds"),
                "Latency of jwt authentication operations in seconds",
                &["result", "jwt_issuer_hash"],
                TIMES,
            ),
            fetched: r.gauges(
                &name("jwks_fetch_last_timestamp_seconds"),
                "Timestamp of the last successful or failed JWKS fetch",
                &["result", "jwt_issuer_hash", "apiserver_id_hash"],
            ),
            keys: r.gauges(
                &name("jwks_fetch_last_key_set_info"),
                "Information about the last JWKS fetched by the JWT authenticator with hash as label",
                &["jwt_issuer_hash", "apiserver_id_hash", "hash"],
            ),
            current: Arc::default(),
            server: server_hash(),
        }
    }

    /// Notes that a token of the issuer was judged.
    pub fn judged(&self, issuer: &str, fine: bool, took: Duration) {
        let result = if fine { "success" } else { "failure" };
        self.times.observe(&[result, &hash(issuer.as_bytes())], took.as_secs_f64());
    }

    /// Notes that keys were fetched, with their document, or that they were not to be had.
    pub fn fetched(&self, issuer: &str, document: Option<&[u8]>) {
        let at = hash(issuer.as_bytes());
        let result = if document.is_some() { "success" } else { "failure" };
        self.fetched.set(&[result, &at, &self.server], kube1_pki::clock::unix_now() as f64);
        let Some(document) = document.map(hash) else { return };
        let mut current = self.current.lock();
        self.keys.set(&[&at, &self.server, &document], 1.0);
        if let Some(old) = current.insert(issuer.to_owned(), document.clone()).filter(|old| *old != document) {
            self.keys.remove(&[&at, &self.server, &old]);
        }
    }

    /// Forgets an issuer that is trusted no more.
    pub fn forget(&self, issuer: &str) {
        let at = hash(issuer.as_bytes());
        ["success", "failure"].iter().for_each(|result| self.fetched.remove(&[result, &at, &self.server]));
        if let Some(old) = self.current.lock().remove(issuer) {
            self.keys.remove(&[&at, &self.server, &old]);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_keys_are_told() {
        let mut registrar = Registrar::default();
        let metrics = JwtMetrics::new(&mut registrar);
        let shown = |part: &str| registrar.render().unwrap().lines().filter(|line| line.contains(part)).count();
        metrics.fetched("https://a", Some(b"one"));
        metrics.fetched("https://a", Some(b"two"));
        metrics.fetched("https://a", None);
        assert_eq!(shown(&hash(b"one")), 0);
        assert_eq!(shown(&hash(b"two")), 1);
        assert_eq!(shown("jwks_fetch_last_timestamp_seconds{"), 2);
        metrics.forget("https://a");
        assert_eq!((shown(&hash(b"two")), shown("jwks_fetch_last_timestamp_seconds{")), (0, 0));
    }
}
