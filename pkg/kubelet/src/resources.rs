//! Requests and limits as the kernel takes them.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use kube1_cri::v1::LinuxContainerResources;

use crate::machine::Machine;
use crate::pod::{self, QosClass};

const CPU_PERIOD_US: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
/// The scheduler refuses a smaller quota.
const MIN_QUOTA_US: i64 = 1_000;

/// Relative CPU weight (cgroup v1 scale).
pub fn cpu_shares(millis: i64) -> i64 {
    (millis * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// CPU time in a period; `None` for no limit.
pub fn cpu_quota(millis: i64) -> Option<i64> {
    (millis > 0).then(|| (millis * CPU_PERIOD_US / 1000).max(MIN_QUOTA_US))
}

/// A container's share of the machine, whose memory scales how soon the kernel kills it for want of memory. No container
/// swaps (the behaviour `NoSwap` of KEP-2400): its limit of memory and swap together is that of memory alone.
pub fn container_resources(spec: &PodSpec, container: &Container, machine: &Machine) -> LinuxContainerResources {
    let millis = |q: Option<kube1_api::quantity::Quantity>| q.map(|q| q.millis());
    let request = millis(pod::request(container, "cpu")).or_else(|| millis(pod::limit(container, "cpu")));
    let quota = millis(pod::limit(container, "cpu")).and_then(cpu_quota);
    let memory = pod::limit(container, "memory").map_or(0, |q| q.units());
    LinuxContainerResources {
        cpu_shares: cpu_shares(request.unwrap_or(0)),
        cpu_period: CPU_PERIOD_US,
        cpu_quota: quota.unwrap_or(0),
        memory_limit_in_bytes: memory,
        memory_swap_limit_in_bytes: if machine.limits_swap { memory } else { 0 },
        oom_score_adj: oom_score_adj(spec, container, machine.memory),
        ..LinuxContainerResources::default()
    }
}

/// How readily the kernel kills a container: never a critical one first, a best-effort one before all others, and in
/// between by how little memory it asked for.
fn oom_score_adj(spec: &PodSpec, container: &Container, machine_memory: i64) -> i64 {
    const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;
    if spec.priority.is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY) {
        return -997;
    }
    match pod::qos_class(spec) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = pod::request(container, "memory").map_or(0, |q| q.units());
            let score = 1000 - 1000_i64.saturating_mul(request) / machine_memory.max(1);
            score.clamp(3, 999)
        }
    }
}

/// Limits of a whole pod, for its cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodLimits {
    pub cpu_shares: i64,
    pub cpu_quota: Option<i64>,
    pub memory: Option<i64>,
}

impl PodLimits {
    /// Limits under which both what these and what those `other` ones allow may run.
    pub fn loosest(self, other: Self) -> Self {
        let higher = |a: Option<i64>, b: Option<i64>| Some(a?.max(b?));
        Self {
            cpu_shares: self.cpu_shares,
            cpu_quota: higher(self.cpu_quota, other.cpu_quota),
            memory: higher(self.memory, other.memory),
        }
    }
}

pub const POD_CPU_PERIOD_US: i64 = CPU_PERIOD_US;

pub fn pod_limits(spec: &PodSpec) -> PodLimits {
    let shares = cpu_shares(pod::total_request(spec, "cpu").millis());
    PodLimits {
        cpu_shares: if pod::qos_class(spec) == QosClass::BestEffort { MIN_SHARES } else { shares },
        cpu_quota: pod::total_limit(spec, "cpu").and_then(|q| cpu_quota(q.millis())),
        memory: pod::total_limit(spec, "memory").map(|q| q.units()).filter(|m| *m > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loosest_limits_hold_both() {
        let limits = |cpu_quota, memory| PodLimits { cpu_shares: 2, cpu_quota, memory };
        assert_eq!(limits(Some(1), Some(9)).loosest(limits(Some(5), Some(3))), limits(Some(5), Some(9)));
        assert_eq!(limits(None, Some(9)).loosest(limits(Some(5), None)), limits(None, None));
    }

    #[test]
    fn shares_quota_and_oom_score_follow_upstream() {
        assert_eq!([cpu_shares(0), cpu_shares(100), cpu_shares(2000)], [2, 102, 2048]);
        assert_eq!([cpu_quota(0), cpu_quota(5), cpu_quota(250)], [None, Some(1000), Some(25_000)]);
        let spec: PodSpec = serde_json::from_str(
            r#"{"containers":[{"name":"a","resources":{"requests":{"memory":"1Gi"},"limits":{"cpu":"500m"}}}]}"#,
        )
        .expect("a pod spec");
        let mut machine = Machine { memory: 4 << 30, ..Machine::default() };
        let resources = container_resources(&spec, &spec.containers[0], &machine);
        assert_eq!(resources.oom_score_adj, 750);
        assert_eq!((resources.cpu_shares, resources.cpu_quota), (512, 50_000));
        let limited: PodSpec =
            serde_json::from_str(r#"{"containers":[{"name":"a","resources":{"limits":{"memory":"1Mi"}}}]}"#)
                .expect("a pod spec");
        for (limits_swap, expected) in [(false, 0), (true, 1 << 20)] {
            machine.limits_swap = limits_swap;
            let resources = container_resources(&limited, &limited.containers[0], &machine);
            assert_eq!((resources.memory_limit_in_bytes, resources.memory_swap_limit_in_bytes), (1 << 20, expected));
        }
    }
}
