//! What pods use, and how many of them that calls for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use kube::Client;
use kube1_api::quantity::Quantity;
use serde::Deserialize;

use crate::cached_pod::CachedPod;
use crate::clock;
use crate::pod_control::reason;
use crate::pods;

/// Differences smaller than this change nothing.
const TOLERANCE: f64 = 0.1;
/// A pod's CPU says nothing yet while it starts.
const CPU_START: Duration = Duration::from_secs(300);
const READY_DELAY: Duration = Duration::from_secs(30);

/// Why a metric is of no use: the condition's reason and message.
#[derive(Clone, Debug)]
pub struct MetricError {
    pub reason: &'static str,
    pub message: String,
}

/// How many pods a metric calls for, and what it is now.
pub struct Recommendation {
    pub replicas: i32,
    pub status: MetricStatus,
    /// What it is called in messages.
    pub name: String,
}

#[derive(Deserialize)]
struct PodMetricsList {
    items: Vec<PodMetrics>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    usage: BTreeMap<String, QuantityText>,
}

/// A resource of whole pods or of one container of each.
struct Source<'a> {
    resource: &'a str,
    container: Option<&'a str>,
    target: &'a MetricTarget,
}

/// Judges one metric.
pub async fn judge(
    client: &Client,
    metric: &MetricSpec,
    namespace: &str,
    selector: &str,
    pods: &[Arc<CachedPod>],
    current: i32,
) -> Result<Recommendation, MetricError> {
    let source = match (&metric.resource, &metric.container_resource) {
        (Some(r), _) => Source { resource: &r.name, container: None, target: &r.target },
        (None, Some(r)) => Source { resource: &r.name, container: Some(&r.container), target: &r.target },
        (None, None) => {
            return Err(MetricError {
                reason: unsupported(&metric.type_),
                message: format!("metrics of type {} need an adapter, which this cluster does not have", metric.type_),
            });
        }
    };
    let used = usage(client, namespace, selector, &source).await?;
    recommend(&source, pods, &used, current, metric)
}

fn unsupported(kind: &str) -> &'static str {
    match kind {
        "Pods" => "FailedGetPodsMetric",
        "Object" => "FailedGetObjectMetric",
        "External" => "FailedGetExternalMetric",
        _ => "InvalidMetricSourceType",
    }
}

fn failed(source: &Source<'_>, why: &str) -> MetricError {
    let reason =
        if source.container.is_some() { "FailedGetContainerResourceMetric" } else { "FailedGetResourceMetric" };
    let message = format!("failed to get {} utilization: {why}", source.resource);
    MetricError { reason, message }
}

/// Thousandths of the resource that each pod uses.
async fn usage(
    client: &Client,
    namespace: &str,
    selector: &str,
    source: &Source<'_>,
) -> Result<BTreeMap<String, i64>, MetricError> {
    let unavailable = |why: String| {
        let why = format!("unable to get metrics for resource {}: {why}", source.resource);
        failed(source, &why)
    };
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
    let request = kube::core::Request::new(path).list(&kube::api::ListParams::default().labels(selector));
    let request = request.map_err(|e| unavailable(e.to_string()))?;
    let list: PodMetricsList = client
        .request(request)
        .await
        .map_err(|e| unavailable(format!("unable to fetch metrics from resource metrics API: {}", reason(&e))))?;
    if list.items.is_empty() {
        return Err(unavailable("no metrics returned from resource metrics API".into()));
    }
    let amount = |c: &ContainerMetrics| {
        let text = c.usage.get(source.resource)?;
        Quantity::parse(&text.0).ok().map(Quantity::millis)
    };
    let of_pod = |pod: PodMetrics| {
        let counted = pod.containers.iter().filter(|c| source.container.is_none_or(|name| c.name == name));
        let sum: Option<i64> = counted.map(amount).sum();
        Some((pod.metadata.name?, sum?))
    };
    Ok(list.items.into_iter().filter_map(of_pod).collect())
}

/// Thousandths that a pod asks for.
fn request(pod: &CachedPod, source: &Source<'_>) -> Option<i64> {
    let spec = &pod.spec;
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let counted = spec.containers.iter().chain(sidecars).filter(|c| source.container.is_none_or(|n| c.name == n));
    let of = |c: &k8s_openapi::api::core::v1::Container| {
        let text = c.resources.as_ref()?.requests.as_ref()?.get(source.resource)?;
        Quantity::parse(&text.0).ok().map(Quantity::millis)
    };
    counted.map(of).sum()
}

/// Whether a pod's usage cannot be taken for its normal one yet.
fn is_starting(pod: &CachedPod, resource: &str) -> bool {
    if resource != "cpu" {
        return false;
    }
    let Some(((ready, since), started)) = pod.ready.as_ref().zip(pod.started.as_ref()) else { return true };
    let since = since.as_ref();
    if clock::since(started) < CPU_START {
        return !ready || since.is_some_and(|t| clock::between(started, t) < Duration::ZERO);
    }
    // Never ready since its start.
    !ready && since.is_some_and(|t| clock::between(started, t) < READY_DELAY)
}

fn recommend(
    source: &Source<'_>,
    pods: &[Arc<CachedPod>],
    used: &BTreeMap<String, i64>,
    current: i32,
    metric: &MetricSpec,
) -> Result<Recommendation, MetricError> {
    let (mut counted, mut starting, mut missing) = (Vec::new(), 0, 0);
    for pod in pods.iter().filter(|p| pods::is_active(p)) {
        if pod.phase == "Pending" || is_starting(pod, source.resource) {
            starting += 1;
        } else if let Some(usage) = used.get(&*pod.name) {
            counted.push((Arc::clone(pod), *usage));
        } else {
            missing += 1;
        }
    }
    if counted.is_empty() {
        return Err(failed(source, "did not receive metrics for targeted pods (pods might be unready)"));
    }
    let measure = Measure::of(source, &counted)?;
    let ready = count(counted.len());
    let replicas = if starting + missing == 0 {
        measure.replicas(ready, current)
    } else {
        // What is not known is taken to speak against the change: unused when growing, fully used when shrinking.
        let (unknown, share) = if measure.ratio > 1.0 { (starting + missing, 0.0) } else { (missing, 1.0) };
        let total = f64::from(ready) + f64::from(unknown);
        let ratio = (measure.ratio * f64::from(ready) + share * f64::from(unknown)) / total;
        let turned = (measure.ratio < 1.0) != (ratio < 1.0);
        let within = (1.0 - ratio).abs() <= TOLERANCE;
        if within || turned { current } else { grown(ratio * total, measure.ratio, current) }
    };
    Ok(Recommendation { replicas, name: measure.name(source), status: measure.status(source, metric) })
}

/// A metric's value over all counted pods, against its target.
struct Measure {
    ratio: f64,
    /// Percent of the requests.
    utilization: Option<i32>,
    average: i64,
}

impl Measure {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    fn of(source: &Source<'_>, counted: &[(Arc<CachedPod>, i64)]) -> Result<Self, MetricError> {
        let used: i64 = counted.iter().map(|(_, usage)| usage).sum();
        let average = used / i64::try_from(counted.len()).unwrap_or(1).max(1);
        if let Some(target) = source.target.average_utilization {
            let mut requested = 0;
            for (pod, _) in counted {
                let missing =
                    || failed(source, &format!("missing request for {} in pod {}", source.resource, pod.name));
                requested += request(pod, source).ok_or_else(missing)?;
            }
            if requested == 0 {
                return Err(failed(source, "the pods ask for nothing of it"));
            }
            let utilization = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
            let ratio = f64::from(utilization) / f64::from(target.max(1));
            return Ok(Self { ratio, utilization: Some(utilization), average });
        }
        let target =
            source.target.average_value.as_ref().and_then(|q| Quantity::parse(&q.0).ok()).map(Quantity::millis);
        let target = target.filter(|t| *t > 0).ok_or_else(|| failed(source, "the metric has no target"))?;
        Ok(Self { ratio: average as f64 / target as f64, utilization: None, average })
    }

    fn replicas(&self, ready: i32, current: i32) -> i32 {
        if (1.0 - self.ratio).abs() <= TOLERANCE {
            return current;
        }
        grown(self.ratio * f64::from(ready), self.ratio, current)
    }

    fn name(&self, source: &Source<'_>) -> String {
        let what = if self.utilization.is_some() { "resource utilization (percentage of request)" } else { "resource" };
        match source.container {
            Some(container) => format!("{} container {what} of {container}", source.resource),
            None => format!("{} {what}", source.resource),
        }
    }

    fn status(&self, source: &Source<'_>, metric: &MetricSpec) -> MetricStatus {
        let current = MetricValueStatus {
            average_utilization: self.utilization,
            average_value: Some(QuantityText(Quantity::from_millis(self.average).to_string())),
            value: None,
        };
        let mut status = MetricStatus { type_: metric.type_.clone(), ..MetricStatus::default() };
        match source.container {
            Some(container) => {
                let (container, name) = (container.to_owned(), source.resource.to_owned());
                status.container_resource = Some(ContainerResourceMetricStatus { container, name, current });
            }
            None => status.resource = Some(ResourceMetricStatus { name: source.resource.to_owned(), current }),
        }
        status
    }
}

/// A whole number of pods, which never goes against the direction of the ratio.
#[allow(clippy::cast_possible_truncation)]
fn grown(replicas: f64, ratio: f64, current: i32) -> i32 {
    let wanted = replicas.ceil() as i32;
    if (ratio < 1.0 && wanted > current) || (ratio > 1.0 && wanted < current) { current } else { wanted }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cached_pod::tests::cached;

    fn pod(name: &str, phase: &str) -> Arc<CachedPod> {
        let long_ago = "2020-01-01T00:00:00Z";
        cached(json!({"metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": phase, "startTime": long_ago,
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": long_ago}]}}))
    }

    #[test]
    fn replicas_follow_the_ratio_beyond_the_tolerance() {
        let metric: MetricSpec = serde_json::from_value(json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 50}}}))
        .unwrap();
        let target = &metric.resource.as_ref().unwrap().target;
        let source = Source { resource: "cpu", container: None, target };
        let get = |pods: &[Arc<CachedPod>], used: &[(&str, i64)]| {
            let used = used.iter().map(|(n, u)| ((*n).to_owned(), *u)).collect();
            recommend(&source, pods, &used, count(pods.len()), &metric).map(|r| r.replicas).unwrap_or(-1)
        };
        let two = [pod("a", "Running"), pod("b", "Running")];
        assert_eq!(get(&two, &[("a", 1000), ("b", 1000)]), 4);
        assert_eq!(get(&two, &[("a", 540), ("b", 500)]), 2, "within tolerance");
        assert_eq!(get(&two, &[("a", 100), ("b", 100)]), 1);
        assert_eq!(get(&two, &[("a", 100)]), 2, "a missing one may be fully used");
        assert_eq!(get(&[pod("a", "Running"), pod("b", "Pending")], &[("a", 1000)]), 2, "a new one will help");
        assert_eq!(get(&two, &[]), -1);
    }
}
