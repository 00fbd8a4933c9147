//! Key management services beside the server (KEP-3299, API v2): each encrypts a seed for us, of which the keys of values
//! are derived, and decrypts it again.

mod envelope;
mod meters;
mod wire;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use jiff::Timestamp;
use kube1_grpc::{Address, CallError, Service};
use parking_lot::Mutex;
use prost::Message;
use tokio_util::task::AbortOnDropHandle;

use envelope::{DERIVED_KEY, Opener};
pub use envelope::{aggregate, hash_of};
use wire::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, EncryptedObject, StatusRequest, StatusResponse,
};

/// Between looks at a service that is well, and at one that is not.
const POLL: Duration = Duration::from_secs(60);
const POLL_ILL: Duration = Duration::from_secs(10);
/// A seed serves writes for so long after the service was last well.
const WRITES: Duration = Duration::from_secs(180);
/// An answer to a health check is good for so long, and a bad one.
const HEALTHY: Duration = Duration::from_secs(20);
const ILL: Duration = Duration::from_secs(3);
/// Decrypted seeds are kept for so long, and so many of them.
const KEPT: Duration = Duration::from_secs(24 * 3600);
const KEPT_MOST: usize = 1000;

/// How to reach a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsSettings {
    /// Without `:`.
    pub name: String,
    pub socket: PathBuf,
    /// Of each call.
    pub timeout: Duration,
}

/// What is done about a value that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The service must decrypt its key first.
    Locked,
    /// Nothing helps, for this reason.
    Broken(String),
}

/// The seed that values are written with.
struct Current {
    opener: Arc<Opener>,
    /// All but the data.
    object: EncryptedObject,
    expires: Instant,
    expires_at: Timestamp,
}

/// The last health check.
struct Checked {
    at: Instant,
    result: Result<(), String>,
}

#[derive(Default)]
struct Probe {
    last: Option<Checked>,
    /// That of the first answer.
    version: String,
}

struct Cached {
    opener: Arc<Opener>,
    since: Instant,
}

/// A key management service.
pub struct Kms {
    settings: KmsSettings,
    service: Service,
    current: ArcSwapOption<Current>,
    openers: Mutex<HashMap<[u8; 32], Cached>>,
    probe: tokio::sync::Mutex<Probe>,
    polling: OnceLock<AbortOnDropHandle<()>>,
}

impl Kms {
    pub fn new(settings: KmsSettings) -> Self {
        Self {
            service: Service::new(Address::Unix(settings.socket.clone())),
            settings,
            current: ArcSwapOption::empty(),
            openers: Mutex::default(),
            probe: tokio::sync::Mutex::default(),
            polling: OnceLock::new(),
        }
    }

    pub fn settings(&self) -> &KmsSettings {
        &self.settings
    }

    /// Keeps the seed fresh until this is dropped.
    pub fn poll(self: &Arc<Self>) {
        let kms = Arc::downgrade(self);
        self.polling.get_or_init(|| {
            AbortOnDropHandle::new(tokio::spawn(async move {
                let mut pause = Duration::ZERO;
                loop {
                    tokio::time::sleep(pause).await;
                    let Some(kms) = kms.upgrade() else { return };
                    pause = match kms.check().await {
                        Ok(()) => POLL,
                        Err(error) => {
                            tracing::warn!(
                                provider = kms.settings.name,
                                error,
                                "the key management service is not well"
                            );
                            POLL_ILL
                        }
                    };
                }
            }))
        });
    }

    /// Whether the service is well; asks it where the last answer is old, and makes a new seed when it has a new key.
    pub async fn check(&self) -> Result<(), String> {
        let mut probe = self.probe.lock().await;
        if let Some(Checked { at, result }) = &probe.last
            && at.elapsed() < if result.is_ok() { HEALTHY } else { ILL }
        {
            return result.clone();
        }
        let result = self.look(&mut probe.version).await;
        probe.last = Some(Checked { at: Instant::now(), result: result.clone() });
        result
    }

    async fn look(&self, version: &mut String) -> Result<(), String> {
        let name = &self.settings.name;
        let status: StatusResponse = self.call(wire::STATUS, &StatusRequest {}).await.map_err(|error| {
            format!("failed to perform status section of the healthz check for KMS Provider {name}, error: {error}")
        })?;
        let mut problems = Vec::new();
        if status.healthz != "ok" {
            problems.push(format!("got unexpected healthz status: {}", status.healthz));
        }
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            problems.push(format!("expected KMSv2 API version v2, got {}", status.version));
        } else if version.is_empty() {
            version.clone_from(&status.version);
        } else if *version != status.version {
            problems.push(format!(
                "KMSv2 API version should not change after the initial status response version {version}, got {}",
                status.version
            ));
        }
        match envelope::check_key_id(&status.key_id) {
            Ok(()) => {
                meters::status(name, &status.key_id);
                problems.extend(self.follow(&status.key_id).await.err());
            }
            Err((code, why)) => {
                meters::invalid(name, code);
                problems.push(format!("got invalid KMSv2 KeyID hash {:?}: {why}", hash_of(&status.key_id)));
            }
        }
        aggregate(problems).map_err(|why| format!("kmsv2 Provider {name} is not healthy, error: {why}"))
    }

    /// Prolongs the seed, or makes a new one where the service has another key than the seed's.
    async fn follow(&self, key_id: &str) -> Result<(), String> {
        // Before the call: the time is an upper bound.
        let (expires, expires_at) = (Instant::now() + WRITES, Timestamp::now() + WRITES);
        let current = self.current.load_full();
        if let Some(current) = current.as_ref().filter(|current| current.object.key_id == key_id) {
            let Current { opener, object, .. } = &**current;
            let next = Current { opener: opener.clone(), object: object.clone(), expires, expires_at };
            self.current.store(Some(Arc::new(next)));
            return Ok(());
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let (made, answered) = match self.generate(&uid).await {
            Ok((opener, object)) if object.key_id == key_id => {
                let opener = Arc::new(opener);
                self.keep(envelope::fingerprint(&object), opener.clone());
                self.current.store(Some(Arc::new(Current { opener, object, expires, expires_at })));
                return Ok(());
            }
            Ok((_, object)) => ("<nil>".to_owned(), object.key_id),
            Err(error) => (error, String::new()),
        };
        let (state, old, until) = match &current {
            Some(current) => ("<nil>", hash_of(&current.object.key_id), current.expires_at.to_string()),
            None => ("got unexpected nil transformer", String::new(), "0001-01-01T00:00:00Z".to_owned()),
        };
        Err(format!(
            "failed to rotate DEK uid={uid:?}, useSeed=true, errState={state}, errGen={made}, statusKeyIDHash={:?}, \
             encryptKeyIDHash={:?}, stateKeyIDHash={old:?}, expirationTimestamp={until}",
            hash_of(key_id),
            hash_of(&answered),
        ))
    }

    async fn generate(&self, uid: &str) -> Result<(Opener, EncryptedObject), String> {
        let started = Instant::now();
        let (opener, plaintext) = envelope::new_seed();
        meters::generated(started.elapsed());
        let request = EncryptRequest { plaintext, uid: uid.to_owned() };
        let answer: EncryptResponse = self
            .call(wire::ENCRYPT, &request)
            .await
            .map_err(|error| format!("failed to encrypt DEK, error: {error}"))?;
        let object = EncryptedObject {
            encrypted_data: Bytes::new(),
            key_id: answer.key_id,
            encrypted_dek_source: answer.ciphertext,
            annotations: answer.annotations,
            encrypted_dek_source_type: DERIVED_KEY,
        };
        envelope::check_source(&object)?;
        Ok((opener, object))
    }

    /// What tells values written now from those written with another key; none while there is no seed.
    pub fn key_id(&self) -> Option<String> {
        self.current.load().as_ref().map(|current| current.object.key_id.clone())
    }

    /// Encrypts without asking anybody; fails when the service has not been well for minutes.
    pub fn seal(&self, key: &[u8], plain: &[u8]) -> Result<Vec<u8>, String> {
        let current = self.current.load();
        let current = current.as_ref().ok_or("got unexpected nil transformer")?;
        if Instant::now() > current.expires {
            return Err(format!(
                "encryptedDEKSource with keyID hash {:?} expired at {:.0} (current time is {:.0})",
                hash_of(&current.object.key_id),
                current.expires_at,
                Timestamp::now()
            ));
        }
        let encrypted_data = current.opener.seal(key, plain).ok_or("the value cannot be encrypted")?;
        meters::used("to_storage", &self.settings.name, &current.object.key_id);
        Ok(EncryptedObject { encrypted_data, ..current.object.clone() }.encode_to_vec())
    }

    /// Decrypts by a key that is known already.
    pub fn open(&self, key: &[u8], sealed: &Bytes) -> Result<Bytes, Unreadable> {
        let object = decode(sealed).map_err(Unreadable::Broken)?;
        let opener = self.opener(&envelope::fingerprint(&object)).ok_or(Unreadable::Locked)?;
        meters::used("from_storage", &self.settings.name, &object.key_id);
        let broken = || Unreadable::Broken("cipher: message authentication failed".to_owned());
        opener.open(key, &object.encrypted_data).ok_or_else(broken)
    }

    /// Has the key of a value decrypted, so that [`Kms::open`] knows it.
    pub async fn unlock(&self, sealed: &Bytes) -> Result<(), String> {
        let object = decode(sealed)?;
        let fingerprint = envelope::fingerprint(&object);
        if self.opener(&fingerprint).is_some() {
            return Ok(());
        }
        meters::missed();
        let request = DecryptRequest {
            ciphertext: object.encrypted_dek_source,
            uid: uuid::Uuid::new_v4().to_string(),
            key_id: object.key_id,
            annotations: object.annotations,
        };
        let answer: DecryptResponse = self
            .call(wire::DECRYPT, &request)
            .await
            .map_err(|error| format!("failed to decrypt DEK, error: {error}"))?;
        let opener = Opener::new(object.encrypted_dek_source_type, &answer.plaintext)?;
        self.keep(fingerprint, Arc::new(opener));
        Ok(())
    }

    fn opener(&self, fingerprint: &[u8; 32]) -> Option<Arc<Opener>> {
        self.openers.lock().get(fingerprint).map(|cached| cached.opener.clone())
    }

    fn keep(&self, fingerprint: [u8; 32], opener: Arc<Opener>) {
        let mut openers = self.openers.lock();
        openers.retain(|_, cached| cached.since.elapsed() < KEPT);
        if openers.len() >= KEPT_MOST
            && let Some(oldest) = openers.iter().min_by_key(|(_, cached)| cached.since).map(|(key, _)| *key)
        {
            openers.remove(&oldest);
        }
        openers.insert(fingerprint, Cached { opener, since: Instant::now() });
        meters::cached(&self.settings.name, openers.len());
    }

    async fn call<Q: Message, R: Message + Default>(&self, method: &'static str, request: &Q) -> Result<R, CallError> {
        let started = Instant::now();
        let answer = self.service.call(method, request, self.settings.timeout).await;
        let code = answer.as_ref().map_or_else(|error| error.code, |_| "OK");
        meters::called(&self.settings.name, method, code, started.elapsed());
        answer
    }
}

fn decode(sealed: &Bytes) -> Result<EncryptedObject, String> {
    let object = EncryptedObject::decode(sealed.clone()).map_err(|error| format!("proto: {error}"))?;
    envelope::check(&object)?;
    Ok(object)
}

/// The id of the key that a value was written with, and whether it was derived of a seed.
pub fn written_with(sealed: &Bytes) -> Option<(String, bool)> {
    let object = decode(sealed).ok()?;
    Some((object.key_id, object.encrypted_dek_source_type == DERIVED_KEY))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn service() -> Kms {
        let socket = PathBuf::from("/nowhere/kms.sock");
        Kms::new(KmsSettings { name: "tried".into(), socket, timeout: Duration::from_secs(1) })
    }

    #[test]
    fn nothing_is_written_without_a_seed_or_by_an_old_one() {
        let kms = service();
        assert_eq!(kms.seal(b"k", b"v").unwrap_err(), "got unexpected nil transformer");
        assert_eq!(kms.key_id(), None);
        let (opener, secret) = envelope::new_seed();
        let current = |expires: Instant| Current {
            opener: Arc::new(Opener::new(DERIVED_KEY, &secret).unwrap()),
            object: EncryptedObject {
                key_id: "1".into(),
                encrypted_dek_source: vec![1],
                encrypted_dek_source_type: DERIVED_KEY,
                ..EncryptedObject::default()
            },
            expires,
            expires_at: "2026-01-01T00:00:00.5Z".parse().unwrap(),
        };
        let now = Instant::now();
        kms.current.store(Some(Arc::new(current(now.checked_sub(Duration::from_secs(1)).unwrap()))));
        let expected = format!(
            "encryptedDEKSource with keyID hash {:?} expired at 2026-01-01T00:00:00Z (current time is ",
            hash_of("1")
        );
        let refused = kms.seal(b"k", b"v").unwrap_err();
        assert!(refused.starts_with(&expected) && refused.ends_with("Z)"), "{refused}");

        kms.current.store(Some(Arc::new(current(now + WRITES))));
        let sealed = Bytes::from(kms.seal(b"k", b"v").unwrap());
        assert_eq!(kms.open(b"k", &sealed), Err(Unreadable::Locked), "its key must be asked for");
        kms.keep(envelope::fingerprint(&decode(&sealed).unwrap()), Arc::new(opener));
        assert_eq!(kms.open(b"k", &sealed).unwrap(), "v");
        assert!(matches!(kms.open(b"other", &sealed), Err(Unreadable::Broken(_))));
        assert_eq!(written_with(&sealed), Some(("1".to_owned(), true)));
    }

    #[test]
    fn the_keys_that_are_kept_are_bounded() {
        let kms = service();
        let opener = Arc::new(envelope::new_seed().0);
        for number in 0..=KEPT_MOST {
            let mut fingerprint = [0; 32];
            fingerprint[..8].copy_from_slice(&number.to_be_bytes());
            kms.keep(fingerprint, opener.clone());
        }
        assert_eq!(kms.openers.lock().len(), KEPT_MOST);
        assert!(kms.opener(&[0; 32]).is_none(), "the oldest is gone");
    }
}
