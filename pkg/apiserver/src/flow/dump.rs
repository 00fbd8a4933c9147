//! `/debug/api_priority_and_fairness/…`: the present state as tables of comma-separated values.

use super::{About, FlowControl};
use crate::query::Query;
use crate::request_info::RequestInfo;

const LEVELS: [&str; 10] = [
    "PriorityLevelName",
    "ActiveQueues",
    "IsIdle",
    "IsQuiescing",
    "WaitingRequests",
    "ExecutingRequests",
    "DispatchedRequests",
    "RejectedRequests",
    "TimedoutRequests",
    "CancelledRequests",
];
const QUEUES: [&str; 9] = [
    "PriorityLevelName",
    "Index",
    "PendingRequests",
    "ExecutingRequests",
    "SeatsInUse",
    "NextDispatchR",
    "InitialSeatsSum",
    "MaxSeatsSum",
    "TotalWorkSum",
];
const REQUESTS: [&str; 10] = [
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
    "StartTime",
];
const DETAILS: [&str; 8] =
    ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];

impl FlowControl {
    /// The table of a path below `/debug/api_priority_and_fairness/`.
    pub fn dump(&self, what: &str, query: &Query) -> Option<String> {
        match what {
            "dump_priority_levels" => Some(self.dump_levels()),
            "dump_queues" => Some(self.dump_queues()),
            "dump_requests" => Some(self.dump_requests(query.flag("includeRequestDetails"))),
            _ => None,
        }
    }

    fn dump_levels(&self) -> String {
        let rows = self.snapshots().into_iter().map(|level| {
            let active = level.queues.iter().filter(|(_, q)| q.executing > 0 || !q.waiters.is_empty()).count();
            let idle = level.executing == 0 && level.waiting == 0;
            let tally = level.tally;
            let mut row = vec![level.limits.name];
            if level.limits.exempt {
                row.extend(["<none>".to_owned(), "<none>".into(), "false".into(), "<none>".into()]);
                row.extend([level.executing.to_string(), tally.dispatched.to_string()]);
                row.extend(["<none>".to_owned(), "<none>".into(), "<none>".into()]);
            } else {
                row.extend([active.to_string(), idle.to_string(), "false".into()]);
                row.extend([level.waiting, level.executing].map(|n| n.to_string()));
                let counts = [tally.dispatched, tally.rejected, tally.timed_out, tally.cancelled];
                row.extend(counts.map(|n| n.to_string()));
            }
            row
        });
        table(&LEVELS, rows)
    }

    fn dump_queues(&self) -> String {
        let mut rows = Vec::new();
        for level in self.snapshots() {
            for (index, queue) in &level.queues {
                let sum = |of: fn(super::work::Work) -> u32| queue.waiters.iter().map(|w| of(w.1)).sum::<u32>();
                let work: f64 = queue
                    .waiters
                    .iter()
                    .map(|w| f64::from(w.1.final_seats) * w.1.additional_latency.as_secs_f64())
                    .sum();
                rows.push(vec![
                    level.limits.name.clone(),
                    index.to_string(),
                    queue.waiters.len().to_string(),
                    queue.executing.to_string(),
                    queue.seats.to_string(),
                    format!("{:.8}ss", queue.next_start),
                    sum(|w| w.initial_seats).to_string(),
                    sum(|w| w.seats()).to_string(),
                    format!("{work:.8}ss"),
                ]);
            }
        }
        table(&QUEUES, rows.into_iter())
    }

    fn dump_requests(&self, details: bool) -> String {
        let mut rows = Vec::new();
        for level in self.snapshots() {
            for (index, queue) in &level.queues {
                for (place, (about, work, arrived)) in queue.waiters.iter().enumerate() {
                    let mut row = vec![
                        level.limits.name.clone(),
                        about.taker.schema.name.clone(),
                        index.to_string(),
                        place.to_string(),
                        about.distinguisher.clone(),
                        arrived.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string(),
                        work.initial_seats.to_string(),
                        work.final_seats.to_string(),
                        format!("{:?}", work.additional_latency),
                        "0001-01-01T00:00:00.000000000Z".into(),
                    ];
                    if details {
                        row.extend(about_request(about));
                    }
                    rows.push(row);
                }
            }
        }
        let columns: Vec<&str> = REQUESTS.iter().chain(DETAILS.iter().filter(|_| details)).copied().collect();
        table(&columns, rows.into_iter())
    }
}

fn about_request(about: &About) -> [String; 8] {
    let info = RequestInfo::parse(&http::Method::GET, &about.path, &Query::default());
    let (user, verb, path) = (about.user.clone(), about.verb.clone(), about.path.clone());
    let version = kube1_api::name::api_version(&info.group, &info.version);
    [user, verb, path, info.namespace, info.name, version, info.resource, info.subresource]
}

/// Cells end with a comma, but for a row's last, and are padded to the width of their column.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut all: Vec<Vec<String>> = vec![head.iter().map(|name| (*name).to_owned()).collect()];
    all.extend(rows);
    let width = |column: usize| all.iter().map(|row| row.get(column).map_or(0, |c| c.len() + 2)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &all {
        let last = row.len().saturating_sub(1);
        for (index, cell) in row.iter().enumerate() {
            if index == last {
                text.push_str(&format!("{cell}\n"));
            } else {
                text.push_str(&format!("{:width$}", format!("{cell},"), width = widths[index]));
            }
        }
    }
    text
}
