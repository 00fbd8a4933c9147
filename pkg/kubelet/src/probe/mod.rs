//! Probes: asking containers whether they have started, are ready and are alive.

mod check;
mod grpc;
mod http;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Probe};
use kube1_client::{EventRecorder, EventType};
use kube1_cri::Runtime;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

pub use check::Target;
use check::{Outcome, check_handler};

use crate::meters::Meters;
use crate::node::Node;

pub use http::{HttpTarget, get};

/// Which question a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// What probes have found out about a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub started: bool,
    pub ready: bool,
    /// The probe that failed so often that the container must be restarted.
    pub dead: Option<ProbeKind>,
}

/// The probes of one pod. Dropping it ends them.
pub struct Prober {
    runtime: Runtime,
    recorder: EventRecorder,
    meters: Arc<Meters>,
    notify: Arc<Notify>,
    findings: Arc<Mutex<HashMap<String, Findings>>>,
    tasks: HashMap<(String, ProbeKind), AbortOnDropHandle<()>>,
}

/// A container to probe.
pub struct Probed<'a> {
    pub container: &'a Container,
    pub id: &'a str,
    pub started_at: Timestamp,
    pub pod_ip: &'a str,
    pub object: ObjectReference,
}

impl Prober {
    /// `notify` is told of every change of the findings.
    pub fn new(node: &Node, notify: Arc<Notify>) -> Self {
        let (runtime, recorder, meters) = (node.runtime.clone(), node.recorder.clone(), Arc::clone(&node.meters));
        Self { runtime, recorder, meters, notify, findings: Arc::default(), tasks: HashMap::new() }
    }

    /// What is known of a running container.
    pub fn findings(&self, container: &Container, id: &str) -> Findings {
        let known = self.findings.lock().get(id).cloned().unwrap_or_default();
        let started = container.startup_probe.is_none() || known.started;
        Findings { started, ready: started && (container.readiness_probe.is_none() || known.ready), dead: known.dead }
    }

    /// Takes over what was known of a container before a restart of the node agent, so that nothing flaps.
    pub fn adopt(&self, id: &str, started: bool, ready: bool) {
        self.findings.lock().entry(id.to_owned()).or_insert(Findings { started, ready, dead: None });
    }

    /// Probes exactly the given containers; `terminating` leaves only the question of readiness.
    pub fn sync(&mut self, containers: &[Probed<'_>], terminating: bool) {
        let mut wanted = Vec::new();
        for probed in containers {
            let findings = self.findings(probed.container, probed.id);
            let kinds: &[ProbeKind] =
                if !findings.started { &[ProbeKind::Startup] } else { &[ProbeKind::Readiness, ProbeKind::Liveness] };
            for kind in kinds.iter().filter(|k| !terminating || **k == ProbeKind::Readiness) {
                if let Some(probe) = kind.of(probed.container)
                    && findings.dead.is_none()
                {
                    wanted.push((probed.id.to_owned(), *kind));
                    self.start(probed, *kind, probe.clone());
                }
            }
        }
        self.tasks.retain(|key, _| wanted.contains(key));
        self.findings.lock().retain(|id, _| containers.iter().any(|c| c.id == id));
    }

    fn start(&mut self, probed: &Probed<'_>, kind: ProbeKind, probe: Probe) {
        let key = (probed.id.to_owned(), kind);
        if self.tasks.contains_key(&key) {
            return;
        }
        let worker = ProbeWorker {
            runtime: self.runtime.clone(),
            recorder: self.recorder.clone(),
            meters: Arc::clone(&self.meters),
            notify: Arc::clone(&self.notify),
            findings: Arc::clone(&self.findings),
            target: Target {
                container_id: probed.id.to_owned(),
                container: probed.container.clone(),
                pod_ip: probed.pod_ip.to_owned(),
            },
            object: probed.object.clone(),
            kind,
            probe,
        };
        let started_at = probed.started_at;
        self.tasks.insert(key, AbortOnDropHandle::new(tokio::spawn(worker.run(started_at))));
    }
}

/// One probe of one container.
struct ProbeWorker {
    runtime: Runtime,
    recorder: EventRecorder,
    meters: Arc<Meters>,
    notify: Arc<Notify>,
    findings: Arc<Mutex<HashMap<String, Findings>>>,
    target: Target,
    object: ObjectReference,
    kind: ProbeKind,
    probe: Probe,
}

fn at_least(value: Option<i32>, default: u64) -> u64 {
    value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
}

impl ProbeWorker {
    async fn run(self, started_at: Timestamp) {
        let age = Timestamp::now().duration_since(started_at).unsigned_abs();
        let delay = Duration::from_secs(at_least(self.probe.initial_delay_seconds, 0));
        tokio::time::sleep(delay.saturating_sub(age)).await;
        let period = Duration::from_secs(at_least(self.probe.period_seconds, 10));
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let successes_needed = at_least(self.probe.success_threshold, 1);
        let failures_needed = at_least(self.probe.failure_threshold, 3);
        let (mut successes, mut failures) = (0, 0);
        loop {
            ticks.tick().await;
            match self.ask().await {
                Outcome::Success => (successes, failures) = (successes + 1, 0),
                Outcome::Warning(reason) => {
                    (successes, failures) = (successes + 1, 0);
                    self.warn("ProbeWarning", &format!("warning: {reason}"));
                }
                Outcome::Failure(reason) => {
                    (successes, failures) = (0, failures + 1);
                    self.warn("Unhealthy", &format!("failed: {reason}"));
                }
                Outcome::Unknown(reason) => {
                    self.warn("Unhealthy", &format!("errored and resulted in unknown state: {reason}"));
                    continue;
                }
            }
            let finished = if successes >= successes_needed {
                self.conclude(true)
            } else if failures >= failures_needed {
                self.conclude(false)
            } else {
                false
            };
            if finished {
                return;
            }
        }
    }

    fn warn(&self, reason: &str, what: &str) {
        let message = format!("{} probe {what}", self.kind.title());
        self.recorder.event_for(self.object.clone(), EventType::Warning, reason, message);
    }

    async fn ask(&self) -> Outcome {
        let limit = Duration::from_secs(at_least(self.probe.timeout_seconds, 1));
        let asked = Instant::now();
        let outcome = check_handler(&self.runtime, &self.target, &self.probe, limit).await;
        let result = match outcome {
            Outcome::Success | Outcome::Warning(_) => "successful",
            Outcome::Failure(_) => "failed",
            Outcome::Unknown(_) => "unknown",
        };
        let container = &self.target.container.name;
        self.meters.probed(&self.object, container, self.kind.title(), result, asked.elapsed());
        outcome
    }

    /// Records a conclusion; says whether the probe has nothing more to ask.
    fn conclude(&self, good: bool) -> bool {
        let mut findings = self.findings.lock();
        let known = findings.entry(self.target.container_id.clone()).or_default();
        let before = known.clone();
        match self.kind {
            ProbeKind::Readiness => known.ready = good,
            ProbeKind::Startup if good => known.started = true,
            ProbeKind::Startup | ProbeKind::Liveness if !good => known.dead = Some(self.kind),
            ProbeKind::Startup | ProbeKind::Liveness => {}
        }
        let changed = *known != before;
        let finished = known.dead.is_some() || (self.kind == ProbeKind::Startup && known.started);
        drop(findings);
        if changed {
            self.notify.notify_one();
        }
        finished
    }
}
