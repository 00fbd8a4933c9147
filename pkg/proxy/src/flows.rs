//! UDP has no end of a connection: the kernel must be told to forget flows whose endpoint changed.

use std::collections::HashMap;
use std::net::IpAddr;

use kube1_network::conntrack::{self, Flow};

use crate::endpoints::Targets;
use crate::service::ServicePort;

const UDP: u8 = 17;

/// Where UDP services are reached, and who may answer there.
#[derive(Debug, Default)]
pub struct Fronts {
    addresses: HashMap<(IpAddr, u16), Vec<(IpAddr, u16)>>,
    node_ports: HashMap<(bool, u16), Vec<(IpAddr, u16)>>,
}

impl Fronts {
    pub fn add(&mut self, port: &ServicePort, targets: &Targets) {
        if port.protocol != UDP {
            return;
        }
        let all: Vec<_> = targets.cluster.iter().chain(&targets.local).copied().collect();
        let addresses = [port.cluster_ip].into_iter().chain(port.external_ips.iter().copied());
        for address in addresses.chain(port.load_balancer_ips.iter().copied()) {
            self.addresses.insert((address, port.port), all.clone());
        }
        if let Some(node_port) = port.node_port {
            self.node_ports.insert((port.is_v6(), node_port), all);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    fn is_stale(&self, flow: &Flow) -> bool {
        if flow.protocol != UDP {
            return false;
        }
        if let Some(targets) = self.addresses.get(&flow.destination) {
            return !targets.contains(&flow.answered_by);
        }
        // A flow to some other host's port of this number is not translated.
        let translated = flow.answered_by != flow.destination;
        let node_port = self.node_ports.get(&(flow.destination.0.is_ipv6(), flow.destination.1));
        node_port.is_some_and(|targets| translated && !targets.contains(&flow.answered_by))
    }

    /// Forgets the flows to these services that go to what is no endpoint any more.
    pub fn forget_stale(&self) -> std::io::Result<usize> {
        let mut count = 0;
        for v6 in [false, true] {
            if self.addresses.keys().any(|(address, _)| address.is_ipv6() == v6) {
                count += conntrack::forget(v6, |flow| self.is_stale(flow))?;
            }
        }
        Ok(count)
    }
}
