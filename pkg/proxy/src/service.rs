//! Services as the proxy sees them.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use serde::{Deserialize, Serialize};

/// Services with one of these labels are served by somebody else, or by nobody.
const NOT_OURS: [&str; 2] = ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
/// The affinity time of a service that does not say one.
const DEFAULT_AFFINITY: u64 = 3 * 60 * 60;

/// One port of a service in one IP family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Unique among the ports of all services and both families; usable in names of chains.
    pub id: String,
    pub port_name: String,
    /// IP protocol number.
    pub protocol: u8,
    pub port: u16,
    pub cluster_ip: IpAddr,
    pub node_port: Option<u16>,
    pub external_ips: Vec<IpAddr>,
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use `load_balancer_ips`; everybody if there are none.
    pub source_ranges: Vec<IpNet>,
    /// How long a client stays with its endpoint.
    pub affinity: Option<Duration>,
    /// Whether only this node's endpoints serve traffic from outside the cluster.
    pub external_local: bool,
    /// Whether only this node's endpoints serve traffic to the cluster IP.
    pub internal_local: bool,
}

impl ServicePort {
    pub fn is_v6(&self) -> bool {
        self.cluster_ip.is_ipv6()
    }
}

/// The ports of a service; none if it needs no proxy.
pub fn ports_of(service: &Service) -> Vec<ServicePort> {
    let Some(spec) = service.spec.as_ref().filter(|_| needs_proxy(service)) else { return Vec::new() };
    let cluster_ips = cluster_ips(spec);
    let ports = spec.ports.iter().flatten();
    ports.flat_map(|port| cluster_ips.iter().filter_map(|ip| service_port(service, spec, port, *ip))).collect()
}

fn needs_proxy(service: &Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    let other = labels.is_some_and(|labels| NOT_OURS.iter().any(|label| labels.contains_key(*label)));
    let external_name = service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName"));
    !other && !external_name
}

/// Nothing for a headless service.
fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let many = spec.cluster_ips.iter().flatten();
    let mut ips: Vec<IpAddr> = many.filter_map(|ip| ip.parse().ok()).collect();
    if ips.is_empty() {
        ips.extend(spec.cluster_ip.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()));
    }
    ips
}

fn service_port(
    service: &Service,
    spec: &ServiceSpec,
    port: &k8s_openapi::api::core::v1::ServicePort,
    cluster_ip: IpAddr,
) -> Option<ServicePort> {
    let (name, namespace) = (service.metadata.name.as_deref()?, service.metadata.namespace.as_deref()?);
    let protocol_name = port.protocol.as_deref().unwrap_or("TCP");
    let same_family = |ip: &IpAddr| ip.is_ipv4() == cluster_ip.is_ipv4();
    let family = if cluster_ip.is_ipv4() { 4 } else { 6 };
    let is = |value: &Option<String>, wanted: &str| value.as_deref() == Some(wanted);
    Some(ServicePort {
        id: format!("{namespace}/{name}/{}/{}/ip{family}", protocol_name.to_ascii_lowercase(), port.port),
        port_name: port.name.clone().unwrap_or_default(),
        protocol: protocol_number(protocol_name)?,
        port: u16::try_from(port.port).ok()?,
        cluster_ip,
        node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
        external_ips: parse_all(spec.external_ips.iter().flatten()).into_iter().filter(same_family).collect(),
        load_balancer_ips: load_balancer_ips(service).into_iter().filter(same_family).collect(),
        source_ranges: source_ranges(spec, cluster_ip),
        affinity: is(&spec.session_affinity, "ClientIP").then(|| affinity(spec)),
        external_local: is(&spec.external_traffic_policy, "Local"),
        internal_local: is(&spec.internal_traffic_policy, "Local"),
    })
}

fn parse_all<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn source_ranges(spec: &ServiceSpec, like: IpAddr) -> Vec<IpNet> {
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    ranges
        .filter_map(|range| range.trim().parse::<IpNet>().ok())
        .filter(|net| net.addr().is_ipv4() == like.is_ipv4())
        .collect()
}

fn affinity(spec: &ServiceSpec) -> Duration {
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds =
        config.and_then(|client_ip| client_ip.timeout_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    Duration::from_secs(seconds.unwrap_or(DEFAULT_AFFINITY))
}

/// The addresses at which a load balancer's packets arrive unchanged.
fn load_balancer_ips(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    let unchanged = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    unchanged.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

pub(crate) fn protocol_number(name: &str) -> Option<u8> {
    match name {
        "TCP" => Some(6),
        "UDP" => Some(17),
        "SCTP" => Some(132),
        _ => None,
    }
}

/// The port at which a load balancer asks whether this node has endpoints of the service.
pub fn health_check_port(service: &Service) -> Option<u16> {
    let spec = service.spec.as_ref()?;
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let balanced = spec.type_.as_deref() == Some("LoadBalancer");
    u16::try_from(spec.health_check_node_port?).ok().filter(|port| *port != 0 && local && balanced)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn some_services_need_no_proxy() {
        let cases = [
            (json!({}), json!("ClusterIP"), 1),
            (json!({"service.kubernetes.io/service-proxy-name": "other"}), json!("ClusterIP"), 0),
            (json!({"service.kubernetes.io/headless": ""}), json!("ClusterIP"), 0),
            (json!({}), json!("ExternalName"), 0),
        ];
        for (labels, kind, ports) in cases {
            let service: Service = serde_json::from_value(json!({
                "metadata": {"name": "s", "namespace": "ns", "labels": labels},
                "spec": {"type": kind, "clusterIP": "10.43.0.7", "ports": [{"port": 80}]},
            }))
            .unwrap();
            assert_eq!(ports_of(&service).len(), ports, "{labels} {kind}");
        }
    }
}
