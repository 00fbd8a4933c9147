//! Probing and reporting.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::PodWorker;
use crate::container::termination_path;
use crate::labels;
use crate::meters::all_started;
use crate::node::{PodUpdate, container_ref};
use crate::observed::{Observed, ObservedContainer};
use crate::pod::{self, ContainerKind, PodExt};
use crate::probe::{Findings, Probed};
use crate::restart_round::Round;
use crate::status::{StatusInputs, pod_status};

/// Most of a container's last words that are kept.
const MESSAGE_MAX: usize = 4096;
const LOG_TAIL_LINES: usize = 80;
const LOG_TAIL_BYTES: usize = 2048;
/// How much of a crashed container's output its waiting state shows.
const LAST_LINES: usize = 3;
const LAST_BYTES: usize = 300;

impl PodWorker {
    /// Probes the containers that run.
    pub(super) fn probe(&mut self, pod: &Pod, observed: &Observed, terminating: bool) {
        let ips = if pod.is_host_network() { vec![self.node.config.node_ip.to_string()] } else { observed.pod_ips() };
        let ip = ips.first().cloned().unwrap_or_default();
        let all = pod::containers(pod.spec());
        let mut probed = Vec::new();
        for (kind, container) in
            all.iter().filter(|(k, _)| matches!(k, ContainerKind::Regular | ContainerKind::Sidecar))
        {
            let Some(current) = observed.latest(&container.name).filter(|c| c.is_running()) else { continue };
            let started = Timestamp::from_nanosecond(i128::from(current.status.started_at));
            probed.push(Probed {
                container,
                id: current.id(),
                started_at: started.unwrap_or_else(|_| Timestamp::now()),
                pod_ip: &ip,
                object: container_ref(pod, *kind, &container.name),
            });
        }
        self.prober.sync(&probed, terminating);
    }

    /// What is known of the running containers, by id.
    pub(super) fn all_findings(&self, pod: &Pod, observed: &Observed) -> HashMap<String, Findings> {
        let all = pod::containers(pod.spec());
        let of = |c: &ObservedContainer| {
            let (_, container) = all.iter().find(|(_, spec)| spec.name == c.name)?;
            Some((c.id().to_owned(), self.prober.findings(container, c.id())))
        };
        observed.running().filter_map(of).collect()
    }

    /// Reports the pod's status.
    pub(super) fn report(&mut self, update: &PodUpdate, observed: &Observed) {
        let status = self.status(update, observed);
        if let Some(seen) = self.starting.filter(|_| all_started(&update.pod, &status)) {
            self.starting = None;
            self.node.meters.pod_runs(&update.pod, &status, seen.elapsed(), self.pulling);
        }
        *self.entry.status.lock() = Some(status.clone());
        if let Some(api_pod) = update.api_pod().map(Arc::clone) {
            self.writer.report(&api_pod, status);
        }
    }

    fn status(&self, update: &PodUpdate, observed: &Observed) -> PodStatus {
        let pod = &update.pod;
        let last = self.writer.last();
        let in_api = update.api_pod().map(|p| p.status().clone()).unwrap_or_default();
        let mut previous = last.unwrap_or_else(|| in_api.clone());
        // The conditions of others come from the API; this node's own from what it reported last.
        let own = previous.conditions.take().unwrap_or_default();
        let others = in_api
            .conditions
            .into_iter()
            .flatten()
            .filter(|c| !own.iter().any(|o| o.type_ == c.type_ && crate::status::is_own_condition(&c.type_)));
        previous.conditions =
            Some(own.iter().filter(|c| crate::status::is_own_condition(&c.type_)).cloned().chain(others).collect());
        let facts = self.node.facts(Vec::new());
        let findings = self.all_findings(pod, observed);
        let message = |container: &ObservedContainer| self.last_words(pod, container);
        let resources = |name: &str| {
            let running = observed.latest(name).filter(|c| c.is_running())?;
            self.applied.get(running.id()).cloned()
        };
        let mut status = pod_status(&StatusInputs {
            pod,
            previous: &previous,
            facts: &facts,
            observed,
            round: Round::of(pod, observed),
            findings: &findings,
            waiting: &self.waiting,
            message: &message,
            verdict: self.verdict.as_ref(),
            ended: self.ended,
            resize: self.resizing.as_ref(),
            resources: &resources,
            pod_resources: self.applied_to_pod.as_ref(),
        });
        // Belongs to the scheduler and to claims, and is never taken away here.
        status.nominated_node_name =
            previous.nominated_node_name.filter(|_| status.phase.as_deref() == Some("Pending"));
        status
    }

    /// The end of what a crashed container printed: most crashes explain themselves there.
    pub(super) fn last_lines(&self, pod: &Pod, container: &ObservedContainer) -> Option<String> {
        let dir = self.node.config.pod_log_dir(pod.namespace(), pod.name(), &self.uid);
        let log = dir.join(&container.name).join(format!("{}.log", container.attempt));
        let text = crate::log_file::tail(&log, LAST_LINES, LAST_BYTES).ok()?;
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        (!lines.is_empty()).then(|| lines.join(" | "))
    }

    /// What a container said at its end.
    fn last_words(&self, pod: &Pod, container: &ObservedContainer) -> Option<String> {
        let path = termination_path(&self.node.config, &self.uid, &container.name, container.attempt);
        let text = std::fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[..text.len().min(MESSAGE_MAX)]).into_owned();
        if !text.is_empty() {
            return Some(text);
        }
        let failed = container.status.exit_code != 0;
        if failed && container.annotation(labels::MESSAGE_POLICY) == "FallbackToLogsOnError" {
            let dir = self.node.config.pod_log_dir(pod.namespace(), pod.name(), &self.uid);
            let log = dir.join(&container.name).join(format!("{}.log", container.attempt));
            return crate::log_file::tail(&log, LOG_TAIL_LINES, LOG_TAIL_BYTES).ok().filter(|t| !t.is_empty());
        }
        Some(container.status.message.clone()).filter(|m| !m.is_empty())
    }
}
