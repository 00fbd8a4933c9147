//! Whether this node takes a pod that was given to it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node as ApiNode, NodeSelector, NodeSelectorRequirement, Pod};
use kube1_api::quantity::Quantity;

use crate::node::{Node, PodEntry};
use crate::pod::{self, PodExt};
use crate::status::Verdict;

/// Kernel settings that only the pod sees and that cannot harm others.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

fn refuse(reason: &str, message: &str) -> Verdict {
    Verdict { reason: reason.to_owned(), message: format!("Pod was rejected: {message}") }
}

/// Checks the node's labels, ports, settings and room. The error is the pod's end.
pub fn admit(node: &Node, entry: &Arc<PodEntry>, pod: &Pod) -> Result<(), Verdict> {
    let spec = pod.spec();
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return Err(refuse("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"));
    }
    let strict = spec.security_context.as_ref().and_then(|s| s.supplemental_groups_policy.as_deref()) == Some("Strict");
    if strict && !node.features.lock().supplemental_groups_policy {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return Err(refuse("SupplementalGroupsPolicyNotSupported", message));
    }
    let sysctls = spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten());
    for sysctl in sysctls {
        let name = sysctl.name.replace('/', ".");
        if !SAFE_SYSCTLS.contains(&name.as_str()) && !node.config.settings.allows_sysctl(&name) {
            let message = format!("forbidden sysctl: \"{}\" not allowlisted", sysctl.name);
            return Err(Verdict { reason: "SysctlForbidden".to_owned(), message });
        }
    }
    if let Some(api_node) = node.api_node()
        && !fits_node(pod, &api_node)
    {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Err(refuse("NodeAffinity", message));
    }
    let others = others(node, entry);
    if let Some(port) = port_conflict(pod, &others) {
        let message =
            format!("Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports ({port})");
        return Err(refuse("NodePorts", &message));
    }
    room(node, pod, &others)
}

/// Whether what the pod asks for now fits beside the others.
pub fn room_for(node: &Node, entry: &Arc<PodEntry>, pod: &Pod) -> Result<(), Verdict> {
    room(node, pod, &others(node, entry))
}

/// The other pods that take their share of the node.
fn others(node: &Node, entry: &Arc<PodEntry>) -> Vec<Arc<Pod>> {
    let all = node.pods.all();
    all.iter().filter(|other| !Arc::ptr_eq(other, entry) && other.is_active()).map(|other| other.holding()).collect()
}

/// How a resource is counted.
type Unit = fn(Quantity) -> i64;

fn room(node: &Node, pod: &Pod, others: &[Arc<Pod>]) -> Result<(), Verdict> {
    let allocatable = *node.allocatable.lock();
    let out_of = |resource: &str, requested: i64, used: i64, capacity: i64| {
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        refuse(&format!("OutOf{resource}"), &message)
    };
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if count + 1 > allocatable.pods {
        return Err(out_of("pods", 1, count, allocatable.pods));
    }
    let resources: [(&str, i64, Unit); 3] = [
        ("cpu", allocatable.cpu_millis, Quantity::millis),
        ("memory", allocatable.memory, Quantity::units),
        ("ephemeral-storage", allocatable.ephemeral_storage, Quantity::units),
    ];
    for (resource, capacity, value) in resources {
        let requested = value(pod::total_request(pod.spec(), resource));
        if requested == 0 {
            continue;
        }
        let used: i64 = others.iter().map(|other| value(pod::total_request(other.spec(), resource))).sum();
        if used + requested > capacity {
            return Err(out_of(resource, requested, used, capacity));
        }
    }
    Ok(())
}

type HostPort<'a> = (i32, &'a str, &'a str);

fn host_ports(pod: &Pod) -> impl Iterator<Item = HostPort<'_>> {
    let containers =
        pod.spec().init_containers.iter().flatten().filter(|c| pod::is_sidecar(c)).chain(&pod.spec().containers);
    containers.flat_map(|c| c.ports.iter().flatten()).filter_map(|p| {
        let port = p.host_port.filter(|port| *port > 0)?;
        Some((port, p.protocol.as_deref().unwrap_or("TCP"), p.host_ip.as_deref().unwrap_or_default()))
    })
}

fn port_conflict(pod: &Pod, others: &[Arc<Pod>]) -> Option<i32> {
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    let clash = |a: HostPort<'_>, b: HostPort<'_>| a.0 == b.0 && a.1 == b.1 && (a.2 == b.2 || any(a.2) || any(b.2));
    host_ports(pod).find(|own| others.iter().any(|o| host_ports(o).any(|b| clash(*own, b)))).map(|(port, ..)| port)
}

/// Whether the node's labels are those that the pod demands.
fn fits_node(pod: &Pod, node: &ApiNode) -> bool {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let selected = pod.spec().node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let required = pod
        .spec()
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|selector| selector_fits(selector, node))
}

fn selector_fits(selector: &NodeSelector, node: &ApiNode) -> bool {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(node.metadata.name.as_deref()).flatten();
    selector.node_selector_terms.iter().any(|term| {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        // A term without any demand fits nothing.
        !(expressions.is_empty() && fields.is_empty())
            && expressions.iter().all(|e| requirement_fits(e, label(&e.key)))
            && fields.iter().all(|e| requirement_fits(e, field(&e.key)))
    })
}

fn requirement_fits(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|v| values.iter().any(|w| w == v));
    let number = |text: &str| text.parse::<i64>().ok();
    let compare = |fits: fn(i64, i64) -> bool| {
        let wanted = values.first().and_then(|w| number(w));
        value.and_then(number).zip(wanted).is_some_and(|(a, b)| fits(a, b))
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|a, b| a > b),
        "Lt" => compare(|a, b| a < b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        serde_json::from_str(&format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#)).expect("a pod")
    }

    #[test]
    fn node_labels_must_fit() {
        let node: ApiNode =
            serde_json::from_str(r#"{"metadata":{"name":"n1","labels":{"disk":"ssd","cores":"8"}}}"#).expect("a node");
        let affinity = |term: &str| {
            pod(&format!(
                r#"{{"containers":[],"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":
                {{"nodeSelectorTerms":[{term}]}}}}}}}}"#
            ))
        };
        let cases = [
            (r#"{"matchExpressions":[{"key":"disk","operator":"In","values":["ssd"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"cores","operator":"Gt","values":["8"]}]}"#, false),
            (r#"{"matchExpressions":[{"key":"gpu","operator":"DoesNotExist"}]}"#, true),
            (r#"{"matchFields":[{"key":"metadata.name","operator":"In","values":["n2"]}]}"#, false),
            ("{}", false),
        ];
        for (term, wanted) in cases {
            assert_eq!(fits_node(&affinity(term), &node), wanted, "{term}");
        }
        assert!(!fits_node(&pod(r#"{"containers":[],"nodeSelector":{"disk":"hdd"}}"#), &node));
    }

    #[test]
    fn host_ports_clash_on_overlapping_addresses() {
        let with = |port: &str| pod(&format!(r#"{{"containers":[{{"name":"c","ports":[{port}]}}]}}"#));
        let taken = [Arc::new(with(r#"{"containerPort":1,"hostPort":80,"hostIP":"10.0.0.1"}"#))];
        let cases = [
            (r#"{"containerPort":1,"hostPort":80}"#, true),
            (r#"{"containerPort":1,"hostPort":80,"hostIP":"10.0.0.2"}"#, false),
            (r#"{"containerPort":1,"hostPort":80,"protocol":"UDP"}"#, false),
            (r#"{"containerPort":80}"#, false),
        ];
        for (port, wanted) in cases {
            assert_eq!(port_conflict(&with(port), &taken).is_some(), wanted, "{port}");
        }
    }
}
