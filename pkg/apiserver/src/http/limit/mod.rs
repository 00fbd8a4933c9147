//! API priority and fairness: which requests may run now, which wait, which are turned away.

mod level;
mod schema;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use kube1_api::status::Status;
use serde_json::Value;

use level::{Level, Limits};
use schema::Schema;

use crate::request_info::RequestInfo;
use crate::user::{MASTERS, UserInfo};

/// Requests handled at once over all priority levels.
const TOTAL: u64 = 600;
/// How long a request waits for its turn.
const WAIT: Duration = Duration::from_secs(15);

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Sorts requests into priority levels by the FlowSchemas of the cluster.
pub struct FlowControl {
    state: ArcSwap<State>,
}

#[derive(Default)]
struct State {
    /// By rising precedence, then name.
    schemas: Vec<Schema>,
    levels: HashMap<String, Arc<Level>>,
    /// For requests that no schema matches, as at start before any is known.
    fallback: Arc<Level>,
}

impl Default for FlowControl {
    fn default() -> Self {
        Self { state: ArcSwap::from_pointee(State::default()) }
    }
}

/// Permission to run; dropping it lets the next request of the level run.
#[derive(Debug)]
pub struct Seat {
    level: Option<Arc<Level>>,
    schema_uid: String,
    level_uid: String,
}

impl Seat {
    fn of(level: &Arc<Level>) -> Self {
        Self { level: Some(level.clone()), schema_uid: String::new(), level_uid: String::new() }
    }

    /// Gives the seat up without telling its level.
    fn forget(mut self) {
        self.level = None;
    }

    /// Tells the client how its request was sorted.
    pub fn label(&self, headers: &mut HeaderMap) {
        for (name, uid) in [(SCHEMA_UID, &self.schema_uid), (LEVEL_UID, &self.level_uid)] {
            if let (false, Ok(value)) = (uid.is_empty(), HeaderValue::from_str(uid)) {
                headers.insert(name, value);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(level) = self.level.take() {
            level.release();
        }
    }
}

impl FlowControl {
    /// Takes over the cluster's FlowSchemas and PriorityLevelConfigurations; waiting requests keep their places.
    pub fn load(&self, schemas: &[Value], levels: &[Value]) {
        let old = self.state.load();
        let sum: u64 = levels.iter().map(level::shares).sum::<u64>().max(1);
        let mut new = State { fallback: old.fallback.clone(), ..State::default() };
        for config in levels {
            let name = config["metadata"]["name"].as_str().unwrap_or_default();
            let level = old.levels.get(name).cloned().unwrap_or_default();
            level.configure(Limits::parse(config, TOTAL, sum));
            new.levels.insert(name.to_owned(), level);
        }
        new.schemas = schemas.iter().map(Schema::parse).collect();
        new.schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        self.state.store(Arc::new(new));
    }

    /// Waits for the request's turn; 429 when its level is full.
    pub async fn admit(&self, user: &UserInfo, info: &RequestInfo) -> Result<Seat, Status> {
        let state = self.state.load_full();
        let matched = state.schemas.iter().find(|s| s.matches(user, info));
        let level = matched.and_then(|s| state.levels.get(&s.level)).unwrap_or(&state.fallback);
        let flow = matched.map(|s| s.flow(user, info)).unwrap_or_default();
        let full = || Status::too_many_requests("Too many requests, please try again later.", 1);
        let exempt = user.in_group(MASTERS) || level.is_exempt();
        let mut seat = if exempt {
            Seat { level: None, schema_uid: String::new(), level_uid: String::new() }
        } else {
            match level.enter(flow).ok_or_else(full)? {
                level::Entry::Seat(seat) => seat,
                level::Entry::Wait(turn) => match tokio::time::timeout(WAIT, turn).await {
                    Ok(Ok(seat)) => seat,
                    _ => return Err(full()),
                },
            }
        };
        if let Some(schema) = matched {
            seat.schema_uid.clone_from(&schema.uid);
            seat.level_uid = level.uid();
        }
        Ok(seat)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn control(response: &Value) -> FlowControl {
        let control = FlowControl::default();
        // One seat: 1 share of 600 levels' worth.
        let level = json!({"metadata": {"name": "small", "uid": "l"}, "spec": {"type": "Limited",
            "limited": {"nominalConcurrencyShares": 1, "limitResponse": response}}});
        let big = json!({"metadata": {"name": "big"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 599}}});
        let schema = json!({"metadata": {"name": "s", "uid": "s"}, "spec": {"matchingPrecedence": 1,
            "priorityLevelConfiguration": {"name": "small"}, "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "*"}}], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
        control.load(&[schema], &[level, big]);
        control
    }

    #[tokio::test]
    async fn a_full_level_rejects_or_queues() {
        let user = UserInfo::authenticated("a", &[]);
        let info = RequestInfo { verb: "get".into(), path: "/x".into(), ..RequestInfo::default() };
        let reject = control(&json!({"type": "Reject"}));
        let seat = reject.admit(&user, &info).await.unwrap();
        assert_eq!(reject.admit(&user, &info).await.unwrap_err().code(), 429);
        let admin = UserInfo::authenticated("root", &[MASTERS]);
        assert!(reject.admit(&admin, &info).await.is_ok(), "masters are exempt");
        drop(seat);
        assert!(reject.admit(&user, &info).await.is_ok());

        let queue = json!({"type": "Queue", "queuing": {"queues": 2, "handSize": 1, "queueLengthLimit": 1}});
        let queue = control(&queue);
        let seat = queue.admit(&user, &info).await.unwrap();
        let mut headers = HeaderMap::new();
        seat.label(&mut headers);
        assert_eq!((headers[SCHEMA_UID].as_bytes(), headers[LEVEL_UID].as_bytes()), (&b"s"[..], &b"l"[..]));
        let mut waiting = Box::pin(queue.admit(&user, &info));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(queue.admit(&user, &info).await.unwrap_err().code(), 429, "the flow's queue is full");
        drop(seat);
        let second = waiting.await.unwrap();
        drop(second);
        assert!(queue.admit(&user, &info).await.is_ok());
    }

    #[tokio::test]
    async fn a_waiter_that_gave_up_loses_no_seat() {
        let user = UserInfo::authenticated("a", &[]);
        let info = RequestInfo { verb: "get".into(), path: "/x".into(), ..RequestInfo::default() };
        let queue = control(&json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 5}}));
        let seat = queue.admit(&user, &info).await.unwrap();
        let mut gone = Box::pin(queue.admit(&user, &info));
        assert!(futures::poll!(&mut gone).is_pending());
        drop(gone);
        drop(seat);
        assert!(queue.admit(&user, &info).await.is_ok());
    }
}
