//! Cluster IPs and node ports of Services: handed out in memory, recorded by the Services themselves, with an IPAddress
//! object for every cluster IP.

mod addresses;
mod claims;
mod families;
mod ports;
mod ranges;
mod records;

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use kube1_api::field::{FieldError, FieldPath};
use kube1_api::name::GroupKind;
use kube1_api::resource::ResourceTable;
use kube1_api::status::Status;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::reader::StorageReader;
use crate::storage::{Collection, Storage};
use addresses::Addresses;
use claims::{Claims, needs_addresses};
use ports::Ports;

const REPAIR_PERIOD: Duration = Duration::from_secs(180);

/// Ranges that Services are given addresses and ports from.
#[derive(Clone, Debug)]
pub struct AllocatorConfig {
    /// One range, or two of different families. The first one's family is the default.
    pub service_cidrs: Vec<IpNet>,
    pub node_ports: RangeInclusive<u16>,
}

/// Hands out cluster IPs and node ports.
pub struct ServiceAllocator {
    config: AllocatorConfig,
    services: Arc<Collection>,
    address_objects: Arc<Collection>,
    ranges: Arc<Collection>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    addresses: HashSet<IpAddr>,
    ports: HashSet<u16>,
}

/// What a write of a Service has taken. Dropped without `commit`, it is given back.
pub struct Allocation {
    allocator: Arc<ServiceAllocator>,
    taken: Claims,
    /// What the old form of the Service had and the new one does not need.
    freed: Claims,
    namespace: String,
    name: String,
}

impl ServiceAllocator {
    /// Takes over what the stored Services already use.
    pub fn new(storage: &Storage, table: &ResourceTable, config: AllocatorConfig) -> Arc<Self> {
        let reader = StorageReader::new(storage, table);
        let collection = |group: &str, plural: &str| {
            reader.collection(group, plural).expect("the built-in table has services and addresses").clone()
        };
        let allocator = Self {
            config,
            services: collection("", "services"),
            address_objects: collection("networking.k8s.io", "ipaddresses"),
            ranges: collection("networking.k8s.io", "servicecidrs"),
            taken: Mutex::default(),
        };
        let claims = allocator.services.all(None).into_iter().map(|service| Claims::of(&service.value()));
        let mut taken = Taken::default();
        for claims in claims {
            taken.addresses.extend(claims.addresses);
            taken.ports.extend(claims.ports);
        }
        *allocator.taken.lock() = taken;
        Arc::new(allocator)
    }

    /// Fills in the families, cluster IPs and node ports that `service` needs and lacks. `old` is its stored form, whose
    /// claims it keeps. The Service must then be stored and the allocation committed.
    pub fn allocate(self: &Arc<Self>, service: &mut Value, old: Option<&Value>) -> Result<Allocation, Status> {
        let held = old.map(Claims::of).unwrap_or_default();
        let text = |member: &str| service["metadata"][member].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let mut allocation =
            Allocation { allocator: self.clone(), taken: Claims::default(), freed: Claims::default(), namespace, name };
        let default_families: Vec<_> = self.config.service_cidrs.iter().map(families::of_range).collect();
        families::fill(service, old, &default_families)
            .and_then(|()| self.take_addresses(service, &held, &mut allocation))
            .and_then(|()| self.take_ports(service, &held, &mut allocation))
            .map_err(|error| error.into_status(&allocation.name))?;
        let needed = Claims::of(service);
        allocation.freed = held.without(&needed);
        Ok(allocation)
    }

    /// Gives back what a deleted Service had.
    pub async fn release(&self, service: &Value) {
        self.give_back(&Claims::of(service)).await;
    }

    fn take_addresses(
        &self,
        service: &mut Value,
        held: &Claims,
        allocation: &mut Allocation,
    ) -> Result<(), AllocationError> {
        if !needs_addresses(service) {
            return Ok(());
        }
        let families = families::of_service(service);
        let mut addresses = claims::addresses_of(service);
        let owner = (allocation.namespace.as_str(), allocation.name.as_str());
        for (index, family) in families.iter().enumerate() {
            let ranges = self.ranges_of(*family);
            let mut taken = self.taken.lock();
            let pool = Addresses::new(&ranges);
            let is_free = |taken: &Taken, ip: IpAddr| !taken.addresses.contains(&ip) && !self.is_recorded(ip, owner);
            match addresses.get(index) {
                Some(ip) if held.addresses.contains(ip) => {}
                Some(ip) => {
                    let listed = addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
                    let refuse =
                        |why: &str| AllocationError::address(&listed, format!("failed to allocate IP {ip}: {why}"));
                    if !pool.contains(*ip) {
                        let valid: Vec<String> = ranges.iter().map(ToString::to_string).collect();
                        return Err(refuse(&format!(
                            "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}",
                            valid.join(",")
                        )));
                    }
                    if !is_free(&taken, *ip) {
                        return Err(refuse("provided IP is already allocated"));
                    }
                    taken.addresses.insert(*ip);
                    allocation.taken.addresses.insert(*ip);
                }
                None => {
                    let ip = pool.choose(|ip| is_free(&taken, ip)).ok_or(AllocationError::AddressesFull)?;
                    taken.addresses.insert(ip);
                    allocation.taken.addresses.insert(ip);
                    addresses.push(ip);
                }
            }
        }
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        service["spec"]["clusterIP"] = texts.first().cloned().unwrap_or_default().into();
        service["spec"]["clusterIPs"] = json!(texts);
        Ok(())
    }

    fn take_ports(
        &self,
        service: &mut Value,
        held: &Claims,
        allocation: &mut Allocation,
    ) -> Result<(), AllocationError> {
        let pool = Ports::new(self.config.node_ports.clone());
        let mut taken = self.taken.lock();
        for (path, wanted) in claims::wanted_ports(service) {
            // The same port of another protocol shares the node port.
            let wanted = wanted.or_else(|| claims::shared_port(service, &path));
            let port = match wanted {
                Some(port) if held.ports.contains(&port) || allocation.taken.ports.contains(&port) => port,
                Some(port) => {
                    if !pool.contains(port) {
                        return Err(AllocationError::port(
                            &path,
                            port,
                            format!("provided port is not in the valid range. The range of valid ports is {pool}"),
                        ));
                    }
                    if taken.ports.contains(&port) {
                        return Err(AllocationError::port(&path, port, "provided port is already allocated".into()));
                    }
                    port
                }
                None => pool.choose(|port| !taken.ports.contains(&port)).ok_or(AllocationError::PortsFull)?,
            };
            if !held.ports.contains(&port) && taken.ports.insert(port) {
                allocation.taken.ports.insert(port);
            }
            claims::set_port(service, &path, port);
        }
        Ok(())
    }

    /// Ranges of the configuration and of ready ServiceCIDR objects.
    fn ranges_of(&self, family: families::Family) -> Vec<IpNet> {
        let mut ranges = self.config.service_cidrs.clone();
        for object in self.ranges.all(None) {
            let value = object.value();
            let conditions = value["status"]["conditions"].as_array();
            let ready = conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
            if !ready || object.is_deleting() {
                continue;
            }
            ranges.extend(ranges::cidrs(&value));
        }
        ranges.retain(|range| families::of_range(range) == family);
        let mut seen = HashSet::new();
        ranges.retain(|range| seen.insert(range.trunc()));
        ranges
    }

    /// Whether an IPAddress object gives the address to somebody else.
    fn is_recorded(&self, ip: IpAddr, owner: (&str, &str)) -> bool {
        self.address_objects.get("", &ip.to_string()).is_some_and(|object| {
            let parent = &object.value()["spec"]["parentRef"];
            parent["resource"] != "services"
                || (parent["namespace"].as_str(), parent["name"].as_str()) != (Some(owner.0), Some(owner.1))
        })
    }

    /// Repairs now and every few minutes and looks after the ServiceCIDRs, until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let repairing = async {
            let mut tick = tokio::time::interval(REPAIR_PERIOD);
            loop {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    _ = tick.tick() => self.repair().await,
                }
            }
        };
        tokio::join!(repairing, self.keep_ranges(cancel.clone()));
    }
}

impl Allocation {
    /// The Service is stored: what it took is its own, what it no longer needs is free again.
    pub async fn commit(mut self) {
        let taken = std::mem::take(&mut self.taken);
        let freed = std::mem::take(&mut self.freed);
        for ip in &taken.addresses {
            self.allocator.record(*ip, &self.namespace, &self.name).await;
        }
        self.allocator.give_back(&freed).await;
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let mut taken = self.allocator.taken.lock();
        for ip in &self.taken.addresses {
            taken.addresses.remove(ip);
        }
        for port in &self.taken.ports {
            taken.ports.remove(port);
        }
    }
}

/// Why a Service gets no address or port.
#[derive(Debug)]
enum AllocationError {
    Fields(Vec<FieldError>),
    /// A port asked for to check the health of nodes; upstream counts that as its own failure.
    HealthCheck(String),
    AddressesFull,
    PortsFull,
}

impl AllocationError {
    fn address(addresses: &[String], why: String) -> Self {
        Self::Fields(vec![FieldError::invalid(&FieldPath::new("spec").child("clusterIPs"), json!(addresses), why)])
    }

    fn port(path: &claims::PortPath, port: u16, why: String) -> Self {
        if *path == claims::PortPath::HealthCheck {
            return Self::HealthCheck(format!("failed to allocate requested HealthCheck NodePort {port}: {why}"));
        }
        Self::Fields(vec![FieldError::invalid(&path.field(), port, why)])
    }

    fn into_status(self, name: &str) -> Status {
        match self {
            Self::Fields(errors) => Status::invalid(&GroupKind::new("", "Service"), name, errors),
            Self::HealthCheck(why) => Status::internal(why),
            Self::AddressesFull => Status::internal("failed to allocate a serviceIP: range is full"),
            Self::PortsFull => Status::internal("failed to allocate a nodePort: range is full"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
