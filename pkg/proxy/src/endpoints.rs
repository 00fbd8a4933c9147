//! Which endpoints serve a service's port.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use serde::{Deserialize, Serialize};

use crate::service::{ServicePort, protocol_number};

/// This node, as far as the choice of endpoints depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub node: String,
    pub zone: Option<String>,
}

/// Address and port of the endpoints that traffic may go to, in a stable order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// For traffic that may go to any node.
    pub cluster: Vec<(IpAddr, u16)>,
    /// For traffic that must stay on this node.
    pub local: Vec<(IpAddr, u16)>,
    /// How many of this node's endpoints are ready.
    pub ready_here: usize,
    /// Addresses of all endpoints on this node, ready or not.
    pub here: BTreeSet<IpAddr>,
}

struct Candidate<'a> {
    target: (IpAddr, u16),
    ready: bool,
    /// Still answers although it is going away.
    ending: bool,
    here: bool,
    endpoint: &'a Endpoint,
}

/// Chooses the endpoints of a port.
///
/// Where none is ready, those that are terminating but still serving are used.
pub fn targets<'a>(port: &ServicePort, slices: impl Iterator<Item = &'a EndpointSlice>, place: &Place) -> Targets {
    let candidates: Vec<Candidate<'_>> = slices.flat_map(|slice| candidates(port, slice, place)).collect();
    let pick = |wanted: &dyn Fn(&Candidate<'_>) -> bool| -> Vec<(IpAddr, u16)> {
        let set: BTreeSet<_> = candidates.iter().filter(|one| wanted(one)).map(|one| one.target).collect();
        set.into_iter().collect()
    };
    let or = |first: Vec<_>, second: Vec<_>| if first.is_empty() { second } else { first };
    let ready_here = pick(&|one| one.ready && one.here);
    Targets {
        cluster: or(near(&candidates, place), or(pick(&|one| one.ready), pick(&|one| one.ending))),
        ready_here: ready_here.len(),
        local: or(ready_here, pick(&|one| one.ending && one.here)),
        here: candidates.iter().filter(|one| one.here).map(|one| one.target.0).collect(),
    }
}

fn candidates<'a>(
    port: &'a ServicePort,
    slice: &'a EndpointSlice,
    place: &'a Place,
) -> impl Iterator<Item = Candidate<'a>> {
    let family = if port.is_v6() { "IPv6" } else { "IPv4" };
    let same = |found: &&k8s_openapi::api::discovery::v1::EndpointPort| {
        let protocol = found.protocol.as_deref().unwrap_or("TCP");
        found.name.as_deref().unwrap_or_default() == port.port_name && protocol_number(protocol) == Some(port.protocol)
    };
    let ports = slice.ports.as_ref().filter(|_| slice.address_type == family);
    let number = ports.and_then(|ports| ports.iter().find(same)?.port).and_then(|port| u16::try_from(port).ok());
    let endpoints = slice.endpoints.iter().flatten();
    number.into_iter().flat_map(move |number| {
        endpoints.clone().filter_map(move |endpoint| {
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
            let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
            let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
            let here = endpoint.node_name.as_deref() == Some(&*place.node);
            let address = endpoint.addresses.first()?.parse().ok()?;
            Some(Candidate { target: (address, number), ready, ending: serving && terminating, here, endpoint })
        })
    })
}

/// The ready endpoints that the hints of all of them assign to this node, or else to its zone. Empty when the hints are
/// not complete or assign none.
fn near(candidates: &[Candidate<'_>], place: &Place) -> Vec<(IpAddr, u16)> {
    let ready = || candidates.iter().filter(|one| one.ready);
    let nodes = |one: &Candidate<'_>| {
        let hints = one.endpoint.hints.as_ref()?.for_nodes.as_ref().filter(|nodes| !nodes.is_empty())?;
        Some(hints.iter().any(|node| node.name == place.node))
    };
    let zones = |one: &Candidate<'_>| {
        let hints = one.endpoint.hints.as_ref()?.for_zones.as_ref().filter(|zones| !zones.is_empty())?;
        Some(hints.iter().any(|zone| Some(&zone.name) == place.zone.as_ref()))
    };
    let assigned = |hint: &dyn Fn(&Candidate<'_>) -> Option<bool>| -> Vec<(IpAddr, u16)> {
        let complete = ready().all(|one| hint(one).is_some());
        let set: BTreeSet<_> = ready().filter(|one| hint(one) == Some(true)).map(|one| one.target).collect();
        if complete { set.into_iter().collect() } else { Vec::new() }
    };
    let same_node = assigned(&nodes);
    if same_node.is_empty() { assigned(&zones) } else { same_node }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn port() -> ServicePort {
        let service = json!({"metadata": {"name": "web", "namespace": "ns"},
            "spec": {"clusterIP": "10.43.0.5", "ports": [{"name": "http", "port": 80}]}});
        crate::service::ports_of(&serde_json::from_value(service).unwrap()).remove(0)
    }

    /// The last numbers of the addresses chosen for the cluster and for this node.
    fn chosen(endpoints: Value) -> (Vec<u8>, Vec<u8>) {
        let slice = json!({"metadata": {}, "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
            "endpoints": endpoints});
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        let place = Place { node: "here".into(), zone: Some("z1".into()) };
        let found = targets(&port(), std::iter::once(&slice), &place);
        let last = |targets: Vec<(IpAddr, u16)>| {
            let octet = |address: IpAddr| address.to_string().rsplit('.').next().unwrap().parse().unwrap();
            targets.into_iter().map(|(address, _)| octet(address)).collect()
        };
        (last(found.cluster), last(found.local))
    }

    fn endpoint(number: u8, node: &str, conditions: Value, hints: Value) -> Value {
        json!({"addresses": [format!("10.42.0.{number}")], "nodeName": node, "conditions": conditions, "hints": hints})
    }

    #[test]
    fn terminating_endpoints_serve_only_where_none_is_ready() {
        let ready = || json!({"ready": true, "serving": true, "terminating": false});
        let ending = || json!({"ready": false, "serving": true, "terminating": true});
        let ended = || json!({"ready": false, "serving": false, "terminating": true});
        let on = |number, node, conditions| endpoint(number, node, conditions, Value::Null);
        assert_eq!(chosen(json!([on(1, "there", ready()), on(2, "here", ending())])), (vec![1], vec![2]));
        assert_eq!(chosen(json!([on(1, "there", ending()), on(2, "here", ended())])), (vec![1], vec![]));
        assert_eq!(chosen(json!([on(1, "here", ready()), on(2, "here", ending())])), (vec![1], vec![1]));
        assert_eq!(chosen(json!([on(1, "here", ended()), on(2, "here", json!({"ready": false}))])), (vec![], vec![]));
        assert_eq!(chosen(json!([on(1, "here", Value::Null)])), (vec![1], vec![1]), "unknown readiness is readiness");
    }

    #[test]
    fn hints_count_only_if_all_ready_endpoints_have_them() {
        let zone = |name: &str| json!({"forZones": [{"name": name}]});
        let node = |name: &str, zone: &str| json!({"forNodes": [{"name": name}], "forZones": [{"name": zone}]});
        let on = |number, hints| endpoint(number, "there", json!({"ready": true}), hints);
        assert_eq!(chosen(json!([on(1, zone("z1")), on(2, zone("z2"))])).0, [1]);
        assert_eq!(chosen(json!([on(1, zone("z1")), on(2, Value::Null)])).0, [1, 2]);
        assert_eq!(chosen(json!([on(1, zone("z3")), on(2, zone("z2"))])).0, [1, 2], "no endpoint for this zone");
        assert_eq!(chosen(json!([on(1, node("here", "z2")), on(2, node("there", "z1"))])).0, [1]);
        assert_eq!(chosen(json!([on(1, node("x", "z2")), on(2, node("there", "z1"))])).0, [2], "then by zone");
    }
}
