//! What plugins are: filters that rule nodes out and scores that order the rest.

use std::collections::{BTreeMap, BTreeSet};

use std::sync::Arc;

use crate::cache::Snapshot;
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::Events;

/// Scores of plugins lie between 0 and this.
pub const MAX_SCORE: i64 = 100;

/// Why a node cannot take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reasons: Vec<String>,
    /// Whether removing other pods from the node cannot help.
    pub unresolvable: bool,
}

impl Rejection {
    /// Removing pods may help.
    pub fn resolvable(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], unresolvable: false }
    }

    pub fn unresolvable(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], unresolvable: true }
    }
}

/// A filter prepared for one pod. It owns what it needs, so that preemption can try changes on a copy.
pub trait Filter: Send + Sync {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection>;

    /// `pod` was added to `node`, which shows it already. Only filters that look beyond one node need to know.
    fn pod_added(&mut self, _pod: &PodInfo, _node: &NodeInfo, _snapshot: &Snapshot) {}

    fn pod_removed(&mut self, _pod: &PodInfo, _node: &NodeInfo, _snapshot: &Snapshot) {}

    fn boxed_clone(&self) -> Box<dyn Filter>;
}

/// A score prepared for one pod.
pub trait Score {
    fn score(&self, node: &NodeInfo) -> i64;

    /// Brings the scores of all candidate nodes into 0..=[`MAX_SCORE`].
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// One scheduling rule.
pub trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    /// Changes of the cluster that may make a pod fit that this plugin rejected.
    fn events(&self) -> Events;

    /// Prepares the filter for a pod; None when every node is fine. An error rejects the pod on all nodes.
    fn filter(&self, _pod: &Arc<PodInfo>, _snapshot: &Snapshot) -> Result<Option<Box<dyn Filter>>, Rejection> {
        Ok(None)
    }

    /// Prepares the score with its weight; None when all nodes are equal to it.
    fn score(&self, _pod: &Arc<PodInfo>, _snapshot: &Snapshot, _nodes: &[&NodeInfo]) -> Option<(Box<dyn Score>, i64)> {
        None
    }
}

/// Scales scores so that the highest becomes [`MAX_SCORE`]; reversed, the lowest score becomes the best.
pub fn normalize_to_max(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        *score = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        if reverse {
            *score = MAX_SCORE - *score;
        }
    }
}

/// Why a pod fits no node.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    pub nodes: usize,
    /// By node name.
    pub rejections: BTreeMap<Arc<str>, Rejection>,
    /// A reason that holds for all nodes.
    pub for_all: Option<Rejection>,
    pub plugins: BTreeSet<&'static str>,
    /// What preemption found.
    pub preemption: Option<String>,
}

impl Diagnosis {
    /// The message for people, in upstream's words.
    pub fn message(&self) -> String {
        let mut message = summary(self.nodes, self.for_all.as_ref(), self.rejections.values());
        if let Some(preemption) = &self.preemption {
            message.push_str(" preemption: ");
            message.push_str(preemption);
        }
        message
    }
}

/// `0/N nodes are available: COUNT REASON, COUNT REASON.`
pub fn summary<'a>(
    nodes: usize,
    for_all: Option<&Rejection>,
    rejections: impl Iterator<Item = &'a Rejection>,
) -> String {
    if nodes == 0 && for_all.is_none() {
        return "no nodes available to schedule pods".to_owned();
    }
    if let Some(rejection) = for_all {
        return format!("0/{nodes} nodes are available: {}.", rejection.reasons.join(", "));
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in rejections.flat_map(|r| &r.reasons) {
        *counts.entry(reason).or_default() += 1;
    }
    let mut reasons: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort();
    format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
}
