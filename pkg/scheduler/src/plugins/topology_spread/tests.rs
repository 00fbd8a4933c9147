#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::cache::Cache;
use crate::testing::{node_with, pod_with};

struct Nobody;

impl Owners for Nobody {
    fn selectors(&self, _pod: &PodInfo) -> Vec<Selector> {
        Vec::new()
    }
}

#[test]
fn a_hard_constraint_bounds_the_skew_between_zones() {
    let mut cache = Cache::default();
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        cache.set_node(node_with(name, "4", json!({"zone": zone}), json!({})));
    }
    cache.set_node(node_with("bare", "4", json!({}), json!({})));
    let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}});
    let pod =
        |name: &str| pod_with(name, "1", json!({"app": "web"}), json!({"topologySpreadConstraints": [constraint]}));
    let fits = |cache: &Cache, pod: &Arc<PodInfo>| -> Vec<String> {
        let snapshot = cache.snapshot();
        let filter = TopologySpread::new(Arc::new(Nobody)).filter(pod, &snapshot).unwrap().unwrap();
        snapshot.nodes.iter().filter(|n| filter.check(n).is_ok()).map(|n| n.name.to_string()).collect()
    };
    assert_eq!(fits(&cache, &pod("1")), ["a1", "a2", "b1"]);
    cache.assume(pod("1"), "a1");
    assert_eq!(fits(&cache, &pod("2")), ["b1"]);
    cache.assume(pod("2"), "b1");
    assert_eq!(fits(&cache, &pod("3")), ["a1", "a2", "b1"]);
}
