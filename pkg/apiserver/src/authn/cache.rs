//! Remembering tokens that were found good.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kube1_pki::clock;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::TokenUser;

const TTL: Duration = Duration::from_secs(10);
const ENTRIES_MAX: usize = 4096;

/// Good tokens of the last ten seconds, by their hash and audiences. Bounded: when full, what is outdated goes, or all.
#[derive(Default)]
pub struct TokenCache {
    entries: Mutex<HashMap<[u8; 32], (Instant, TokenUser)>>,
}

impl TokenCache {
    pub fn get(&self, token: &str, audiences: &[String]) -> Option<TokenUser> {
        let key = key(token, audiences);
        let entries = self.entries.lock();
        let (added, found) = entries.get(&key)?;
        (added.elapsed() < TTL && clock::unix_now() < found.not_after).then(|| found.clone())
    }

    pub fn clear(&self) {
        self.entries.lock().clear();
    }

    pub fn put(&self, token: &str, audiences: &[String], found: &TokenUser) {
        let mut entries = self.entries.lock();
        if entries.len() >= ENTRIES_MAX {
            entries.retain(|_, (added, _)| added.elapsed() < TTL);
            if entries.len() >= ENTRIES_MAX {
                entries.clear();
            }
        }
        entries.insert(key(token, audiences), (Instant::now(), found.clone()));
    }
}

fn key(token: &str, audiences: &[String]) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(token);
    for audience in audiences {
        hash.update([0]);
        hash.update(audience);
    }
    hash.finalize().into()
}
