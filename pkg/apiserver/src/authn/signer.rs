//! A service beside the server that signs service-account tokens (`v1.ExternalJWTSigner`, KEP-740), so that their key is
//! never here.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube1_grpc::{Address, CallError, Service};
use kube1_pki::{ExternalKey, ServiceAccountKeys, clock};
use kube1_telemetry::metrics::{Counters, Gauges, Histograms, shared};
use parking_lot::Mutex;
use prost::Message;
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Of getting the keys; at start the service may take so long to come up.
const FETCH: Duration = Duration::from_secs(60);
const METADATA: Duration = Duration::from_secs(10);
const SIGN: Duration = Duration::from_secs(60);
/// Between attempts while the service is away.
const PAUSE: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_secs(10);
/// Seconds that a token lives at least.
const LIFE_MIN: i64 = 600;
const KEY_ID_MAX: usize = 1024;
const CALLS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Why tokens cannot be signed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SignerError {
    #[error("{0}: {1}")]
    Call(&'static str, #[source] CallError),
    #[error("{0}")]
    Answer(String),
    #[error("max token life supported by external-jwt-signer ({0}s) is less than acceptable (min {LIFE_MIN}s)")]
    Life(i64),
    #[error(
        "service-account-max-token-expiration cannot be set longer than the token expiration supported by service-account-signing-endpoint: {}s > {}s",
        .asked.as_secs(), .supported.as_secs()
    )]
    Longer { asked: Duration, supported: Duration },
}

#[derive(Clone, PartialEq, prost::Message)]
struct SignRequest {
    #[prost(string, tag = "1")]
    claims: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SignResponse {
    #[prost(string, tag = "1")]
    header: String,
    #[prost(string, tag = "2")]
    signature: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct FetchKeysResponse {
    #[prost(message, repeated, tag = "1")]
    keys: Vec<Key>,
    #[prost(message, optional, tag = "2")]
    data_timestamp: Option<Timestamp>,
    #[prost(int64, tag = "3")]
    refresh_hint_seconds: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Key {
    #[prost(string, tag = "1")]
    key_id: String,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(bool, tag = "3")]
    exclude_from_oidc_discovery: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MetadataResponse {
    #[prost(int64, tag = "1")]
    max_token_expiration_seconds: i64,
}

/// What a header may have, and nothing else.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

struct Metrics {
    fetches: Counters,
    signatures: Counters,
    fetched: Gauges,
    data: Gauges,
    calls: Histograms,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let name = |rest: &str| format!("apiserver_externaljwt_{rest}");
    shared(|r| {
        Metrics {
        fetches: r.counters(&name("fetch_keys_request"), "Total attempts at syncing supported JWKs", &["code"]),
        signatures: r.counters(&name("sign_request"), "Total attempts at signing JWT", &["code"]),
        fetched: r.gauges(
            &name("fetch_keys_success_timestamp"),
            "Unix Timestamp in seconds of the last successful FetchKeys request",
            &[],
        ),
        data: r.gauges(
            &name("fetch_keys_data_timestamp"),
            "Unix Timestamp in seconds of the last successful FetchKeys data_timestamp value returned by the external signer",
            &[],
        ),
        calls: r.histograms(
            &name("request_duration_seconds"),
            "Request duration and time for calls to external-jwt-signer",
            &["method", "code"],
            CALLS,
        ),
    }
    })
});

/// The service, and what is known of its keys.
pub struct ExternalSigner {
    service: Service,
    keys: Arc<ServiceAccountKeys>,
    /// When the keys were got, which one caller does at a time.
    fetching: tokio::sync::Mutex<Option<Instant>>,
    /// When they should be got again.
    refresh: Mutex<Instant>,
    longest: Duration,
}

impl ExternalSigner {
    /// Waits up to a minute for the service at `socket`, a path or a name that begins with `@`. Its keys verify tokens
    /// from then on. `asked` is the longest life of tokens that flags ask for.
    pub async fn connect(
        socket: PathBuf,
        keys: Arc<ServiceAccountKeys>,
        asked: Option<Duration>,
    ) -> Result<Self, SignerError> {
        let mut signer = Self {
            service: Service::new(Address::Unix(socket)),
            keys,
            fetching: tokio::sync::Mutex::default(),
            refresh: Mutex::new(Instant::now()),
            longest: Duration::ZERO,
        };
        let until = Instant::now() + FETCH;
        loop {
            match signer.fetch().await {
                Err(SignerError::Call(_, error)) if error.code == "Unavailable" && Instant::now() < until => {
                    tracing::debug!(%error, "waiting for the service that signs tokens");
                    tokio::time::sleep(PAUSE).await;
                }
                done => break done?,
            }
        }
        let metadata: MetadataResponse =
            signer.call("/v1.ExternalJWTSigner/Metadata", "while asking for metadata", &Empty {}, METADATA).await?;
        let seconds = metadata.max_token_expiration_seconds;
        let supported =
            u64::try_from(seconds).ok().filter(|_| seconds >= LIFE_MIN).ok_or(SignerError::Life(seconds))?;
        signer.longest = Duration::from_secs(supported);
        match asked {
            Some(asked) if asked > signer.longest => Err(SignerError::Longer { asked, supported: signer.longest }),
            _ => Ok(signer),
        }
    }

    /// The longest life of a token.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// How long the keys may be kept by others.
    pub fn fresh_for(&self) -> Duration {
        self.refresh.lock().saturating_duration_since(Instant::now())
    }

    /// Gets the keys again when they are due, until cancelled; calls `changed` after that.
    pub async fn run(&self, cancel: &CancellationToken, changed: impl Fn()) {
        loop {
            let due = *self.refresh.lock();
            if cancel.run_until_cancelled(tokio::time::sleep_until(due.into())).await.is_none() {
                return;
            }
            match cancel.run_until_cancelled(self.fetch()).await {
                None => return,
                Some(Ok(())) => changed(),
                Some(Err(error)) => {
                    tracing::warn!(%error, "the keys of the service that signs tokens are old");
                    *self.refresh.lock() = Instant::now() + RETRY;
                }
            }
        }
    }

    /// Gets the keys, unless somebody else has got them since this was called.
    pub async fn fetch(&self) -> Result<(), SignerError> {
        let asked = Instant::now();
        let mut fetched = self.fetching.lock().await;
        if fetched.is_some_and(|at| at > asked) {
            return Ok(());
        }
        let result = self.fetch_now().await;
        METRICS.fetches.inc(&[code(&result)]);
        result?;
        METRICS.fetched.set(&[], clock::unix_now() as f64);
        *fetched = Some(Instant::now());
        Ok(())
    }

    async fn fetch_now(&self) -> Result<(), SignerError> {
        const WHAT: &str = "while getting externally supported jwt signing keys";
        let answer: FetchKeysResponse = self.call("/v1.ExternalJWTSigner/FetchKeys", WHAT, &Empty {}, FETCH).await?;
        let wrong = |why: String| Err(SignerError::Answer(why));
        let hint = match u64::try_from(answer.refresh_hint_seconds) {
            Ok(seconds) if seconds > 0 => Duration::from_secs(seconds.min(365 * 24 * 3600)),
            _ => return wrong(format!("found invalid refresh hint ({}s)", answer.refresh_hint_seconds)),
        };
        if answer.keys.is_empty() {
            return wrong("found no keys".to_owned());
        }
        let Some(Timestamp { seconds, nanos }) =
            answer.data_timestamp.filter(|t| (0..1_000_000_000).contains(&t.nanos))
        else {
            return wrong("invalid data timestamp".to_owned());
        };
        let keys =
            answer.keys.iter().map(|key| ExternalKey::new(&key.key_id, &key.key, key.exclude_from_oidc_discovery));
        let keys: Result<Vec<_>, _> = keys.collect();
        let keys = keys.map_err(|e| SignerError::Answer(format!("while parsing external public keys: {e}")))?;
        self.keys.use_external(keys);
        *self.refresh.lock() = Instant::now() + hint;
        METRICS.data.set(&[], seconds as f64 + f64::from(nanos) / 1e9);
        Ok(())
    }

    /// A signed token with these claims.
    pub async fn sign(&self, claims: &Value) -> Result<String, SignerError> {
        let result = self.sign_now(claims).await;
        METRICS.signatures.inc(&[code(&result)]);
        result
    }

    async fn sign_now(&self, claims: &Value) -> Result<String, SignerError> {
        let request = SignRequest { claims: URL_SAFE_NO_PAD.encode(claims.to_string()) };
        let answer: SignResponse = self.call("/v1.ExternalJWTSigner/Sign", "while signing jwt", &request, SIGN).await?;
        let wrong = |why: String| SignerError::Answer(format!("while validating header: {why}"));
        let bytes =
            URL_SAFE_NO_PAD.decode(&answer.header).map_err(|e| wrong(format!("while unwrapping header: {e}")))?;
        let header: Header =
            serde_json::from_slice(&bytes).map_err(|e| wrong(format!("while parsing header JSON: {e}")))?;
        self.check(&header).await.map_err(wrong)?;
        if answer.signature.is_empty() {
            return Err(SignerError::Answer("empty signature returned".to_owned()));
        }
        Ok(format!("{}.{}.{}", answer.header, request.claims, answer.signature))
    }

    async fn check(&self, header: &Header) -> Result<(), String> {
        match header {
            Header { typ, .. } if typ != "JWT" => return Err("bad type".to_owned()),
            Header { kid, .. } if kid.is_empty() => return Err("key id missing".to_owned()),
            Header { kid, .. } if kid.len() > KEY_ID_MAX => return Err("key id longer than 1 kb".to_owned()),
            Header { alg, .. } if !["RS256", "ES256", "ES384", "ES512"].contains(&alg.as_str()) => {
                return Err(format!("bad signing algorithm {alg:?}"));
            }
            _ => {}
        }
        let kid = &header.kid;
        if self.keys.is_hidden(kid) {
            return Err(format!("key used for signing JWT (kid: {kid}) is excluded from OIDC discovery docs"));
        }
        Ok(())
    }

    async fn call<Q: Message, R: Message + Default>(
        &self,
        method: &'static str,
        what: &'static str,
        request: &Q,
        limit: Duration,
    ) -> Result<R, SignerError> {
        let started = Instant::now();
        let answer = self.service.call(method, request, limit).await;
        let code = answer.as_ref().map_or_else(|error| error.code, |_| "OK");
        METRICS.calls.observe(&[method, code], started.elapsed().as_secs_f64());
        answer.map_err(|error| SignerError::Call(what, error))
    }
}

/// As metrics name a result.
fn code<T>(result: &Result<T, SignerError>) -> &'static str {
    match result {
        Ok(_) => "OK",
        Err(SignerError::Call(_, error)) => error.code,
        Err(_) => "unknown-non-grpc",
    }
}
