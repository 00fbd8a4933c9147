//! Puts endpoints into slices with as few changes as possible.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

/// Most endpoints of one slice.
const SLICE_MAX: usize = 100;

/// Endpoints that have the same ports.
#[derive(Debug, Default)]
pub struct Group {
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

/// What is to be written for one address family.
#[derive(Debug, Default)]
pub struct Changes {
    pub create: Vec<Group>,
    /// Slices with the content they are to get.
    pub update: Vec<(Arc<EndpointSlice>, Group)>,
    pub delete: Vec<Arc<EndpointSlice>>,
    /// Slices whose content stays.
    pub keep: Vec<Arc<EndpointSlice>>,
}

/// Compares the slices that are there with the endpoints that should be.
///
/// Endpoints stay in their slice; new ones fill slices that change anyway, then others with room, then new slices.
pub fn place(groups: Vec<Group>, existing: Vec<Arc<EndpointSlice>>) -> Changes {
    let mut changes = Changes::default();
    let mut rest = existing;
    for group in groups {
        let (own, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|s| same_ports(s, &group.ports));
        rest = others;
        place_group(group, own, &mut changes);
    }
    changes.delete.extend(rest);
    changes
}

fn same_ports(slice: &EndpointSlice, ports: &[EndpointPort]) -> bool {
    let own = slice.ports.as_deref().unwrap_or(&[]);
    own.len() == ports.len() && own.iter().all(|p| ports.contains(p))
}

fn place_group(group: Group, existing: Vec<Arc<EndpointSlice>>, changes: &mut Changes) {
    let mut wanted: HashMap<String, Endpoint> = group.endpoints.iter().map(|e| (identity(e), e.clone())).collect();
    // Slices with their next content, and whether that differs.
    let mut slices: Vec<(Arc<EndpointSlice>, Vec<Endpoint>, bool)> = Vec::new();
    for slice in existing {
        let mut next = Vec::new();
        for endpoint in slice.endpoints.iter().flatten() {
            next.extend(wanted.remove(&identity(endpoint)));
        }
        let differs = slice.endpoints.as_deref().unwrap_or(&[]) != next;
        slices.push((slice, next, differs));
    }
    let mut new: Vec<Endpoint> =
        group.endpoints.into_iter().filter(|e| wanted.remove(&identity(e)).is_some()).collect();
    slices.sort_by_key(|(_, next, differs)| (!differs, std::cmp::Reverse(next.len())));
    for (_, next, differs) in &mut slices {
        let room = SLICE_MAX.saturating_sub(next.len()).min(new.len());
        if room > 0 {
            next.extend(new.drain(..room));
            *differs = true;
        }
    }
    let empty_group = slices.iter().all(|(_, next, _)| next.is_empty()) && new.is_empty();
    let mut has_placeholder = false;
    for (slice, next, differs) in slices {
        if next.is_empty() && (!empty_group || has_placeholder) {
            changes.delete.push(slice);
            continue;
        }
        has_placeholder = true;
        match differs {
            true => changes.update.push((slice, Group { ports: group.ports.clone(), endpoints: next })),
            false => changes.keep.push(slice),
        }
    }
    if empty_group && !has_placeholder {
        changes.create.push(Group { ports: group.ports.clone(), endpoints: Vec::new() });
    }
    while !new.is_empty() {
        let part = new.drain(..new.len().min(SLICE_MAX)).collect();
        changes.create.push(Group { ports: group.ports.clone(), endpoints: part });
    }
}

/// What makes an endpoint the same one: its pod, or its addresses if it has none.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|t| t.uid.clone());
    uid.unwrap_or_else(|| endpoint.addresses.join(","))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn endpoint(n: usize, ready: bool) -> Endpoint {
        serde_json::from_value(json!({"addresses": [format!("10.0.0.{n}")], "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "uid": n.to_string()}}))
        .unwrap()
    }

    fn ports(port: i32) -> Vec<EndpointPort> {
        vec![EndpointPort { port: Some(port), ..EndpointPort::default() }]
    }

    fn slice(port: i32, endpoints: Vec<Endpoint>) -> Arc<EndpointSlice> {
        let (ports, endpoints) = (Some(ports(port)), Some(endpoints));
        Arc::new(EndpointSlice { ports, endpoints, address_type: "IPv4".into(), ..EndpointSlice::default() })
    }

    fn group(port: i32, endpoints: Vec<Endpoint>) -> Group {
        Group { ports: ports(port), endpoints }
    }

    #[test]
    fn endpoints_stay_where_they_are_and_new_ones_fill_up() {
        let full: Vec<_> = (0..100).map(|n| endpoint(n, true)).collect();
        let part: Vec<_> = (100..110).map(|n| endpoint(n, true)).collect();
        let existing = || vec![slice(80, full.clone()), slice(80, part.clone())];
        let same = place(vec![group(80, [full.clone(), part.clone()].concat())], existing());
        assert_eq!((same.create.len(), same.update.len(), same.delete.len(), same.keep.len()), (0, 0, 0, 2));

        let wanted: Vec<_> = (1..111).map(|n| endpoint(n, n != 5)).collect();
        let changed = place(vec![group(80, wanted)], existing());
        let sizes: Vec<_> = changed.update.iter().map(|(_, g)| g.endpoints.len()).collect();
        assert_eq!((sizes, changed.create.len(), changed.keep.len()), (vec![100], 0, 1), "one slice changes");

        let many: Vec<_> = (0..250).map(|n| endpoint(n, true)).collect();
        let grown = place(vec![group(80, many)], existing());
        assert_eq!((grown.keep.len(), grown.update.len(), grown.create[0].endpoints.len()), (1, 1, 50));
    }

    #[test]
    fn slices_of_other_ports_go_and_an_empty_service_keeps_one() {
        let moved = place(vec![group(81, vec![endpoint(1, true)])], vec![slice(80, vec![endpoint(1, true)])]);
        assert_eq!((moved.create.len(), moved.delete.len()), (1, 1));
        let emptied =
            place(vec![group(80, Vec::new())], vec![slice(80, vec![endpoint(1, true)]), slice(80, Vec::new())]);
        assert_eq!((emptied.update.len() + emptied.keep.len(), emptied.delete.len()), (1, 1));
        assert_eq!(place(vec![group(80, Vec::new())], Vec::new()).create.len(), 1);
    }
}
