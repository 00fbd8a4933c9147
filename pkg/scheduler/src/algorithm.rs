//! Finding the best node for a pod.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::seq::IndexedRandom;
use tokio::time::Instant;

use crate::cache::Snapshot;
use crate::framework::{Diagnosis, Filter, MAX_SCORE, Plugin, Rejection};
use crate::metrics;
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::Events;

/// Clusters up to this size have all nodes looked at.
const NODES_MIN: usize = 100;

/// The rules and where the search for nodes begins.
pub struct Algorithm {
    plugins: Vec<Box<dyn Plugin>>,
    start: AtomicUsize,
}

/// The filters of one pod, each with its plugin's place.
pub type Filters = Vec<(usize, Box<dyn Filter>)>;

impl Algorithm {
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Self {
        Self { plugins, start: AtomicUsize::new(0) }
    }

    /// Changes that may help a pod which `diagnosis` was made for.
    pub fn wanted_events(&self, diagnosis: &Diagnosis) -> Events {
        let rejecting = self.plugins.iter().filter(|p| diagnosis.plugins.contains(p.name()));
        // A node that comes may always help: with none there is no plugin that rejected.
        rejecting.fold(Events::NODE_ADDED, |events, plugin| events | plugin.events())
    }

    /// The best node for a pod, or why there is none.
    pub fn schedule(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot) -> Result<Arc<str>, Box<Diagnosis>> {
        let started = Instant::now();
        let filters = self.filters(pod, snapshot);
        metrics::point("PreFilter", filters.is_ok(), started);
        let filters = filters?;
        let started = Instant::now();
        let feasible = self.feasible(pod, &filters, snapshot);
        metrics::point("Filter", feasible.is_ok(), started);
        let feasible = feasible?;
        if let [only] = feasible[..] {
            return Ok(Arc::clone(&only.name));
        }
        let started = Instant::now();
        let best = self.best(pod, snapshot, &feasible);
        metrics::point("Score", true, started);
        Ok(best)
    }

    /// Prepares the filters of a pod.
    pub fn filters(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot) -> Result<Filters, Box<Diagnosis>> {
        let mut filters = Filters::new();
        for (place, plugin) in self.plugins.iter().enumerate() {
            match plugin.filter(pod, snapshot) {
                Ok(Some(filter)) => filters.push((place, filter)),
                Ok(None) => {}
                Err(rejection) => {
                    return Err(Box::new(Diagnosis {
                        nodes: snapshot.nodes.len(),
                        for_all: Some(rejection),
                        plugins: [plugin.name()].into(),
                        ..Diagnosis::default()
                    }));
                }
            }
        }
        Ok(filters)
    }

    /// Nodes that can take the pod: all of a small cluster, a rotating part of a large one.
    fn feasible<'a>(
        &self,
        pod: &Arc<PodInfo>,
        filters: &Filters,
        snapshot: &'a Snapshot,
    ) -> Result<Vec<&'a NodeInfo>, Box<Diagnosis>> {
        let total = snapshot.nodes.len();
        let enough = enough_nodes(total);
        // Where others made room for this pod, it goes first.
        let nominated = pod.nominated_node().and_then(|name| snapshot.nodes.iter().find(|n| *n.name == *name));
        if let Some(node) = nominated.filter(|n| check_with_nominated(filters, n, pod, snapshot).is_ok()) {
            return Ok(vec![&**node]);
        }
        let mut feasible = Vec::new();
        let mut diagnosis = Diagnosis { nodes: total, ..Diagnosis::default() };
        let start = self.start.load(Ordering::Relaxed);
        let mut seen = 0;
        for offset in 0..total {
            seen = offset + 1;
            let node = &snapshot.nodes[(start + offset) % total];
            match check_with_nominated(filters, node, pod, snapshot) {
                Ok(()) => feasible.push(&**node),
                Err((place, rejection)) => {
                    diagnosis.plugins.insert(self.plugins[place].name());
                    diagnosis.rejections.insert(Arc::clone(&node.name), rejection);
                }
            }
            if feasible.len() >= enough {
                break;
            }
        }
        self.start.store((start + seen) % total.max(1), Ordering::Relaxed);
        if feasible.is_empty() { Err(Box::new(diagnosis)) } else { Ok(feasible) }
    }

    /// The node of the highest score; one of them at random if there are several.
    fn best(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Arc<str> {
        let mut totals = vec![0_i64; nodes.len()];
        for plugin in &self.plugins {
            let Some((score, weight)) = plugin.score(pod, snapshot, nodes) else { continue };
            let mut scores: Vec<i64> = nodes.iter().map(|n| score.score(n)).collect();
            score.normalize(&mut scores);
            for (total, score) in totals.iter_mut().zip(scores) {
                *total += score.clamp(0, MAX_SCORE) * weight;
            }
        }
        let max = totals.iter().copied().max().unwrap_or(0);
        let best: Vec<&&NodeInfo> = nodes.iter().zip(&totals).filter(|(_, t)| **t == max).map(|(n, _)| n).collect();
        best.choose(&mut rand::rng()).map_or_else(|| "".into(), |n| Arc::clone(&n.name))
    }
}

/// How many feasible nodes are enough to choose from: the more, the better the choice and the longer it takes.
fn enough_nodes(total: usize) -> usize {
    if total <= NODES_MIN { total } else { NODES_MIN + (total - NODES_MIN) / 20 }
}

/// Runs the filters on a node.
pub fn check(filters: &Filters, node: &NodeInfo) -> Result<(), (usize, Rejection)> {
    for (place, filter) in filters {
        filter.check(node).map_err(|rejection| (*place, rejection))?;
    }
    Ok(())
}

/// Runs the filters on a node also as it will be once pods of at least the same priority, for which others
/// were evicted, are on it. The pod must fit in both cases, as those may never come.
pub fn check_with_nominated(
    filters: &Filters,
    node: &Arc<NodeInfo>,
    pod: &PodInfo,
    snapshot: &Snapshot,
) -> Result<(), (usize, Rejection)> {
    let nominated = snapshot.nominated.get(&*node.name).into_iter().flatten();
    let ahead: Vec<&Arc<PodInfo>> = nominated.filter(|p| p.priority >= pod.priority && p.uid != pod.uid).collect();
    if !ahead.is_empty() {
        let mut crowded = NodeInfo::clone(node);
        let mut changed = clone_filters(filters);
        for other in ahead {
            crowded.add_pod(Arc::clone(other));
            for (_, filter) in &mut changed {
                filter.pod_added(other, &crowded, snapshot);
            }
        }
        check(&changed, &crowded)?;
    }
    check(filters, node)
}

pub fn clone_filters(filters: &Filters) -> Filters {
    filters.iter().map(|(place, filter)| (*place, filter.boxed_clone())).collect()
}
