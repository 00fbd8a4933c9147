//! Remembering tokens that were found good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use kube1_pki::clock;
use parking_lot::RwLock;
use ring::digest::{Context, SHA256};

use super::TokenUser;

const TTL: Duration = Duration::from_secs(10);
const ENTRIES_MAX: usize = 4096;

type Hash = [u8; 32];
/// Since when, and whose it is.
type Known = (Instant, Arc<TokenUser>);

/// Good tokens of the last ten seconds, by their hash and audiences. Bounded: when full, what is outdated goes, or all.
#[derive(Default)]
pub struct TokenCache {
    entries: RwLock<HashMap<Hash, Known>>,
}

impl TokenCache {
    pub fn get(&self, token: &str, audiences: &[String]) -> Option<Arc<TokenUser>> {
        let key = key(token, audiences);
        let entries = self.entries.read();
        let (added, found) = entries.get(&key)?;
        (added.elapsed() < TTL && clock::unix_now() < found.not_after).then(|| found.clone())
    }

    pub fn clear(&self) {
        self.entries.write().clear();
    }

    pub fn put(&self, token: &str, audiences: &[String], found: &Arc<TokenUser>) {
        let mut entries = self.entries.write();
        if entries.len() >= ENTRIES_MAX {
            entries.retain(|_, (added, _)| added.elapsed() < TTL);
            if entries.len() >= ENTRIES_MAX {
                entries.clear();
            }
        }
        entries.insert(key(token, audiences), (Instant::now(), found.clone()));
    }
}

fn key(token: &str, audiences: &[String]) -> Hash {
    let mut hash = Context::new(&SHA256);
    hash.update(token.as_bytes());
    for audience in audiences {
        hash.update(&[0]);
        hash.update(audience.as_bytes());
    }
    let mut key = [0; 32];
    key.copy_from_slice(hash.finish().as_ref());
    key
}
