//! The cluster's zone: every name that services and pods have.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use kube1_client::ObjectKey;
use serde::{Deserialize, Serialize};

use crate::records::{Records, undashed};

/// The version of the naming scheme, which clients can ask for.
const SCHEME: &str = "1.1.0";

/// All services by namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Ordered, so that a namespace's services are neighbours.
    services: BTreeMap<(String, String), Records>,
    /// Names below `svc` of each address.
    reverse: HashMap<IpAddr, BTreeSet<String>>,
}

/// What there is at a name. All empty if the name exists but has no data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub addresses: Vec<IpAddr>,
    /// Port, target below the zone, and the target's addresses.
    pub services: Vec<(u16, String, Vec<IpAddr>)>,
    pub texts: Vec<String>,
    pub alias: Option<String>,
}

/// A zone as it is kept on disk.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    services: Vec<(String, String, Records)>,
}

impl Zone {
    /// Sets or removes what a service has.
    pub fn set(&mut self, key: &ObjectKey, records: Option<Records>) {
        let place = (key.namespace.clone(), key.name.clone());
        let old = match records {
            Some(records) => self.services.insert(place.clone(), records),
            None => self.services.remove(&place),
        };
        for (address, name) in old.iter().flat_map(|old| names(&place, old)) {
            if let Some(names) = self.reverse.get_mut(&address) {
                names.remove(&name);
                if names.is_empty() {
                    self.reverse.remove(&address);
                }
            }
        }
        for (address, name) in self.services.get(&place).iter().flat_map(|new| names(&place, new)) {
            self.reverse.entry(address).or_default().insert(name);
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        let services = self.services.iter();
        let services = services.map(|((namespace, name), records)| (namespace.clone(), name.clone(), records.clone()));
        Snapshot { services: services.collect() }
    }

    /// The names below the zone that an address of a service or of a headless service's pod has.
    pub fn reverse(&self, address: IpAddr) -> Vec<String> {
        self.reverse.get(&address).into_iter().flatten().cloned().collect()
    }

    /// What there is at a name, given as its labels in lower case without those of the zone. `None` if it does not exist.
    pub fn find(&self, labels: &[&str]) -> Option<Found> {
        match labels {
            [] | ["svc" | "pod" | "dns"] => Some(Found::default()),
            ["dns-version"] => Some(Found { texts: vec![SCHEME.to_owned()], ..Found::default() }),
            [address, _namespace, "pod"] => {
                undashed(address).map(|address| Found { addresses: vec![address], ..Found::default() })
            }
            [_namespace, "pod"] => Some(Found::default()),
            [namespace, "svc"] => self.has_namespace(namespace).then(Found::default),
            [rest @ .., name, namespace, "svc"] => {
                let place = ((*namespace).to_owned(), (*name).to_owned());
                find_in(&place, self.services.get(&place)?, rest)
            }
            _ => None,
        }
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        let first = (namespace.to_owned(), String::new());
        self.services.range(first..).next().is_some_and(|((found, _), _)| found == namespace)
    }
}

impl From<Snapshot> for Zone {
    fn from(snapshot: Snapshot) -> Self {
        let mut zone = Self::default();
        for (namespace, name, records) in snapshot.services {
            zone.set(&ObjectKey::new(namespace, name), Some(records));
        }
        zone
    }
}

fn base((namespace, name): &(String, String)) -> String {
    format!("{name}.{namespace}.svc")
}

/// Address and name of everything that a service's records let be found by address.
fn names(place: &(String, String), records: &Records) -> Vec<(IpAddr, String)> {
    let base = base(place);
    match records {
        Records::Cluster { addresses, .. } => addresses.iter().map(|address| (*address, base.clone())).collect(),
        Records::Headless { hosts } => {
            hosts.iter().map(|host| (host.address, format!("{}.{base}", host.name))).collect()
        }
        Records::Alias(_) => Vec::new(),
    }
}

/// What is at, or below, a service's name.
fn find_in(place: &(String, String), records: &Records, rest: &[&str]) -> Option<Found> {
    let base = base(place);
    match (records, rest) {
        (Records::Alias(target), []) => Some(Found { alias: Some(target.clone()), ..Found::default() }),
        (Records::Cluster { addresses, ports }, []) => {
            let services = ports.iter().map(|port| (port.number, base.clone(), addresses.clone())).collect();
            Some(Found { addresses: addresses.clone(), services, ..Found::default() })
        }
        (Records::Headless { hosts }, []) => {
            let mut addresses: Vec<IpAddr> = hosts.iter().map(|host| host.address).collect();
            addresses.sort_unstable();
            addresses.dedup();
            Some(Found { addresses, services: host_services(&base, records, |_, _| true), ..Found::default() })
        }
        (_, [port, protocol]) => {
            let (port, protocol) = (port.strip_prefix('_')?, protocol.strip_prefix('_')?);
            let wanted = |name: &str, over: &str| name == port && over == protocol;
            let services = match records {
                Records::Cluster { addresses, ports } => {
                    let found = ports.iter().filter(|one| wanted(&one.name, &one.protocol));
                    found.map(|one| (one.number, base.clone(), addresses.clone())).collect()
                }
                Records::Headless { .. } => host_services(&base, records, wanted),
                Records::Alias(_) => Vec::new(),
            };
            (!services.is_empty()).then(|| Found { services, ..Found::default() })
        }
        // Only exists because names below it do.
        (Records::Cluster { ports, .. }, [protocol]) => {
            let protocol = protocol.strip_prefix('_')?;
            ports.iter().any(|port| port.protocol == protocol).then(Found::default)
        }
        (Records::Headless { hosts }, [host]) => {
            let found: Vec<_> = hosts.iter().filter(|one| one.name == *host).collect();
            if let Some(protocol) = host.strip_prefix('_') {
                let known = hosts.iter().flat_map(|host| &host.ports).any(|port| port.protocol == protocol);
                return known.then(Found::default);
            }
            let mut addresses: Vec<IpAddr> = found.iter().map(|host| host.address).collect();
            addresses.dedup();
            (!addresses.is_empty()).then(|| Found { addresses, ..Found::default() })
        }
        _ => None,
    }
}

fn host_services(
    base: &str,
    records: &Records,
    wanted: impl Fn(&str, &str) -> bool,
) -> Vec<(u16, String, Vec<IpAddr>)> {
    let Records::Headless { hosts } = records else { return Vec::new() };
    let mut services = Vec::new();
    for host in hosts {
        for port in host.ports.iter().filter(|port| wanted(&port.name, &port.protocol)) {
            services.push((port.number, format!("{}.{base}", host.name), vec![host.address]));
        }
    }
    services
}
