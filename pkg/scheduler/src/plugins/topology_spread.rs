//! PodTopologySpread.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use kube::core::{Expression, Selector, SelectorExt};
use kube1_client::node_match::{pod_selects_node, tolerates};

use crate::cache::Snapshot;
use crate::framework::{Filter, MAX_SCORE, Plugin, Rejection, Score};
use crate::labels::{Labels, selector};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::Events;
use crate::tally::{Counts, Parts, Tallies};

const HOSTNAME: &str = "kubernetes.io/hostname";
/// Constraints of pods that state none: topology key and skew, all of them soft.
const DEFAULTS: [(&str, i64); 2] = [(HOSTNAME, 3), ("topology.kubernetes.io/zone", 5)];

/// Knows the groups that pods belong to.
pub trait Owners: Send + Sync {
    /// What selects the pods of the same Services and controller; empty when the pod belongs to none.
    fn selectors(&self, pod: &PodInfo) -> Vec<Selector>;
}

/// Spreads the pods of a group over the values of a node label.
pub struct TopologySpread {
    owners: Arc<dyn Owners>,
    tallies: Tallies<Group>,
}

/// Pods whose constraints count alike.
struct Group {
    pod: Arc<PodInfo>,
    constraints: Vec<Constraint>,
    require_keys: bool,
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        let placement = |group: &Self| {
            let spec = &group.pod.spec;
            let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
            (spec.node_selector.clone(), affinity, spec.tolerations.clone())
        };
        self.require_keys == other.require_keys
            && self.pod.key.namespace == other.pod.key.namespace
            && self.constraints == other.constraints
            && (Arc::ptr_eq(&self.pod.spec, &other.pod.spec) || placement(self) == placement(other))
    }
}

impl TopologySpread {
    pub fn new(owners: Arc<dyn Owners>) -> Self {
        Self { owners, tallies: Tallies::default() }
    }

    /// How many pods each constraint counts, one table each.
    fn counts(
        &self,
        pod: &Arc<PodInfo>,
        constraints: &[Constraint],
        require_keys: bool,
        all: &Snapshot,
    ) -> Arc<Vec<Counts>> {
        let group = Group { pod: Arc::clone(pod), constraints: constraints.to_vec(), require_keys };
        self.tallies.of(group, constraints.len(), all, |node| {
            let mut parts = Parts::of(node);
            if !require_keys || has_all_keys(constraints, node) {
                for (table, constraint) in constraints.iter().enumerate().filter(|(_, c)| c.covers(pod, node)) {
                    parts.add(table, &constraint.key, constraint.count(node, &pod.key.namespace));
                }
            }
            parts.all()
        })
    }

    /// The soft constraints of a pod, or the default ones if it has no constraints at all.
    fn soft(&self, pod: &PodInfo) -> (Vec<Constraint>, bool) {
        let own = constraints(pod);
        if !own.is_empty() {
            return (own.into_iter().filter(|c| !c.hard).collect(), true);
        }
        let selectors = self.owners.selectors(pod);
        if selectors.is_empty() {
            return (Vec::new(), false);
        }
        let default = |(key, max_skew): (&str, i64)| Constraint {
            key: key.to_owned(),
            max_skew,
            min_domains: 1,
            selectors: selectors.clone(),
            hard: false,
            honor_affinity: true,
            honor_taints: false,
        };
        (DEFAULTS.map(default).into(), false)
    }
}

#[derive(Clone, PartialEq)]
struct Constraint {
    key: String,
    max_skew: i64,
    min_domains: usize,
    /// A pod counts if all of them select it.
    selectors: Vec<Selector>,
    hard: bool,
    honor_affinity: bool,
    honor_taints: bool,
}

fn constraints(pod: &PodInfo) -> Vec<Constraint> {
    let constraints = pod.spec.topology_spread_constraints.as_deref().unwrap_or(&[]);
    constraints.iter().map(|c| Constraint::new(c, pod.labels())).collect()
}

impl Constraint {
    fn new(constraint: &TopologySpreadConstraint, labels: &Labels) -> Self {
        let mut selector = selector(constraint.label_selector.as_ref());
        if let Some(selector) = &mut selector {
            let same = |key: &String| labels.get(key).map(|v| Expression::Equal(key.clone(), v.clone()));
            selector.extend(constraint.match_label_keys.iter().flatten().filter_map(same));
        }
        // A selector that selects nothing.
        let nothing = || Expression::In(String::new(), std::collections::BTreeSet::new()).into();
        Self {
            key: constraint.topology_key.clone(),
            max_skew: i64::from(constraint.max_skew),
            min_domains: constraint.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            selectors: vec![selector.unwrap_or_else(nothing)],
            hard: constraint.when_unsatisfiable != "ScheduleAnyway",
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    fn selects(&self, pod: &PodInfo, namespace: &str) -> bool {
        pod.key.namespace == namespace && !pod.is_terminating() && self.selects_labels(pod.labels())
    }

    fn selects_labels(&self, labels: &Labels) -> bool {
        self.selectors.iter().all(|s| s.matches(labels))
    }

    /// Whether the node is one that the pod could be spread to.
    fn covers(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        let tolerations = pod.spec.tolerations.as_deref().unwrap_or(&[]);
        (!self.honor_affinity || pod_selects_node(&pod.spec, node.labels(), &node.name))
            && (!self.honor_taints
                || node.taints().iter().all(|t| t.effect == "PreferNoSchedule" || tolerates(tolerations, t)))
    }

    fn count(&self, node: &NodeInfo, namespace: &str) -> i64 {
        let count = node.pods.values().filter(|p| self.selects(p, namespace)).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    }
}

impl Plugin for TopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn events(&self) -> Events {
        Events::NODE_ADDED | Events::NODE_LABELS | Events::NODE_TAINTS | Events::POD_PLACED | Events::POD_GONE
    }

    fn filter(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot) -> Result<Option<Box<dyn Filter>>, Rejection> {
        let hard: Vec<Constraint> = constraints(pod).into_iter().filter(|c| c.hard).collect();
        if hard.is_empty() {
            return Ok(None);
        }
        let counts = self.counts(pod, &hard, true, snapshot);
        let least = least(&hard, &counts);
        Ok(Some(Box::new(Hard { pod: Arc::clone(pod), constraints: hard, counts, least })))
    }

    fn score(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Option<(Box<dyn Score>, i64)> {
        let (soft, require_keys) = self.soft(pod);
        if soft.is_empty() {
            return None;
        }
        let totals = self.counts(pod, &soft, require_keys, snapshot);
        let mut counts: Vec<HashMap<String, i64>> = vec![HashMap::new(); soft.len()];
        for node in nodes.iter().filter(|n| !require_keys || has_all_keys(&soft, n)) {
            for ((constraint, counts), totals) in soft.iter().zip(&mut counts).zip(&*totals) {
                if let Some(value) = node.labels().get(&constraint.key).filter(|value| !counts.contains_key(*value)) {
                    counts.insert(value.clone(), totals.get(&constraint.key, value).unwrap_or(0));
                }
            }
        }
        Some((Box::new(Soft { namespace: pod.key.namespace.clone(), constraints: soft, counts, require_keys }), 2))
    }
}

fn has_all_keys(constraints: &[Constraint], node: &NodeInfo) -> bool {
    constraints.iter().all(|c| node.labels().contains_key(&c.key))
}

#[derive(Clone)]
struct Hard {
    pod: Arc<PodInfo>,
    constraints: Vec<Constraint>,
    /// Pods by topology value, for each constraint.
    counts: Arc<Vec<Counts>>,
    /// The fewest pods that any value has, for each constraint.
    least: Vec<i64>,
}

/// Values that are missing although there should be more count as empty.
fn least(constraints: &[Constraint], counts: &[Counts]) -> Vec<i64> {
    let least = |(constraint, counts): (&Constraint, &Counts)| {
        let counts = counts.of_key(&constraint.key);
        if counts.len() >= constraint.min_domains { counts.min().unwrap_or(0) } else { 0 }
    };
    constraints.iter().zip(counts).map(least).collect()
}

impl Hard {
    fn change(&mut self, other: &PodInfo, node: &NodeInfo, amount: i64) {
        if !has_all_keys(&self.constraints, node) {
            return;
        }
        for (constraint, counts) in self.constraints.iter().zip(Arc::make_mut(&mut self.counts)) {
            if constraint.selects(other, &self.pod.key.namespace)
                && constraint.covers(&self.pod, node)
                && let Some(value) = node.labels().get(&constraint.key)
            {
                counts.change(&constraint.key, value, amount);
            }
        }
        self.least = least(&self.constraints, &self.counts);
    }
}

impl Filter for Hard {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for ((constraint, counts), min) in self.constraints.iter().zip(&*self.counts).zip(&self.least) {
            let Some(value) = node.labels().get(&constraint.key) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Rejection::unresolvable(reason));
            };
            let itself = i64::from(constraint.selects_labels(self.pod.labels()));
            if counts.get(&constraint.key, value).unwrap_or(0) + itself - min > constraint.max_skew {
                return Err(Rejection::resolvable("node(s) didn't match pod topology spread constraints"));
            }
        }
        Ok(())
    }

    fn pod_added(&mut self, pod: &PodInfo, node: &NodeInfo, _snapshot: &Snapshot) {
        self.change(pod, node, 1);
    }

    fn pod_removed(&mut self, pod: &PodInfo, node: &NodeInfo, _snapshot: &Snapshot) {
        self.change(pod, node, -1);
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

struct Soft {
    namespace: String,
    constraints: Vec<Constraint>,
    counts: Vec<HashMap<String, i64>>,
    require_keys: bool,
}

/// Score of a node that lacks a topology label; normalised to nothing.
const IGNORED: i64 = -1;

impl Score for Soft {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    fn score(&self, node: &NodeInfo) -> i64 {
        if self.require_keys && !has_all_keys(&self.constraints, node) {
            return IGNORED;
        }
        let mut score = 0.0;
        for (constraint, counts) in self.constraints.iter().zip(&self.counts) {
            let Some(value) = node.labels().get(&constraint.key) else { continue };
            let count = if constraint.key == HOSTNAME {
                constraint.count(node, &self.namespace)
            } else {
                counts.get(value).copied().unwrap_or(0)
            };
            // Domains matter more the more there are of them.
            let weight = ((counts.len() + 2) as f64).ln();
            score += count as f64 * weight + (constraint.max_skew - 1) as f64;
        }
        score.round() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        let valid = || scores.iter().copied().filter(|s| *s != IGNORED);
        let (min, max) = (valid().min().unwrap_or(0), valid().max().unwrap_or(0));
        for score in scores.iter_mut() {
            *score = match (*score, max) {
                (IGNORED, _) => 0,
                (_, 0) => MAX_SCORE,
                (score, max) => MAX_SCORE * (max + min - score) / max,
            };
        }
    }
}

#[cfg(test)]
mod tests;
