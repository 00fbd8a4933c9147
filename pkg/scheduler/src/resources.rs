//! What pods ask for and nodes offer, in the scheduler's units.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Requests that scoring assumes for a container that states none, so that such containers are spread too.
const UNSTATED_CPU: i64 = 100;
const UNSTATED_MEMORY: i64 = 200 << 20;

/// Amounts of every resource: CPU in thousandths of a core, the rest in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    pub pods: i64,
    /// Extended resources and huge pages.
    pub other: BTreeMap<String, i64>,
}

impl Resources {
    /// The amounts of an API quantity map; unreadable ones count as nothing.
    pub fn from_quantities(quantities: Option<&BTreeMap<String, Quantity>>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in quantities.into_iter().flatten() {
            *resources.entry(name) = amount(name, quantity);
        }
        resources
    }

    fn entry(&mut self, name: &str) -> &mut i64 {
        match name {
            "cpu" => &mut self.cpu,
            "memory" => &mut self.memory,
            "ephemeral-storage" => &mut self.ephemeral_storage,
            "pods" => &mut self.pods,
            other => self.other.entry(other.to_owned()).or_insert(0),
        }
    }

    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            "pods" => self.pods,
            other => self.other.get(other).copied().unwrap_or(0),
        }
    }

    pub fn add(&mut self, more: &Self) {
        self.combine(more, i64::saturating_add);
    }

    pub fn subtract(&mut self, less: &Self) {
        self.combine(less, i64::saturating_sub);
    }

    /// Raises every amount to at least `other`'s.
    pub fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, with: &Self, operation: fn(i64, i64) -> i64) {
        self.cpu = operation(self.cpu, with.cpu);
        self.memory = operation(self.memory, with.memory);
        self.ephemeral_storage = operation(self.ephemeral_storage, with.ephemeral_storage);
        self.pods = operation(self.pods, with.pods);
        for (name, value) in &with.other {
            let own = self.other.entry(name.clone()).or_insert(0);
            *own = operation(*own, *value);
        }
    }
}

fn amount(name: &str, quantity: &Quantity) -> i64 {
    let parsed = kube1_api::quantity::Quantity::parse(&quantity.0);
    parsed.map_or(0, |q| if name == "cpu" { q.millis() } else { q.units() })
}

/// Everything the pod's containers ask for at their peak, with overhead.
pub fn pod_requests(pod: &Pod) -> Resources {
    total(pod, |container| container_requests(pod, container))
}

/// CPU and memory requests as scoring sees them: containers without requests count with a small default.
pub fn scoring_requests(pod: &Pod) -> (i64, i64) {
    let has_pod_level = |name: &str| pod_level_requests(pod).is_some_and(|r| r.contains_key(name));
    let (pod_cpu, pod_memory) = (has_pod_level("cpu"), has_pod_level("memory"));
    let requests = total(pod, |container| {
        let mut requests = container_requests(pod, container);
        let stated = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        let states = |name: &str| stated.is_some_and(|r| r.contains_key(name));
        if !pod_cpu && !states("cpu") {
            requests.cpu = UNSTATED_CPU;
        }
        if !pod_memory && !states("memory") {
            requests.memory = UNSTATED_MEMORY;
        }
        requests
    });
    (requests.cpu, requests.memory)
}

fn pod_level_requests(pod: &Pod) -> Option<&BTreeMap<String, Quantity>> {
    pod.spec.as_ref()?.resources.as_ref()?.requests.as_ref()
}

/// The container's requests, or what it still holds while a resize of it is under way, whichever is more.
fn container_requests(pod: &Pod, container: &Container) -> Resources {
    let mut requests = of_requirements(container.resources.as_ref());
    let status = pod.status.as_ref();
    let statuses = status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
    let init_statuses = status.and_then(|s| s.init_container_statuses.as_ref()).into_iter().flatten();
    if let Some(status) = statuses.chain(init_statuses).find(|s| s.name == container.name) {
        requests.raise_to(&of_requirements(status.resources.as_ref()));
        requests.raise_to(&Resources::from_quantities(status.allocated_resources.as_ref()));
    }
    requests
}

fn of_requirements(requirements: Option<&ResourceRequirements>) -> Resources {
    Resources::from_quantities(requirements.and_then(|r| r.requests.as_ref()))
}

fn total(pod: &Pod, requests_of: impl Fn(&Container) -> Resources) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&requests_of(container));
    }
    let (peak, sidecars) = init_peak(spec, requests_of);
    sum.add(&sidecars);
    sum.raise_to(&peak);
    for (name, quantity) in pod_level_requests(pod).into_iter().flatten() {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            *sum.entry(name) = amount(name, quantity);
        }
    }
    sum.add(&Resources::from_quantities(spec.overhead.as_ref()));
    sum
}

/// The highest requests while init containers run one after another, and the sum of those that stay (sidecars).
fn init_peak(spec: &PodSpec, requests_of: impl Fn(&Container) -> Resources) -> (Resources, Resources) {
    let (mut peak, mut sidecars) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut now = requests_of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&now);
            now = sidecars.clone();
        } else {
            now.add(&sidecars);
        }
        peak.raise_to(&now);
    }
    (peak, sidecars)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn container(name: &str, cpu: &str, restart: Option<&str>) -> serde_json::Value {
        json!({"name": name, "restartPolicy": restart, "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn init_containers_count_at_their_peak_and_sidecars_always() {
        let cases = [
            (json!({"containers": [container("a", "100m", None), container("b", "0.2", None)]}), 300),
            (
                json!({"containers": [container("a", "100m", None)], "initContainers": [container("i", "1", None)]}),
                1000,
            ),
            (
                json!({"containers": [container("a", "100m", None)],
                    "initContainers": [container("s", "50m", Some("Always")), container("i", "70m", None)]}),
                150,
            ),
            (
                json!({"containers": [container("a", "100m", None)],
                    "initContainers": [container("s", "50m", Some("Always")), container("i", "170m", None)],
                    "overhead": {"cpu": "10m"}}),
                230,
            ),
            (json!({"containers": [container("a", "100m", None)], "resources": {"requests": {"cpu": "2"}}}), 2000),
        ];
        for (spec, want) in cases {
            assert_eq!(pod_requests(&pod(spec.clone())).cpu, want, "{spec}");
        }
    }

    #[test]
    fn containers_without_requests_count_for_scoring_only() {
        let pod = pod(json!({"containers": [{"name": "a"}, container("b", "1", None)]}));
        assert_eq!(pod_requests(&pod), Resources { cpu: 1000, ..Resources::default() });
        assert_eq!(scoring_requests(&pod), (1100, 2 * UNSTATED_MEMORY));
    }
}
