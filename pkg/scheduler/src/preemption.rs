//! Preemption: which pods of lower priority must leave so that a pod fits.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::SelectorExt;

use crate::algorithm::{Filters, check, clone_filters};
use crate::cache::Snapshot;
use crate::framework::{Diagnosis, Filter, Rejection, summary};
use crate::labels::selector;
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// A node to make room on, and the pods that must leave it.
#[derive(Debug)]
pub struct Preemption {
    pub node: String,
    pub victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

/// Why no pods are evicted for a pod.
#[derive(Debug)]
pub struct NoPreemption {
    pub message: String,
    /// Whether the room made for the pod earlier is still meant for it.
    pub nomination_holds: bool,
}

impl NoPreemption {
    fn new(message: impl Into<String>, nomination_holds: bool) -> Self {
        Self { message: message.into(), nomination_holds }
    }
}

/// Finds the node where making room costs least, or says why there is none.
pub fn find(
    pod: &Arc<PodInfo>,
    filters: &Filters,
    snapshot: &Snapshot,
    diagnosis: &Diagnosis,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Result<Preemption, NoPreemption> {
    if pod.spec.preemption_policy.as_deref() == Some("Never") {
        return Err(NoPreemption::new("not eligible due to preemptionPolicy=Never.", true));
    }
    if waits_for_victims(pod, snapshot) {
        return Err(NoPreemption::new("not eligible due to a terminating pod on the nominated node.", true));
    }
    let mut rejections: HashMap<&str, Rejection> = HashMap::new();
    let mut found = Vec::new();
    for node in &snapshot.nodes {
        let helpful = diagnosis.rejections.get(&node.name).is_none_or(|r| !r.unresolvable);
        if !helpful {
            rejections.insert(&node.name, Rejection::resolvable("Preemption is not helpful for scheduling"));
            continue;
        }
        match victims_on(node, pod, filters, snapshot, budgets) {
            Ok(preemption) => found.push(preemption),
            Err(rejection) => {
                rejections.insert(&node.name, rejection);
            }
        }
    }
    let cheapest = found.into_iter().min_by_key(cost);
    cheapest.ok_or_else(|| NoPreemption::new(summary(snapshot.nodes.len(), None, rejections.values()), false))
}

/// Whether pods that were evicted for this one are still leaving its nominated node.
fn waits_for_victims(pod: &PodInfo, snapshot: &Snapshot) -> bool {
    let Some(name) = pod.nominated_node() else { return false };
    let node = snapshot.nodes.iter().find(|n| *n.name == *name);
    let leaving = |p: &Arc<PodInfo>| p.is_terminating() && p.priority < pod.priority && p.preempted;
    node.is_some_and(|n| n.pods.values().any(leaving))
}

/// Fewest broken budgets, then the least important victims, then few of them, then the ones that ran shortest.
fn cost(preemption: &Preemption) -> impl Ord + use<> {
    let victims = &preemption.victims;
    let highest = victims.iter().map(|p| p.priority).max();
    // Shifted, so that several victims of negative priority cost more than one.
    let sum: i64 = victims.iter().map(|p| i64::from(p.priority) - i64::from(i32::MIN)).sum();
    let earliest = victims.iter().filter(|p| Some(p.priority) == highest).filter_map(|p| p.started.clone()).min();
    (preemption.violations, highest, sum, victims.len(), Reverse(earliest))
}

/// A copy of a node and the filters, on which removals are tried.
struct Trial<'a> {
    node: NodeInfo,
    filters: Filters,
    snapshot: &'a Snapshot,
}

impl Trial<'_> {
    fn remove(&mut self, pod: &Arc<PodInfo>) {
        self.node.remove_pod(&pod.uid);
        self.tell(pod, |filter, pod, node, snapshot| filter.pod_removed(pod, node, snapshot));
    }

    fn add(&mut self, pod: &Arc<PodInfo>) {
        self.node.add_pod(Arc::clone(pod));
        self.tell(pod, |filter, pod, node, snapshot| filter.pod_added(pod, node, snapshot));
    }

    fn tell(&mut self, pod: &PodInfo, what: fn(&mut dyn Filter, &PodInfo, &NodeInfo, &Snapshot)) {
        for (_, filter) in &mut self.filters {
            what(filter.as_mut(), pod, &self.node, self.snapshot);
        }
    }

    fn fits(&self) -> Result<(), Rejection> {
        check(&self.filters, &self.node).map_err(|(_, rejection)| rejection)
    }
}

/// The fewest pods that must leave the node: all less important ones leave at first, then as many as possible return,
/// those protected by a disruption budget and the most important first.
fn victims_on(
    node: &Arc<NodeInfo>,
    pod: &Arc<PodInfo>,
    filters: &Filters,
    snapshot: &Snapshot,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Result<Preemption, Rejection> {
    let mut candidates: Vec<Arc<PodInfo>> = node.pods.values().filter(|p| p.priority < pod.priority).cloned().collect();
    if candidates.is_empty() {
        return Err(Rejection::resolvable("No preemption victims found for incoming pod"));
    }
    candidates.sort_by_key(|p| (Reverse(p.priority), p.started.clone()));
    let mut trial = Trial { node: NodeInfo::clone(node), filters: clone_filters(filters), snapshot };
    let ahead = snapshot.nominated.get(&*node.name).into_iter().flatten();
    for other in ahead.filter(|p| p.priority >= pod.priority && p.uid != pod.uid) {
        trial.add(other);
    }
    for candidate in &candidates {
        trial.remove(candidate);
    }
    trial.fits()?;
    let (protected, free) = split_by_budgets(&candidates, budgets);
    let mut victims = Vec::new();
    let mut reprieve = |pod: &Arc<PodInfo>, victims: &mut Vec<Arc<PodInfo>>| {
        trial.add(pod);
        let stays = trial.fits().is_ok();
        if !stays {
            trial.remove(pod);
            victims.push(Arc::clone(pod));
        }
        stays
    };
    let violations = protected.iter().filter(|p| !reprieve(p, &mut victims)).count();
    for pod in &free {
        reprieve(pod, &mut victims);
    }
    victims.sort_by_key(|p| Reverse(p.priority));
    Ok(Preemption { node: node.name.to_string(), victims, violations })
}

type Pods = Vec<Arc<PodInfo>>;

/// Pods whose eviction would break a budget, and the others.
fn split_by_budgets(pods: &[Arc<PodInfo>], budgets: &[Arc<PodDisruptionBudget>]) -> (Pods, Pods) {
    let allowed = |b: &PodDisruptionBudget| b.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0);
    let mut left: Vec<i32> = budgets.iter().map(|b| allowed(b)).collect();
    let (mut protected, mut free) = (Vec::new(), Vec::new());
    for pod in pods {
        let mut violates = false;
        for (_, left) in budgets.iter().zip(&mut left).filter(|(b, _)| covers(b, pod)) {
            *left -= 1;
            violates |= *left < 0;
        }
        if violates { protected.push(Arc::clone(pod)) } else { free.push(Arc::clone(pod)) }
    }
    (protected, free)
}

fn covers(budget: &PodDisruptionBudget, pod: &PodInfo) -> bool {
    let disrupted = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
    budget.metadata.namespace.as_deref() == Some(&pod.key.namespace)
        && !disrupted.is_some_and(|d| d.contains_key(&pod.key.name))
        && selector(budget.spec.as_ref().and_then(|s| s.selector.as_ref()))
            .is_some_and(|s| !s.selects_all() && s.matches(pod.labels()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cache::Cache;
    use crate::testing::{node, pod, pod_with, scheduler};

    fn of_priority(name: &str, cpu: &str, priority: i32) -> Arc<PodInfo> {
        pod_with(name, cpu, json!({"app": name}), json!({"priority": priority}))
    }

    fn preempt(
        cache: &Cache,
        pod: &Arc<PodInfo>,
        budgets: &[Arc<PodDisruptionBudget>],
    ) -> Result<Preemption, NoPreemption> {
        let (algorithm, snapshot) = (scheduler(), cache.snapshot());
        let diagnosis = algorithm.schedule(pod, &snapshot).unwrap_err();
        find(pod, &algorithm.filters(pod, &snapshot).unwrap(), &snapshot, &diagnosis, budgets)
    }

    fn names(preemption: &Preemption) -> Vec<&str> {
        preemption.victims.iter().map(|p| p.key.name.as_str()).collect()
    }

    #[test]
    fn only_as_many_and_the_least_important_pods_leave() {
        let mut cache = Cache::default();
        cache.set_node(node("n", "4"));
        for (name, cpu, priority) in [("a", "1", 1), ("b", "1", 2), ("c", "2", 3)] {
            cache.assume(of_priority(name, cpu, priority), "n");
        }
        let found = preempt(&cache, &of_priority("p", "2", 10), &[]).unwrap();
        assert_eq!((found.node.as_str(), names(&found)), ("n", vec!["b", "a"]));
        let found = preempt(&cache, &of_priority("p", "1", 2), &[]).unwrap();
        assert_eq!(names(&found), ["a"]);
    }

    #[test]
    fn nodes_whose_budgets_stay_whole_are_preferred() {
        let mut cache = Cache::default();
        cache.set_node(node("n1", "1"));
        cache.set_node(node("n2", "1"));
        cache.assume(of_priority("guarded", "1", 1), "n1");
        cache.assume(of_priority("free", "1", 5), "n2");
        let budget: PodDisruptionBudget = serde_json::from_value(json!({
            "metadata": {"name": "b", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "guarded"}}},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}}))
        .unwrap();
        let found = preempt(&cache, &of_priority("p", "1", 10), &[Arc::new(budget)]).unwrap();
        assert_eq!(names(&found), ["free"]);
        let found = preempt(&cache, &of_priority("p", "1", 10), &[]).unwrap();
        assert_eq!(names(&found), ["guarded"]);
    }

    #[test]
    fn failure_is_told_in_upstreams_words() {
        let mut cache = Cache::default();
        cache.set_node(node("n1", "1"));
        cache.set_node(crate::testing::node_with(
            "n2",
            "4",
            json!({}),
            json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}),
        ));
        cache.assume(pod("a", "1"), "n1");
        let (algorithm, snapshot, p) = (scheduler(), cache.snapshot(), pod("p", "1"));
        let mut diagnosis = algorithm.schedule(&p, &snapshot).unwrap_err();
        let filters = algorithm.filters(&p, &snapshot).unwrap();
        diagnosis.preemption = find(&p, &filters, &snapshot, &diagnosis, &[]).err().map(|e| e.message);
        assert_eq!(
            diagnosis.message(),
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). preemption: 0/2 nodes \
             are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
        );
    }
}
