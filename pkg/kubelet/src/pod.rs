//! Facts about a pod that follow from its object alone.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kube1_api::quantity::Quantity;

use crate::labels;

/// Kubernetes' default when a pod gives none.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// Quality of service, which follows from requests and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// Which of a pod's lists a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    Init,
    /// An init container that goes on beside the others.
    Sidecar,
    Regular,
    Ephemeral,
}

/// Short access to a pod's fields; absent ones read as their defaults.
pub trait PodExt {
    fn name(&self) -> &str;
    fn namespace(&self) -> &str;
    fn uid(&self) -> &str;
    fn spec(&self) -> &PodSpec;
    fn status(&self) -> &PodStatus;
    fn annotation(&self, key: &str) -> Option<&str>;
    fn is_static(&self) -> bool {
        self.annotation(labels::CONFIG_SOURCE) == Some("file")
    }
    fn is_mirror(&self) -> bool {
        self.annotation(labels::CONFIG_MIRROR).is_some()
    }
    fn is_host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }
    fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or("Always")
    }
    fn phase(&self) -> &str {
        self.status().phase.as_deref().unwrap_or("Pending")
    }
    /// Whether the API has recorded that the pod ended for good.
    fn is_finished(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }
    fn grace_period(&self) -> i64 {
        self.spec().termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS)
    }
    /// `NAME_NAMESPACE`, as upstream's messages show pods.
    fn full_name(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }
}

impl PodExt for Pod {
    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// The pod's identity on the node: its manifest's hash for a static pod, whose API copy has another uid.
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::OnceLock<PodSpec> = std::sync::OnceLock::new();
        self.spec.as_ref().unwrap_or_else(|| EMPTY.get_or_init(PodSpec::default))
    }

    fn status(&self) -> &PodStatus {
        static EMPTY: std::sync::OnceLock<PodStatus> = std::sync::OnceLock::new();
        self.status.as_ref().unwrap_or_else(|| EMPTY.get_or_init(PodStatus::default))
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

/// Whether an init container goes on beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// All containers in start order: init containers and sidecars, regular ones, ephemeral ones.
pub fn containers(spec: &PodSpec) -> Vec<(ContainerKind, Container)> {
    let init = spec.init_containers.iter().flatten().map(|c| {
        let kind = if is_sidecar(c) { ContainerKind::Sidecar } else { ContainerKind::Init };
        (kind, c.clone())
    });
    let regular = spec.containers.iter().map(|c| (ContainerKind::Regular, c.clone()));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| (ContainerKind::Ephemeral, from_ephemeral(c)));
    init.chain(regular).chain(ephemeral).collect()
}

/// An ephemeral container has a subset of a container's fields.
pub fn from_ephemeral(container: &EphemeralContainer) -> Container {
    let c = container.clone();
    Container {
        args: c.args,
        command: c.command,
        env: c.env,
        env_from: c.env_from,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        name: c.name,
        resources: c.resources,
        security_context: c.security_context,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        tty: c.tty,
        volume_devices: c.volume_devices,
        volume_mounts: c.volume_mounts,
        working_dir: c.working_dir,
        ..Container::default()
    }
}

pub type ResourceList = BTreeMap<String, ApiQuantity>;

/// A quantity of a resource list; zero when it is absent or malformed, which the API refuses anyway.
pub fn quantity(list: Option<&ResourceList>, resource: &str) -> Option<Quantity> {
    list?.get(resource).and_then(|q| Quantity::parse(&q.0).ok())
}

pub fn limit(container: &Container, resource: &str) -> Option<Quantity> {
    quantity(container.resources.as_ref()?.limits.as_ref(), resource)
}

pub fn request(container: &Container, resource: &str) -> Option<Quantity> {
    quantity(container.resources.as_ref()?.requests.as_ref(), resource)
}

/// Which of a container's or pod's two lists to read.
type Pick = fn(&k8s_openapi::api::core::v1::ResourceRequirements) -> Option<&ResourceList>;

/// The pod's class: Guaranteed when every container limits CPU and memory to what it requests, BestEffort when none
/// asks for anything.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let all: Vec<&k8s_openapi::api::core::v1::ResourceRequirements> = match spec.resources.as_ref() {
        Some(pod_level) => vec![pod_level],
        None => Vec::new(),
    };
    let empty = k8s_openapi::api::core::v1::ResourceRequirements::default();
    let resources: Vec<_> = if all.is_empty() {
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        containers.map(|c| c.resources.as_ref().unwrap_or(&empty)).collect()
    } else {
        all
    };
    let value = |list: Option<&ResourceList>, name| quantity(list, name).filter(|q| !q.is_zero());
    let computed = ["cpu", "memory"];
    let none = |r: &k8s_openapi::api::core::v1::ResourceRequirements| {
        computed.iter().all(|n| value(r.requests.as_ref(), n).is_none() && value(r.limits.as_ref(), n).is_none())
    };
    let guaranteed = |r: &k8s_openapi::api::core::v1::ResourceRequirements| {
        computed.iter().all(|n| match (value(r.requests.as_ref(), n), value(r.limits.as_ref(), n)) {
            (Some(request), Some(limit)) => request.millis() == limit.millis(),
            (None, Some(_)) => true,
            _ => false,
        })
    };
    if resources.iter().all(|r| none(r)) {
        QosClass::BestEffort
    } else if resources.iter().all(|r| guaranteed(r)) {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

/// What the pod asks of a resource in all: the larger of its containers' sum (with sidecars) and its largest init step.
fn total(spec: &PodSpec, resource: &str, pick: Pick, all_must_have: bool) -> Option<Quantity> {
    if let Some(value) = spec.resources.as_ref().and_then(|r| quantity(pick(r), resource)) {
        return Some(value.plus(overhead(spec, resource)));
    }
    let of = |c: &Container| c.resources.as_ref().and_then(|r| quantity(pick(r), resource));
    let zero = Quantity::from_units(0);
    let mut sum = zero;
    for container in &spec.containers {
        match of(container) {
            Some(value) => sum = sum.plus(value),
            None if all_must_have => return None,
            None => {}
        }
    }
    let (mut sidecars, mut largest_init) = (zero, zero);
    for container in spec.init_containers.iter().flatten() {
        let value = match of(container) {
            Some(value) => value,
            None if all_must_have => return None,
            None => zero,
        };
        let step = if is_sidecar(container) {
            sidecars = sidecars.plus(value);
            sidecars
        } else {
            sidecars.plus(value)
        };
        if step > largest_init {
            largest_init = step;
        }
    }
    let running = sum.plus(sidecars);
    let total = if largest_init > running { largest_init } else { running };
    Some(total.plus(overhead(spec, resource)))
}

fn overhead(spec: &PodSpec, resource: &str) -> Quantity {
    quantity(spec.overhead.as_ref(), resource).unwrap_or_else(|| Quantity::from_units(0))
}

pub fn total_request(spec: &PodSpec, resource: &str) -> Quantity {
    total(spec, resource, |r| r.requests.as_ref(), false).unwrap_or_else(|| Quantity::from_units(0))
}

/// The pod's limit, if every container has one.
pub fn total_limit(spec: &PodSpec, resource: &str) -> Option<Quantity> {
    total(spec, resource, |r| r.limits.as_ref(), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> PodSpec {
        serde_json::from_str(text).expect("a pod spec")
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let cases = [
            (r#"{"containers":[{"name":"a"}]}"#, QosClass::BestEffort),
            (r#"{"containers":[{"name":"a","resources":{"requests":{"cpu":"1"}}}]}"#, QosClass::Burstable),
            (
                r#"{"containers":[{"name":"a","resources":{"limits":{"cpu":"1","memory":"1Gi"},
                    "requests":{"cpu":"1000m","memory":"1Gi"}}}]}"#,
                QosClass::Guaranteed,
            ),
            (
                r#"{"containers":[{"name":"a","resources":{"limits":{"cpu":"1","memory":"1Gi"}}},{"name":"b"}]}"#,
                QosClass::Burstable,
            ),
            (
                r#"{"resources":{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"1","memory":"1Gi"}},
                    "containers":[{"name":"a"}]}"#,
                QosClass::Guaranteed,
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(qos_class(&spec(text)), wanted, "{text}");
        }
    }

    #[test]
    fn totals_count_sidecars_and_the_largest_init_step() {
        let spec = spec(
            r#"{"overhead":{"cpu":"10m"},"containers":[{"name":"a","resources":{"requests":{"cpu":"100m"}}}],
            "initContainers":[{"name":"s","restartPolicy":"Always","resources":{"requests":{"cpu":"50m"}}},
            {"name":"i","resources":{"requests":{"cpu":"300m"}}}]}"#,
        );
        assert_eq!(total_request(&spec, "cpu").millis(), 360);
        assert!(total_limit(&spec, "cpu").is_none());
    }
}
