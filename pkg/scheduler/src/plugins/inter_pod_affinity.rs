//! InterPodAffinity.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::Snapshot;
use crate::framework::{Filter, MAX_SCORE, Plugin, Rejection, Score};
use crate::labels::Labels;
use crate::node_info::NodeInfo;
use crate::pod_info::{AffinityTerm, PodInfo};
use crate::queue::Events;

/// Weight of the required affinity of pods that are there already in the score of a node.
const REQUIRED_WEIGHT: i64 = 1;

/// Places pods near the pods they want and away from those they, or which, do not want.
pub struct InterPodAffinity;

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn events(&self) -> Events {
        Events::NODE_ADDED | Events::NODE_LABELS | Events::POD_PLACED | Events::POD_GONE | Events::NAMESPACES
    }

    fn filter(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot) -> Result<Option<Box<dyn Filter>>, Rejection> {
        let labels = snapshot.namespace_labels(&pod.key.namespace);
        let selects_itself = pod.affinity.iter().all(|t| t.selects(pod, labels));
        let mut rules = Rules {
            pod: Arc::clone(pod),
            selects_itself,
            existing_anti: Counts::default(),
            affinity: Counts::default(),
            anti: Counts::default(),
        };
        let own_terms = !pod.affinity.is_empty() || !pod.anti_affinity.is_empty();
        for node in snapshot.nodes.iter().filter(|n| own_terms || n.with_affinity > 0) {
            for other in node.pods.values().filter(|p| own_terms || !p.anti_affinity.is_empty()) {
                rules.count(other, node, snapshot, 1);
            }
        }
        Ok((own_terms || !rules.existing_anti.is_empty()).then(|| Box::new(rules) as Box<dyn Filter>))
    }

    fn score(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot, _nodes: &[&NodeInfo]) -> Option<(Box<dyn Score>, i64)> {
        let mut weights = Counts::default();
        let own = !pod.preferred_affinity.is_empty() || !pod.preferred_anti_affinity.is_empty();
        for node in snapshot.nodes.iter().filter(|n| own || n.with_affinity > 0) {
            for other in node.pods.values().filter(|p| own || p.has_affinity()) {
                weigh(&mut weights, pod, other, node, snapshot);
            }
        }
        (!weights.is_empty()).then(|| (Box::new(Weights(weights)) as Box<dyn Score>, 2))
    }
}

/// Counts by topology key and the value that nodes have for it.
#[derive(Clone, Default)]
struct Counts(HashMap<String, HashMap<String, i64>>);

impl Counts {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, key: &str, labels: &Labels, amount: i64) {
        let Some(value) = labels.get(key) else { return };
        let values = match self.0.get_mut(key) {
            Some(values) => values,
            None => self.0.entry(key.to_owned()).or_default(),
        };
        match values.get_mut(value) {
            Some(count) => *count += amount,
            None => {
                values.insert(value.clone(), amount);
            }
        }
    }

    fn get(&self, key: &str, value: &str) -> i64 {
        self.0.get(key).and_then(|values| values.get(value)).copied().unwrap_or(0)
    }
}

#[derive(Clone)]
struct Rules {
    pod: Arc<PodInfo>,
    selects_itself: bool,
    /// Terms of pods that are there, which select this pod.
    existing_anti: Counts,
    /// Pods that this pod's terms select.
    affinity: Counts,
    anti: Counts,
}

impl Rules {
    fn count(&mut self, other: &PodInfo, node: &NodeInfo, snapshot: &Snapshot, amount: i64) {
        let labels = node.labels();
        let own_namespace = snapshot.namespace_labels(&self.pod.key.namespace);
        for term in other.anti_affinity.iter().filter(|t| t.selects(&self.pod, own_namespace)) {
            self.existing_anti.add(&term.topology_key, labels, amount);
        }
        let namespace = snapshot.namespace_labels(&other.key.namespace);
        let wanted = &self.pod.affinity;
        if !wanted.is_empty() && wanted.iter().all(|t| t.selects(other, namespace)) {
            for term in wanted {
                self.affinity.add(&term.topology_key, labels, amount);
            }
        }
        for term in self.pod.anti_affinity.iter().filter(|t| t.selects(other, namespace)) {
            self.anti.add(&term.topology_key, labels, amount);
        }
    }

    fn affinity_holds(&self, labels: &Labels) -> bool {
        let near = |t: &AffinityTerm| labels.get(&t.topology_key).map(|v| self.affinity.get(&t.topology_key, v) > 0);
        let found: Vec<Option<bool>> = self.pod.affinity.iter().map(near).collect();
        if found.iter().any(Option::is_none) {
            return false;
        }
        // The first pod of a group that wants to be together has nobody to join.
        let alone = || self.selects_itself && self.affinity.0.values().all(|v| v.values().all(|count| *count <= 0));
        found.iter().all(|near| *near == Some(true)) || alone()
    }
}

impl Filter for Rules {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let labels = node.labels();
        if !self.affinity_holds(labels) {
            return Err(Rejection::unresolvable("node(s) didn't match pod affinity rules"));
        }
        let near = |counts: &Counts, key: &str| labels.get(key).is_some_and(|v| counts.get(key, v) > 0);
        if self.pod.anti_affinity.iter().any(|t| near(&self.anti, &t.topology_key)) {
            return Err(Rejection::resolvable("node(s) didn't match pod anti-affinity rules"));
        }
        if self.existing_anti.0.keys().any(|key| near(&self.existing_anti, key)) {
            return Err(Rejection::resolvable("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    fn pod_added(&mut self, pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) {
        self.count(pod, node, snapshot, 1);
    }

    fn pod_removed(&mut self, pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) {
        self.count(pod, node, snapshot, -1);
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

fn weigh(weights: &mut Counts, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) {
    let labels = node.labels();
    let (own, theirs) =
        (snapshot.namespace_labels(&pod.key.namespace), snapshot.namespace_labels(&other.key.namespace));
    let mut add = |term: &AffinityTerm, selected: bool, weight: i64| {
        if selected {
            weights.add(&term.topology_key, labels, weight);
        }
    };
    for (weight, term) in &pod.preferred_affinity {
        add(term, term.selects(other, theirs), *weight);
    }
    for (weight, term) in &pod.preferred_anti_affinity {
        add(term, term.selects(other, theirs), -weight);
    }
    for term in &other.affinity {
        add(term, term.selects(pod, own), REQUIRED_WEIGHT);
    }
    for (weight, term) in &other.preferred_affinity {
        add(term, term.selects(pod, own), *weight);
    }
    for (weight, term) in &other.preferred_anti_affinity {
        add(term, term.selects(pod, own), -weight);
    }
}

struct Weights(Counts);

impl Score for Weights {
    fn score(&self, node: &NodeInfo) -> i64 {
        let labels = node.labels();
        let value =
            |(key, values): (&String, &HashMap<String, i64>)| labels.get(key).and_then(|v| values.get(v)).copied();
        self.0.0.iter().filter_map(value).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (min, max) = (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
        for score in scores {
            *score = if max > min { MAX_SCORE * (*score - min) / (max - min) } else { 0 };
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cache::Cache;
    use crate::testing::{node_with, pod_with};

    fn term(app: &str) -> Value {
        json!([{"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}}])
    }

    fn spec(kind: &str, app: &str) -> Value {
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term(app)}}})
    }

    fn fits(cache: &Cache, pod: &Arc<PodInfo>) -> Vec<String> {
        let snapshot = cache.snapshot();
        let filter = InterPodAffinity.filter(pod, &snapshot).unwrap();
        let fits = |n: &&Arc<NodeInfo>| filter.as_ref().is_none_or(|f| f.check(n).is_ok());
        snapshot.nodes.iter().filter(fits).map(|n| n.name.clone()).collect()
    }

    fn cache() -> Cache {
        let mut cache = Cache::default();
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
            cache.set_node(node_with(name, "4", json!({"zone": zone}), json!({})));
        }
        cache
    }

    #[test]
    fn affinity_holds_for_the_whole_zone_and_lets_the_first_pod_of_a_group_in() {
        let mut cache = cache();
        let pod = |name: &str| pod_with(name, "1", json!({"app": "web"}), spec("podAffinity", "web"));
        assert_eq!(fits(&cache, &pod("first")).len(), 3);
        cache.assume(pod("first"), "a1");
        assert_eq!(fits(&cache, &pod("second")), ["a1", "a2"]);
        let lonely = pod_with("x", "1", json!({}), spec("podAffinity", "db"));
        assert!(fits(&cache, &lonely).is_empty());
    }

    #[test]
    fn anti_affinity_works_in_both_directions() {
        let mut cache = cache();
        let averse = pod_with("averse", "1", json!({}), spec("podAntiAffinity", "web"));
        let web = pod_with("web", "1", json!({"app": "web"}), json!({}));
        cache.assume(Arc::clone(&averse), "a1");
        assert_eq!(fits(&cache, &web), ["b1"], "a pod that is there objects");
        cache.remove_pod(&averse.uid);
        cache.assume(Arc::clone(&web), "b1");
        assert_eq!(fits(&cache, &averse), ["a1", "a2"], "the new pod objects");
    }
}
