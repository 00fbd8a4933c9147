//! How much work a request is: seats while it runs, and after it.

use std::time::Duration;

use crate::query::Query;
use crate::request_info::RequestInfo;

/// Bytes in memory that are worth a seat.
const BYTES_PER_SEAT: u64 = 100_000;
/// Lists are sent while they are written, so that no more than this is in memory at once.
const STREAMED_MAX: u64 = 1_000_000;
const LIST_SEATS_MAX: u32 = 100;
const MUTATING_SEATS_MAX: u32 = 10;
/// Telling one watcher of a change takes about so long: all of them share its bytes. (Upstream counts 0.5 ms, which would
/// let 500 objects a second be made where 1,000 clients watch.)
const TELLING: Duration = Duration::from_micros(2);
/// Seats are not held for less than this after an answer.
const WORTH_HOLDING: Duration = Duration::from_millis(1);
/// The part of a level that one request may take.
const LEVEL_PART: f64 = 0.15;

/// The work of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub initial_seats: u32,
    /// Seats held after the answer, while watchers are told.
    pub final_seats: u32,
    pub additional_latency: Duration,
}

impl Work {
    pub const ONE: Self = Self { initial_seats: 1, final_seats: 0, additional_latency: Duration::ZERO };

    /// Seats held from begin to end.
    pub fn seats(self) -> u32 {
        self.initial_seats.max(self.final_seats)
    }
}

/// What is known of the objects that a request is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub objects: u64,
    /// Bytes of an object.
    pub size: u64,
    pub watchers: u64,
}

/// Estimates the work; `nominal` are the seats of the request's level. Asks for `stats` only if they matter.
pub fn estimate(info: &RequestInfo, query: &Query, stats: impl FnOnce() -> Stats, nominal: u32) -> Work {
    let most = |limit: u32| ((f64::from(nominal) * LEVEL_PART).ceil() as u32).clamp(1, limit);
    if !info.is_resource {
        return Work::ONE;
    }
    match info.verb.as_str() {
        "list" => list(info, query, stats(), most(LIST_SEATS_MAX)),
        "watch" if query.flag("sendInitialEvents") => list(info, query, stats(), most(LIST_SEATS_MAX)),
        // Nobody watches tokens.
        "create" if info.resource == "serviceaccounts" && info.subresource == "token" => Work::ONE,
        "create" | "update" | "patch" | "delete" => mutating(stats(), most(MUTATING_SEATS_MAX)),
        _ => Work::ONE,
    }
}

fn list(info: &RequestInfo, query: &Query, stats: Stats, most: u32) -> Work {
    let limit = query.get("limit").and_then(|l| l.parse().ok()).filter(|l| *l > 0).unwrap_or(u64::MAX);
    let objects = if info.name.is_empty() { stats.objects.min(limit) } else { 1 };
    let bytes = (objects * stats.size).min(STREAMED_MAX);
    let seats = u32::try_from(bytes.div_ceil(BYTES_PER_SEAT)).unwrap_or(most);
    Work { initial_seats: seats.clamp(1, most), ..Work::ONE }
}

fn mutating(stats: Stats, most: u32) -> Work {
    let telling = TELLING.saturating_mul(u32::try_from(stats.watchers).unwrap_or(u32::MAX));
    let wanted = u32::try_from(telling.as_nanos() / WORTH_HOLDING.as_nanos()).unwrap_or(u32::MAX);
    let seats = wanted.min(most);
    if seats == 0 {
        return Work::ONE;
    }
    // What fewer seats do takes as much longer.
    Work { initial_seats: 1, final_seats: seats, additional_latency: telling / seats }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn lists_are_wide_and_writes_go_on_after_their_answer() {
        let stats = Stats { objects: 500, size: 2000, watchers: 3000 };
        let work = |method: Method, target: &str, nominal: u32| {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let query = Query::parse(query);
            estimate(&RequestInfo::parse(&method, path, &query), &query, || stats, nominal)
        };
        for (method, target, nominal, seats, last, millis) in [
            (Method::GET, "/api/v1/pods", 600, 10, 0, 0),
            (Method::GET, "/api/v1/pods?limit=100", 600, 2, 0, 0),
            (Method::GET, "/api/v1/pods?fieldSelector=metadata.name=x", 600, 1, 0, 0),
            (Method::GET, "/api/v1/pods", 20, 3, 0, 0),
            (Method::GET, "/api/v1/pods?watch=1", 600, 1, 0, 0),
            (Method::GET, "/api/v1/pods?watch=1&sendInitialEvents=true", 600, 10, 0, 0),
            (Method::GET, "/api/v1/namespaces/a/pods/x", 600, 1, 0, 0),
            (Method::POST, "/api/v1/namespaces/a/pods", 600, 1, 6, 1),
            (Method::POST, "/api/v1/namespaces/a/pods", 5, 1, 1, 6),
            (Method::POST, "/api/v1/namespaces/a/serviceaccounts/x/token", 600, 1, 0, 0),
            (Method::GET, "/version", 600, 1, 0, 0),
        ] {
            let expected =
                Work { initial_seats: seats, final_seats: last, additional_latency: Duration::from_millis(millis) };
            assert_eq!(work(method, target, nominal), expected, "{target}");
        }
        let few = Stats { watchers: 400, ..stats };
        assert_eq!(mutating(few, 10), Work::ONE, "a few hundred watchers are told in no time");
    }
}
