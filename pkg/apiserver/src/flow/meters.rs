//! Metrics of priority and fairness.

use std::time::Duration;

use kube1_telemetry::metrics::{Counter, Histogram};

use super::demand::Share;
use super::work::Work;
use crate::metrics::{Counters, Gauge, Gauges, Histograms, Names, Registrar};

const TIMES: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const SEATS: &[f64] = &[1.0, 2.0, 4.0, 10.0];
const LEVEL: Names = &["priority_level"];
const FLOW: Names = &["priority_level", "flow_schema"];
const EXECUTED: Names = &["priority_level", "flow_schema", "execute"];
const TYPED: Names = &["priority_level", "flow_schema", "type"];

/// Gauges of levels: their name after `apiserver_flowcontrol_`, and what they show.
const OF_LEVELS: [(&str, &str); 10] = [
    ("nominal_limit_seats", "Nominal number of execution seats configured for each priority level"),
    ("lower_limit_seats", "Configured lower bound on number of execution seats available to each priority level"),
    ("upper_limit_seats", "Configured upper bound on number of execution seats available to each priority level"),
    ("current_limit_seats", "Current derived number of execution seats available to each priority level"),
    ("request_concurrency_limit", "Nominal number of execution seats configured for each priority level"),
    ("demand_seats_high_watermark", "High watermark, over last adjustment period, of demand_seats"),
    ("demand_seats_average", "Time-weighted average, over last adjustment period, of demand_seats"),
    ("demand_seats_stdev", "Time-weighted standard deviation, over last adjustment period, of demand_seats"),
    ("demand_seats_smoothed", "Smoothed seat demands"),
    ("target_seats", "Seat allocation targets"),
];

/// All of them. Cheap to clone.
#[derive(Clone)]
pub struct FlowMetrics {
    rejected: Counters,
    dispatched: Counters,
    waiting: Gauges,
    executing: Gauges,
    seats: Gauges,
    waited: Histograms,
    executed: Histograms,
    widths: Histograms,
    levels: Vec<Gauges>,
    fraction: Gauges,
}

impl FlowMetrics {
    pub fn new(r: &mut Registrar) -> Self {
        let name = |name: &str| format!("apiserver_flowcontrol_{name}");
        let reasons: Names = &["priority_level", "flow_schema", "reason"];
        let waited = "Length of time a request spent waiting in its queue";
        Self {
            rejected: r.counters(
                &name("rejected_requests"),
                "Number of requests rejected by API Priority and Fairness",
                reasons,
            ),
            dispatched: r.counters(
                &name("dispatched_requests"),
                "Number of requests executed by API Priority and Fairness",
                FLOW,
            ),
            waiting: r.gauges(
                &name("current_inqueue_requests"),
                "Number of requests currently pending in queues",
                FLOW,
            ),
            executing: r.gauges(
                &name("current_executing_requests"),
                "Number of requests in initial or final execution stage",
                FLOW,
            ),
            seats: r.gauges(
                &name("current_executing_seats"),
                "Concurrency occupied by the currently executing requests",
                FLOW,
            ),
            waited: r.histograms(&name("request_wait_duration_seconds"), waited, EXECUTED, TIMES),
            executed: r.histograms(
                &name("request_execution_seconds"),
                "Duration of initial stage of request execution",
                TYPED,
                TIMES,
            ),
            widths: r.histograms(&name("work_estimated_seats"), "Number of estimated seats of requests", FLOW, SEATS),
            levels: OF_LEVELS.iter().map(|(gauge, help)| r.gauges(&name(gauge), help, LEVEL)).collect(),
            fraction: r.gauges(
                &name("seat_fair_frac"),
                "Fair fraction of server's concurrency to allocate to each priority level that can use it",
                &[],
            ),
        }
    }

    /// Those of one schema's requests.
    pub fn of(&self, level: &str, schema: &str) -> Meters {
        let flow = [level, schema];
        Meters {
            level: level.to_owned(),
            schema: schema.to_owned(),
            rejected: self.rejected.clone(),
            dispatched: self.dispatched.at(&flow),
            waiting: self.waiting.at(&flow),
            executing: self.executing.at(&flow),
            seats: self.seats.at(&flow),
            waited: self.waited.at(&[level, schema, "true"]),
            turned_away: self.waited.at(&[level, schema, "false"]),
            executed: self.executed.at(&[level, schema, "regular"]),
            watched: self.executed.at(&[level, schema, "watch"]),
            widths: self.widths.at(&flow),
        }
    }

    /// Shows the seats of a level.
    pub fn level(&self, name: &str, share: &Share) {
        let (bounds, seen) = (share.bounds, share.observed);
        let values = [
            bounds.nominal,
            bounds.least,
            bounds.most,
            share.current,
            bounds.nominal,
            seen.high,
            seen.average,
            seen.deviation,
            share.smoothed,
            share.target,
        ];
        self.levels.iter().zip(values).for_each(|(gauge, value)| gauge.set(&[name], value));
    }

    pub fn fraction(&self, fraction: f64) {
        self.fraction.set(&[], fraction);
    }
}

/// Metrics of one schema's requests, found once.
pub struct Meters {
    level: String,
    schema: String,
    rejected: Counters,
    dispatched: Counter,
    waiting: Gauge,
    executing: Gauge,
    seats: Gauge,
    waited: Histogram,
    turned_away: Histogram,
    executed: Histogram,
    watched: Histogram,
    widths: Histogram,
}

impl Meters {
    pub fn waiting(&self, change: f64) {
        self.waiting.inc_by(change);
    }

    pub fn began(&self, work: Work) {
        self.dispatched.inc();
        self.executing.inc();
        self.seats.inc_by(f64::from(work.seats()));
        self.widths.observe(f64::from(work.initial_seats));
    }

    pub fn answered(&self, took: Duration, watch: bool) {
        if watch { &self.watched } else { &self.executed }.observe(took.as_secs_f64());
    }

    pub fn ended(&self, work: Work) {
        self.executing.dec();
        self.seats.dec_by(f64::from(work.seats()));
    }

    pub fn waited(&self, took: Duration, executes: bool) {
        if executes { &self.waited } else { &self.turned_away }.observe(took.as_secs_f64());
    }

    pub fn rejected(&self, reason: &str) {
        self.rejected.inc(&[&self.level, &self.schema, reason]);
    }
}
