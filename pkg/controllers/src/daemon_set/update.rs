//! Rolling updates of DaemonSets.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};

use super::placement::Placement;
use super::{ByNode, Keeper, has_hash, pod};
use crate::cached_pod::CachedPod;
use crate::controller::SyncError;
use crate::deployment::replica_sets::resolve;
use crate::pods;

/// Whether new pods come before the old ones go.
pub fn surges(spec: &DaemonSetSpec) -> bool {
    bounds(spec, 1).is_some_and(|(surge, _)| surge > 0)
}

/// Surge and unavailability of a rolling update over so many nodes; None if pods are replaced on deletion only.
fn bounds(spec: &DaemonSetSpec, nodes: i32) -> Option<(i32, i32)> {
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
        return None;
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).map_or(0, |v| resolve(v, nodes, true));
    let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).map_or(1, |v| resolve(v, nodes, true));
    Some(if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) })
}

/// Old pods of a node whose replacement is available, and doubles of the same kind.
pub fn replaced(running: &[&Arc<CachedPod>], hash: &str, min_ready: i32) -> Vec<Arc<CachedPod>> {
    let (new, old): (Vec<&Arc<CachedPod>>, Vec<&Arc<CachedPod>>) = running.iter().partition(|p| has_hash(p, hash));
    let done = new.first().is_some_and(|p| pods::is_available(p, min_ready));
    let old = old.into_iter().skip(usize::from(!done));
    new.into_iter().skip(1).chain(old).cloned().collect()
}

impl Keeper {
    /// Replaces as many old pods as may be missing at a time.
    pub(super) async fn update(
        &self,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        by_node: &ByNode,
        hash: &str,
    ) -> Result<(), SyncError> {
        let runs = |n: &Arc<_>| Placement::of(&spec.template, n) == Placement::Runs;
        let nodes: Vec<String> =
            self.nodes.list().iter().filter(|n| runs(n)).filter_map(|n| n.metadata.name.clone()).collect();
        let Some((surge, unavailable)) = bounds(spec, i32::try_from(nodes.len()).unwrap_or(i32::MAX)) else {
            return Ok(());
        };
        let states: Vec<State> = nodes.iter().map(|name| State::of(name, by_node, hash, spec)).collect();
        if surge == 0 {
            let delete = replaceable(&states, unavailable);
            return self.apply(set, Vec::new(), &delete).await;
        }
        let create = surging(&states, surge).into_iter().map(|node| pod::build(set, spec, node, hash)).collect();
        self.apply(set, create, &[]).await
    }
}

/// What is on a node.
struct State<'a> {
    node: &'a str,
    old: Option<Arc<CachedPod>>,
    new: Option<Arc<CachedPod>>,
    old_available: bool,
    new_available: bool,
}

impl<'a> State<'a> {
    fn of(node: &'a str, by_node: &ByNode, hash: &str, spec: &DaemonSetSpec) -> Self {
        let own = by_node.get(node).map(Vec::as_slice).unwrap_or(&[]);
        let (mut old, mut new) = (None, None);
        for pod in own.iter().filter(|p| pods::is_active(p)) {
            let slot = if has_hash(pod, hash) { &mut new } else { &mut old };
            slot.get_or_insert_with(|| Arc::clone(pod));
        }
        let available = |p: &Option<Arc<CachedPod>>| {
            p.as_ref().is_some_and(|p| pods::is_available(p, spec.min_ready_seconds.unwrap_or(0)))
        };
        Self { node, old_available: available(&old), new_available: available(&new), old, new }
    }
}

/// Old pods that may be deleted: those that serve nobody, and as many others as may be missing.
fn replaceable(states: &[State<'_>], unavailable: i32) -> Vec<Arc<CachedPod>> {
    let missing = states.iter().filter(|s| !s.old_available && !s.new_available).count();
    let mut left = usize::try_from(unavailable).unwrap_or(0).saturating_sub(missing);
    let mut delete = Vec::new();
    for state in states.iter().filter(|s| s.new.is_none()) {
        let Some(old) = &state.old else { continue };
        if !state.old_available {
            delete.push(Arc::clone(old));
        } else if left > 0 {
            delete.push(Arc::clone(old));
            left -= 1;
        }
    }
    delete
}

/// Nodes that get a new pod beside the old one.
fn surging<'a>(states: &[State<'a>], surge: i32) -> Vec<&'a str> {
    let both = states.iter().filter(|s| s.old.is_some() && s.new.is_some()).count();
    let mut left = usize::try_from(surge).unwrap_or(0).saturating_sub(both);
    let mut nodes = Vec::new();
    for state in states.iter().filter(|s| s.old.is_some() && s.new.is_none()) {
        if !state.old_available {
            nodes.push(state.node);
        } else if left > 0 {
            nodes.push(state.node);
            left -= 1;
        }
    }
    nodes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cached_pod::tests::cached;

    fn state(old: Option<bool>, new: Option<bool>) -> State<'static> {
        let pod = |available: Option<bool>| available.map(|_| cached(json!({})));
        State {
            node: "n",
            old: pod(old),
            new: pod(new),
            old_available: old == Some(true),
            new_available: new == Some(true),
        }
    }

    #[test]
    fn no_more_pods_are_missing_than_allowed() {
        let count = |states: &[State<'static>], max| replaceable(states, max).len();
        let old = || state(Some(true), None);
        assert_eq!(count(&[old(), old(), old()], 1), 1);
        assert_eq!(count(&[old(), old(), state(None, Some(false))], 1), 0, "a new one is not ready yet");
        assert_eq!(count(&[old(), old(), state(None, None)], 1), 0, "one is on its way");
        assert_eq!(count(&[old(), old(), state(Some(false), None)], 1), 1, "a broken one can always go");
        assert_eq!(count(&[old(), old(), state(None, Some(true))], 2), 2);
        assert_eq!(surging(&[old(), old(), state(Some(true), Some(false))], 2).len(), 1);
    }
}
