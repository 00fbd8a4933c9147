//! Sums over all nodes, kept from one pod to the next: pods that come together are mostly alike, and only the node that
//! the last one went to has changed.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cache::Snapshot;
use crate::node_info::NodeInfo;

/// Groups of alike pods whose sums are kept.
const GROUPS: usize = 8;

/// Amounts by topology key and the value that nodes have for it.
#[derive(Clone, Debug, Default)]
pub struct Counts(HashMap<String, HashMap<String, Count>>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Nodes that have a part in it.
    nodes: usize,
    amount: i64,
}

impl Counts {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    pub fn get(&self, key: &str, value: &str) -> Option<i64> {
        Some(self.0.get(key)?.get(value)?.amount)
    }

    /// The amounts of a key's values.
    pub fn of_key(&self, key: &str) -> impl ExactSizeIterator<Item = i64> {
        static NONE: std::sync::LazyLock<HashMap<String, Count>> = std::sync::LazyLock::new(HashMap::new);
        self.0.get(key).unwrap_or(&NONE).values().map(|count| count.amount)
    }

    pub fn amounts(&self) -> impl Iterator<Item = i64> {
        self.0.values().flat_map(|values| values.values().map(|count| count.amount))
    }

    /// Changes an amount that no node's part accounts for.
    pub fn change(&mut self, key: &str, value: &str, amount: i64) {
        self.entry(key, value).amount += amount;
    }

    fn entry(&mut self, key: &str, value: &str) -> &mut Count {
        // Most of the time both are there, and need no copy.
        if !self.0.contains_key(key) {
            self.0.insert(key.to_owned(), HashMap::new());
        }
        let values = self.0.entry(key.to_owned()).or_default();
        if !values.contains_key(value) {
            values.insert(value.to_owned(), Count::default());
        }
        values.entry(value.to_owned()).or_default()
    }

    fn put(&mut self, part: &Part) {
        let count = self.entry(&part.key, &part.value);
        count.nodes += 1;
        count.amount += part.amount;
    }

    /// Values without nodes go.
    fn take(&mut self, part: &Part) {
        let Some(values) = self.0.get_mut(&part.key) else { return };
        let Some(count) = values.get_mut(&part.value) else { return };
        count.nodes -= 1;
        count.amount -= part.amount;
        if count.nodes == 0 {
            values.remove(&part.value);
            if values.is_empty() {
                self.0.remove(&part.key);
            }
        }
    }
}

/// What a node adds to the sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// To which of the group's tables.
    pub table: usize,
    pub key: String,
    pub value: String,
    pub amount: i64,
}

/// Collects a node's parts, one for each table and key.
pub struct Parts<'a> {
    node: &'a NodeInfo,
    parts: Vec<Part>,
}

impl<'a> Parts<'a> {
    pub fn of(node: &'a NodeInfo) -> Self {
        Self { node, parts: Vec::new() }
    }

    /// Nothing if the node has no label `key`.
    pub fn add(&mut self, table: usize, key: &str, amount: i64) {
        if let Some(part) = self.parts.iter_mut().find(|part| part.table == table && part.key == key) {
            part.amount += amount;
        } else if let Some(value) = self.node.labels().get(key) {
            self.parts.push(Part { table, key: key.to_owned(), value: value.clone(), amount });
        }
    }

    pub fn all(self) -> Vec<Part> {
        self.parts
    }
}

/// The sums of one group.
#[derive(Default)]
struct Tally {
    /// State of each node of the last snapshot, and its parts.
    nodes: Vec<(u64, Vec<Part>)>,
    tables: Arc<Vec<Counts>>,
}

impl Tally {
    fn follow(&mut self, tables: usize, nodes: &[Arc<NodeInfo>], parts: &dyn Fn(&NodeInfo) -> Vec<Part>) {
        let sums = Arc::make_mut(&mut self.tables);
        sums.resize_with(tables, Counts::default);
        for (_, gone) in self.nodes.drain(nodes.len().min(self.nodes.len())..) {
            gone.iter().for_each(|part| sums[part.table].take(part));
        }
        for (place, node) in nodes.iter().enumerate() {
            match self.nodes.get_mut(place) {
                Some((generation, _)) if *generation == node.generation => {}
                Some(known) => {
                    known.1.iter().for_each(|part| sums[part.table].take(part));
                    *known = (node.generation, parts(node));
                    known.1.iter().for_each(|part| sums[part.table].put(part));
                }
                None => {
                    let new = parts(node);
                    new.iter().for_each(|part| sums[part.table].put(part));
                    self.nodes.push((node.generation, new));
                }
            }
        }
    }
}

/// The sums of the last few groups. `K` says what the parts of nodes depend on, besides the nodes.
pub struct Tallies<K>(Mutex<Vec<(K, Tally)>>);

impl<K> Default for Tallies<K> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<K: PartialEq> Tallies<K> {
    /// The sums of a group over all nodes, in as many tables as asked for. `parts` must depend on its node and `group` only.
    pub fn of(
        &self,
        group: K,
        tables: usize,
        snapshot: &Snapshot,
        parts: impl Fn(&NodeInfo) -> Vec<Part>,
    ) -> Arc<Vec<Counts>> {
        let mut groups = self.0.lock();
        let place = groups.iter().position(|(known, _)| *known == group);
        let mut tally = place.map_or_else(Tally::default, |place| groups.remove(place).1);
        tally.follow(tables, &snapshot.nodes, &parts);
        let sums = Arc::clone(&tally.tables);
        if groups.len() >= GROUPS {
            groups.remove(0);
        }
        groups.push((group, tally));
        sums
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cache::Cache;
    use crate::testing::{node_with, pod};

    #[test]
    fn sums_follow_the_nodes() {
        let (tallies, mut cache) = (Tallies::default(), Cache::default());
        let sums = |cache: &Cache, group: usize| {
            let tables = tallies.of(group, 1, &cache.snapshot(), |node| {
                let mut parts = Parts::of(node);
                parts.add(0, "zone", 0);
                node.pods.values().for_each(|_| parts.add(0, "zone", 1));
                parts.all()
            });
            ["a", "b"].map(|zone| tables[0].get("zone", zone))
        };
        for (name, zone) in [("n1", "a"), ("n2", "a"), ("n4", "b")] {
            cache.set_node(node_with(name, "4", json!({"zone": zone}), json!({})));
        }
        assert_eq!(sums(&cache, 1), [Some(0), Some(0)]);
        cache.assume(pod("1", "1"), "n1");
        cache.assume(pod("2", "1"), "n4");
        assert_eq!(sums(&cache, 1), [Some(1), Some(1)]);
        cache.set_node(node_with("n3", "4", json!({"zone": "a"}), json!({})));
        cache.assume(pod("3", "1"), "n3");
        assert_eq!(sums(&cache, 1), [Some(2), Some(1)], "a node in the middle");
        cache.set_node(node_with("n4", "4", json!({"zone": "a"}), json!({})));
        assert_eq!(sums(&cache, 1), [Some(3), None], "a zone without nodes is none");
        cache.remove_pod("uid-1");
        cache.remove_pod("uid-3");
        cache.remove_node("n3");
        for group in 0..=GROUPS {
            assert_eq!(sums(&cache, group), [Some(1), None], "group {group}");
        }
    }
}
