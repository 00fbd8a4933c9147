//! Values that many objects have in common, kept once.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde::Serialize;

/// Dead entries are not looked for among fewer than this.
const SMALL: usize = 64;

/// Gives equal values out as one, for as long as anybody holds it.
///
/// Pods of one template have the same labels, owner and specification; in a cache of thousands these are most of it.
pub struct Pool<T: ?Sized>(Mutex<Shared<T>>);

struct Shared<T: ?Sized> {
    /// By the hash of their JSON.
    values: HashMap<u64, Weak<T>>,
    /// How many there may be before those that nobody holds are taken out.
    limit: usize,
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self(Mutex::new(Shared { values: HashMap::new(), limit: SMALL }))
    }
}

impl<T: Serialize + PartialEq + ?Sized> Pool<T> {
    /// The value itself, or an equal one that somebody holds.
    pub fn share<V: Borrow<T> + Into<Arc<T>>>(&self, value: V) -> Arc<T> {
        let mut hash = HashWriter(DefaultHasher::new());
        if serde_json::to_writer(&mut hash, value.borrow()).is_err() {
            return value.into();
        }
        let mut pool = self.0.lock();
        let hash = hash.0.finish();
        match pool.values.get(&hash).and_then(Weak::upgrade) {
            Some(known) if *known == *value.borrow() => known,
            // Another value of the same hash: so rare that it may be kept twice.
            Some(_) => value.into(),
            None => {
                let value = value.into();
                pool.values.insert(hash, Arc::downgrade(&value));
                pool.trim();
                value
            }
        }
    }
}

impl<T: ?Sized> Shared<T> {
    fn trim(&mut self) {
        if self.values.len() > self.limit {
            self.values.retain(|_, value| value.strong_count() > 0);
            self.values.shrink_to(self.values.len() * 2);
            self.limit = (self.values.len() * 2).max(SMALL);
        }
    }
}

struct HashWriter(DefaultHasher);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_while_somebody_holds_them() {
        let pool: Pool<str> = Pool::default();
        let (first, second, other) =
            (pool.share("a".to_owned()), pool.share("a".to_owned()), pool.share("b".to_owned()));
        assert!(Arc::ptr_eq(&first, &second) && *other == *"b");
        let many: Vec<_> = (0..SMALL * 4).map(|n| pool.share(n.to_string())).collect();
        drop(many);
        (0..SMALL * 8).for_each(|n| drop(pool.share(n.to_string())));
        assert!(pool.0.lock().values.len() <= SMALL * 8 + 2);
        (0..SMALL * 40).for_each(|n| drop(pool.share(format!("x{n}"))));
        assert!(pool.0.lock().values.len() <= SMALL * 2, "what nobody holds goes");
        assert!(Arc::ptr_eq(&first, &pool.share("a".to_owned())));
    }
}
