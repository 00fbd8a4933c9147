//! Answers of upstream servers, kept for a while.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};

/// No answer is kept longer: the world outside changes too.
const LONGEST: Duration = Duration::from_secs(30);
/// How long an answer that says nothing about its time is kept.
const NEGATIVE: u32 = 5;
/// How long an answer may be used when no upstream server can be reached.
const STALE: Duration = Duration::from_secs(3600);
const ENTRIES: usize = 4096;

/// Name in lower case, type, and the flags that change the answer.
pub type CacheKey = (String, RecordType, bool, bool);

#[derive(Clone)]
struct Entry {
    message: Message,
    stored: Instant,
    fresh_until: Instant,
}

/// A cache of at most `ENTRIES` answers.
///
/// It has two halves: new answers go to the young one; when that is full it becomes the old one, and what was in the old
/// one and has not been used since is dropped.
#[derive(Default)]
pub struct Cache {
    young: HashMap<CacheKey, Entry>,
    old: HashMap<CacheKey, Entry>,
}

/// The key of a query's answers.
pub fn key(query: &Message) -> Option<CacheKey> {
    let asked = query.queries.first()?;
    let dnssec = query.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
    Some((asked.name.to_lowercase().to_ascii(), asked.query_type, dnssec, query.metadata.checking_disabled))
}

impl Cache {
    /// An answer whose times are reduced by its age; also one that is too old if `stale` is allowed.
    pub fn get(&mut self, key: &CacheKey, now: Instant, stale: bool) -> Option<Message> {
        if let Some(entry) = self.old.remove(key) {
            self.insert(key.clone(), entry);
        }
        let entry = self.young.get(key)?;
        let usable = now < entry.fresh_until || (stale && now < entry.stored + STALE);
        if !usable {
            return None;
        }
        let age = u32::try_from(now.duration_since(entry.stored).as_secs()).unwrap_or(u32::MAX);
        let mut message = entry.message.clone();
        let sections = [&mut message.answers, &mut message.authorities, &mut message.additionals];
        for record in sections.into_iter().flatten() {
            record.ttl = record.ttl.saturating_sub(age).max(1);
        }
        Some(message)
    }

    /// Keeps an answer, if it is one that may be kept.
    pub fn put(&mut self, key: CacheKey, message: &Message, now: Instant) {
        let code = message.metadata.response_code;
        if message.metadata.truncation || !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return;
        }
        let time = Duration::from_secs(lifetime(message).into()).min(LONGEST);
        if !time.is_zero() {
            self.insert(key, Entry { message: message.clone(), stored: now, fresh_until: now + time });
        }
    }

    fn insert(&mut self, key: CacheKey, entry: Entry) {
        if self.young.len() >= ENTRIES / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
    }
}

fn lifetime(message: &Message) -> u32 {
    if let Some(shortest) = message.answers.iter().map(|record| record.ttl).min() {
        return shortest;
    }
    let negative = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
        _ => None,
    });
    negative.unwrap_or(NEGATIVE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, Record};

    fn answer(name: &str, ttl: u32) -> (CacheKey, Message) {
        let name = Name::from_ascii(name).unwrap();
        let mut message = Message::query();
        message.add_query(Query::query(name.clone(), RecordType::A));
        message.add_answer(Record::from_rdata(name, ttl, RData::A(A::new(192, 0, 2, 1))));
        (key(&message).unwrap(), message)
    }

    #[test]
    fn answers_age_and_end() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        let (key, message) = answer("Example.org.", 20);
        cache.put(key.clone(), &message, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(cache.get(&key, at(5), false).unwrap().answers[0].ttl, 15);
        assert!(cache.get(&key, at(20), false).is_none());
        assert_eq!(cache.get(&key, at(100), true).unwrap().answers[0].ttl, 1);
        assert!(cache.get(&key, at(4000), true).is_none());
        let (key, message) = answer("long.org.", 3600);
        cache.put(key.clone(), &message, start);
        assert!(cache.get(&key, at(31), false).is_none(), "kept longer than the limit");
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let (used, message) = answer("used.org.", 30);
        cache.put(used.clone(), &message, now);
        for number in 0..3 * ENTRIES {
            let (key, message) = answer(&format!("n{number}.org."), 30);
            cache.put(key, &message, now);
            if number % 1000 == 0 {
                cache.get(&used, now, false);
            }
        }
        assert!(cache.young.len() + cache.old.len() <= ENTRIES);
        assert!(cache.get(&used, now, false).is_some());
    }
}
