//! InterPodAffinity.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::Snapshot;
use crate::framework::{Filter, MAX_SCORE, Plugin, Rejection, Score};
use crate::labels::Labels;
use crate::node_info::NodeInfo;
use crate::pod_info::{AffinityTerm, PodInfo};
use crate::queue::Events;
use crate::tally::{Counts, Parts, Tallies};

/// Weight of the required affinity of pods that are there already in the score of a node.
const REQUIRED_WEIGHT: i64 = 1;

/// Places pods near the pods they want and away from those they, or which, do not want.
#[derive(Default)]
pub struct InterPodAffinity {
    filters: Tallies<Group>,
    scores: Tallies<Group>,
}

/// Pods that are alike to all terms, their own and those of others.
struct Group {
    pod: Arc<PodInfo>,
    namespaces: Arc<HashMap<String, Labels>>,
}

impl Group {
    fn of(pod: &Arc<PodInfo>, snapshot: &Snapshot) -> Self {
        Self { pod: Arc::clone(pod), namespaces: Arc::clone(&snapshot.namespaces) }
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        let terms = |group: &Self| {
            let affinity = group.pod.spec.affinity.as_ref();
            affinity.map(|affinity| (affinity.pod_affinity.clone(), affinity.pod_anti_affinity.clone()))
        };
        Arc::ptr_eq(&self.namespaces, &other.namespaces)
            && self.pod.key.namespace == other.pod.key.namespace
            && self.pod.labels() == other.pod.labels()
            && (Arc::ptr_eq(&self.pod.spec, &other.pod.spec) || terms(self) == terms(other))
    }
}

/// The tables of a filter: terms of pods that are there which select the pod, and pods that its own terms select.
const EXISTING_ANTI: usize = 0;
const AFFINITY: usize = 1;
const ANTI: usize = 2;

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn events(&self) -> Events {
        Events::NODE_ADDED | Events::NODE_LABELS | Events::POD_PLACED | Events::POD_GONE | Events::NAMESPACES
    }

    fn filter(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot) -> Result<Option<Box<dyn Filter>>, Rejection> {
        let own_terms = !pod.terms().affinity.is_empty() || !pod.terms().anti_affinity.is_empty();
        if !own_terms && snapshot.nodes.iter().all(|n| n.with_affinity == 0) {
            return Ok(None);
        }
        let tables = self.filters.of(Group::of(pod, snapshot), 3, snapshot, |node| {
            let mut parts = Parts::of(node);
            if own_terms || node.with_affinity > 0 {
                let others = node.pods.values().filter(|p| own_terms || !p.terms().anti_affinity.is_empty());
                others.for_each(|other| count(&mut parts, pod, other, snapshot));
            }
            parts.all()
        });
        let labels = snapshot.namespace_labels(&pod.key.namespace);
        let selects_itself = pod.terms().affinity.iter().all(|t| t.selects(pod, labels));
        let needed = own_terms || !tables[EXISTING_ANTI].is_empty();
        Ok(needed.then(|| Box::new(Rules { pod: Arc::clone(pod), selects_itself, tables }) as Box<dyn Filter>))
    }

    fn score(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot, _nodes: &[&NodeInfo]) -> Option<(Box<dyn Score>, i64)> {
        let own = !pod.terms().preferred_affinity.is_empty() || !pod.terms().preferred_anti_affinity.is_empty();
        if !own && snapshot.nodes.iter().all(|n| n.with_affinity == 0) {
            return None;
        }
        let tables = self.scores.of(Group::of(pod, snapshot), 1, snapshot, |node| {
            let mut parts = Parts::of(node);
            if own || node.with_affinity > 0 {
                let others = node.pods.values().filter(|p| own || p.has_affinity());
                others.for_each(|other| weigh(&mut parts, pod, other, snapshot));
            }
            parts.all()
        });
        (!tables[0].is_empty()).then(|| (Box::new(Weights(tables)) as Box<dyn Score>, 2))
    }
}

#[derive(Clone)]
struct Rules {
    pod: Arc<PodInfo>,
    selects_itself: bool,
    tables: Arc<Vec<Counts>>,
}

/// What a pod that is there means to the filters of `pod`.
fn count(parts: &mut Parts<'_>, pod: &PodInfo, other: &PodInfo, snapshot: &Snapshot) {
    let own_namespace = snapshot.namespace_labels(&pod.key.namespace);
    for term in other.terms().anti_affinity.iter().filter(|t| t.selects(pod, own_namespace)) {
        parts.add(EXISTING_ANTI, &term.topology_key, 1);
    }
    let namespace = snapshot.namespace_labels(&other.key.namespace);
    if !pod.terms().affinity.is_empty() && pod.terms().affinity.iter().all(|t| t.selects(other, namespace)) {
        pod.terms().affinity.iter().for_each(|term| parts.add(AFFINITY, &term.topology_key, 1));
    }
    for term in pod.terms().anti_affinity.iter().filter(|t| t.selects(other, namespace)) {
        parts.add(ANTI, &term.topology_key, 1);
    }
}

impl Rules {
    fn change(&mut self, other: &PodInfo, node: &NodeInfo, snapshot: &Snapshot, sign: i64) {
        let mut parts = Parts::of(node);
        count(&mut parts, &self.pod, other, snapshot);
        let tables = Arc::make_mut(&mut self.tables);
        for part in parts.all() {
            tables[part.table].change(&part.key, &part.value, sign * part.amount);
        }
    }

    fn near(&self, table: usize, key: &str, value: &str) -> bool {
        self.tables[table].get(key, value).is_some_and(|count| count > 0)
    }

    fn affinity_holds(&self, labels: &Labels) -> bool {
        let near = |t: &AffinityTerm| labels.get(&t.topology_key).map(|v| self.near(AFFINITY, &t.topology_key, v));
        let found: Vec<Option<bool>> = self.pod.terms().affinity.iter().map(near).collect();
        if found.iter().any(Option::is_none) {
            return false;
        }
        // The first pod of a group that wants to be together has nobody to join.
        let alone = || self.selects_itself && self.tables[AFFINITY].amounts().all(|count| count <= 0);
        found.iter().all(|near| *near == Some(true)) || alone()
    }
}

impl Filter for Rules {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let labels = node.labels();
        if !self.affinity_holds(labels) {
            return Err(Rejection::unresolvable("node(s) didn't match pod affinity rules"));
        }
        let near = |table: usize, key: &str| labels.get(key).is_some_and(|v| self.near(table, key, v));
        if self.pod.terms().anti_affinity.iter().any(|t| near(ANTI, &t.topology_key)) {
            return Err(Rejection::resolvable("node(s) didn't match pod anti-affinity rules"));
        }
        if self.tables[EXISTING_ANTI].keys().any(|key| near(EXISTING_ANTI, key)) {
            return Err(Rejection::resolvable("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    fn pod_added(&mut self, pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) {
        self.change(pod, node, snapshot, 1);
    }

    fn pod_removed(&mut self, pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) {
        self.change(pod, node, snapshot, -1);
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

fn weigh(parts: &mut Parts<'_>, pod: &PodInfo, other: &PodInfo, snapshot: &Snapshot) {
    let (own, theirs) =
        (snapshot.namespace_labels(&pod.key.namespace), snapshot.namespace_labels(&other.key.namespace));
    let mut add = |term: &AffinityTerm, selected: bool, weight: i64| {
        if selected {
            parts.add(0, &term.topology_key, weight);
        }
    };
    for (weight, term) in &pod.terms().preferred_affinity {
        add(term, term.selects(other, theirs), *weight);
    }
    for (weight, term) in &pod.terms().preferred_anti_affinity {
        add(term, term.selects(other, theirs), -weight);
    }
    for term in &other.terms().affinity {
        add(term, term.selects(pod, own), REQUIRED_WEIGHT);
    }
    for (weight, term) in &other.terms().preferred_affinity {
        add(term, term.selects(pod, own), *weight);
    }
    for (weight, term) in &other.terms().preferred_anti_affinity {
        add(term, term.selects(pod, own), -weight);
    }
}

struct Weights(Arc<Vec<Counts>>);

impl Score for Weights {
    fn score(&self, node: &NodeInfo) -> i64 {
        let labels = node.labels();
        let weights = &self.0[0];
        weights.keys().filter_map(|key| weights.get(key, labels.get(key)?)).sum()
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
        let (plugin, snapshot) = (InterPodAffinity::default(), cache.snapshot());
        let filter = plugin.filter(pod, &snapshot).unwrap();
        let fits = |n: &&Arc<NodeInfo>| filter.as_ref().is_none_or(|f| f.check(n).is_ok());
        snapshot.nodes.iter().filter(fits).map(|n| n.name.to_string()).collect()
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
