//! What each metric of an autoscaler is, and how many pods that calls for.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricSource, ExternalMetricStatus, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ObjectMetricSource, ObjectMetricStatus, PodsMetricSource, PodsMetricStatus,
    ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use kube::Client;
use kube1_api::quantity::Quantity;
use serde::Deserialize;

use super::adapters;
use super::ratio::{Groups, Size, of_shares, of_whole};
use crate::cached_pod::CachedPod;
use crate::pod_control::reason;

/// Why a metric is of no use: the condition's reason and message.
#[derive(Clone, Debug)]
pub struct MetricError {
    pub reason: &'static str,
    pub message: String,
}

/// How many pods a metric calls for, and what it is now.
#[derive(Debug)]
pub struct Recommendation {
    pub replicas: i32,
    pub status: MetricStatus,
    /// What it is called in messages.
    pub name: String,
}

/// What is scaled.
pub struct Subject<'a> {
    pub client: &'a Client,
    pub namespace: &'a str,
    /// Of its pods.
    pub selector: &'a str,
    pub pods: &'a [Arc<CachedPod>],
    pub size: Size,
}

#[derive(Deserialize)]
struct PodMetricsList {
    /// Servers in Go write an empty list as null.
    items: Option<Vec<PodMetrics>>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    #[serde(default)]
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
pub async fn judge(subject: &Subject<'_>, metric: &MetricSpec) -> Result<Recommendation, MetricError> {
    let source = match metric {
        MetricSpec { resource: Some(r), .. } => Source { resource: &r.name, container: None, target: &r.target },
        MetricSpec { container_resource: Some(r), .. } => {
            Source { resource: &r.name, container: Some(&r.container), target: &r.target }
        }
        MetricSpec { pods: Some(source), .. } => return judge_pods(subject, source).await,
        MetricSpec { object: Some(source), .. } => return judge_object(subject, source).await,
        MetricSpec { external: Some(source), .. } => return judge_external(subject, source).await,
        _ => {
            let message = format!("unknown metric source type {:?}", metric.type_);
            return Err(MetricError { reason: "InvalidMetricSourceType", message });
        }
    };
    let used = usage(subject, &source).await?;
    recommend(subject, &source, &used, metric)
}

async fn judge_pods(subject: &Subject<'_>, source: &PodsMetricSource) -> Result<Recommendation, MetricError> {
    let failed = |message: String| MetricError { reason: "FailedGetPodsMetric", message };
    let metric = &source.metric;
    let target = millis(source.target.average_value.as_ref()).ok_or_else(|| failed(no_target("pods")))?;
    let found = adapters::of_pods(subject, metric).await;
    let values = found.map_err(|why| failed(format!("unable to get metric {}: {why}", metric.name)))?;
    let groups = Groups::of(subject.pods, &values, false);
    let average = average(&groups).ok_or_else(|| failed(NOTHING_COUNTED.to_owned()))?;
    let replicas = groups.replicas(ratio(average, target), 1.0, subject.size);
    let status = PodsMetricStatus { metric: metric.clone(), current: each(average) };
    let status = MetricStatus { type_: "Pods".to_owned(), pods: Some(status), ..MetricStatus::default() };
    Ok(Recommendation { replicas, status, name: format!("pods metric {}", metric.name) })
}

async fn judge_object(subject: &Subject<'_>, source: &ObjectMetricSource) -> Result<Recommendation, MetricError> {
    let failed = |message: String| MetricError { reason: "FailedGetObjectMetric", message };
    let (metric, object) = (&source.metric, &source.described_object);
    let target = Target::of(&source.target).ok_or_else(|| failed(no_target("object")))?;
    let value = adapters::of_object(subject, object, metric).await.map_err(|why| {
        let of = format!("{} on {} {}", object.kind, subject.namespace, object.name);
        failed(format!("unable to get metric {}: {of}/{why}", metric.name))
    })?;
    let (replicas, current) = target.replicas(value, subject);
    let name = match target {
        Target::Whole(_) => format!("{} metric {}", object.kind, metric.name),
        Target::Each(_) => external_name(metric),
    };
    let status = ObjectMetricStatus { described_object: object.clone(), metric: metric.clone(), current };
    let status = MetricStatus { type_: "Object".to_owned(), object: Some(status), ..MetricStatus::default() };
    Ok(Recommendation { replicas, status, name })
}

async fn judge_external(subject: &Subject<'_>, source: &ExternalMetricSource) -> Result<Recommendation, MetricError> {
    let failed = |message: String| MetricError { reason: "FailedGetExternalMetric", message };
    let metric = &source.metric;
    let target = Target::of(&source.target).ok_or_else(|| failed(no_target("external")))?;
    let value = adapters::external(subject, metric).await.map_err(|why| {
        let selector = adapters::shown(metric.selector.as_ref());
        let of = format!("{}/{}/{selector}", subject.namespace, metric.name);
        failed(format!("unable to get external metric {of}: {why}"))
    })?;
    let (replicas, current) = target.replicas(value, subject);
    let status = ExternalMetricStatus { metric: metric.clone(), current };
    let status = MetricStatus { type_: "External".to_owned(), external: Some(status), ..MetricStatus::default() };
    Ok(Recommendation { replicas, status, name: external_name(metric) })
}

const NOTHING_COUNTED: &str = "did not receive metrics for targeted pods (pods might be unready)";

fn external_name(metric: &k8s_openapi::api::autoscaling::v2::MetricIdentifier) -> String {
    format!("external metric {}({})", metric.name, adapters::shown(metric.selector.as_ref()))
}

fn no_target(kind: &str) -> String {
    format!("invalid {kind} metric source: neither a value target nor an average value target was set")
}

/// What a value that stands for all pods is to be, in thousandths.
#[derive(Clone, Copy)]
enum Target {
    Whole(i64),
    Each(i64),
}

impl Target {
    fn of(target: &MetricTarget) -> Option<Self> {
        let each = millis(target.average_value.as_ref()).map(Self::Each);
        each.or_else(|| millis(target.value.as_ref()).map(Self::Whole))
    }

    #[allow(clippy::cast_precision_loss)]
    fn replicas(self, value: i64, subject: &Subject<'_>) -> (i32, MetricValueStatus) {
        match self {
            Self::Whole(target) => {
                let replicas = of_whole(ratio(value, target), subject.pods, subject.size);
                (replicas, MetricValueStatus { value: Some(text(value)), ..MetricValueStatus::default() })
            }
            Self::Each(target) => {
                let (replicas, now) = of_shares(value as f64, target as f64, subject.size);
                (replicas, each(now))
            }
        }
    }
}

/// Thousandths of a target, which is always positive.
fn millis(quantity: Option<&QuantityText>) -> Option<i64> {
    Quantity::parse(&quantity?.0).ok().map(Quantity::millis).filter(|n| *n > 0)
}

fn text(millis: i64) -> QuantityText {
    QuantityText(Quantity::from_millis(millis).to_string())
}

fn each(average: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: Some(text(average)), ..MetricValueStatus::default() }
}

#[allow(clippy::cast_precision_loss)]
fn ratio(value: i64, target: i64) -> f64 {
    value as f64 / target as f64
}

fn average(groups: &Groups) -> Option<i64> {
    let sum: i64 = groups.counted.iter().map(|(_, value)| value).sum();
    sum.checked_div(i64::try_from(groups.counted.len()).unwrap_or(i64::MAX))
}

fn failed(source: &Source<'_>, why: &str) -> MetricError {
    let reason =
        if source.container.is_some() { "FailedGetContainerResourceMetric" } else { "FailedGetResourceMetric" };
    let message = format!("failed to get {} utilization: {why}", source.resource);
    MetricError { reason, message }
}

/// Thousandths of the resource that each pod uses.
async fn usage(subject: &Subject<'_>, source: &Source<'_>) -> Result<BTreeMap<String, i64>, MetricError> {
    let unavailable = |why: String| {
        let why = format!("unable to get metrics for resource {}: {why}", source.resource);
        failed(source, &why)
    };
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", subject.namespace);
    let request = kube::core::Request::new(path).list(&kube::api::ListParams::default().labels(subject.selector));
    let request = request.map_err(|e| unavailable(e.to_string()))?;
    let list: PodMetricsList = subject
        .client
        .request(request)
        .await
        .map_err(|e| unavailable(format!("unable to fetch metrics from resource metrics API: {}", reason(&e))))?;
    let items = list.items.unwrap_or_default();
    if items.is_empty() {
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
    Ok(items.into_iter().filter_map(of_pod).collect())
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

fn recommend(
    subject: &Subject<'_>,
    source: &Source<'_>,
    used: &BTreeMap<String, i64>,
    metric: &MetricSpec,
) -> Result<Recommendation, MetricError> {
    let groups = Groups::of(subject.pods, used, source.resource == "cpu");
    let average = average(&groups).ok_or_else(|| failed(source, NOTHING_COUNTED))?;
    let measure = Measure::of(source, &groups, average)?;
    // A pod that tells nothing may use all that it asks for.
    let full =
        source.target.average_utilization.map_or(1.0, |target| f64::from(target.max(100)) / f64::from(target.max(1)));
    let replicas = groups.replicas(measure.ratio, full, subject.size);
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
    fn of(source: &Source<'_>, groups: &Groups, average: i64) -> Result<Self, MetricError> {
        if let Some(target) = source.target.average_utilization {
            let used: i64 = groups.counted.iter().map(|(_, usage)| usage).sum();
            let mut requested = 0;
            for (pod, _) in &groups.counted {
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
        let target = millis(source.target.average_value.as_ref());
        let target = target.ok_or_else(|| failed(source, "the metric has no target"))?;
        Ok(Self { ratio: ratio(average, target), utilization: None, average })
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
            average_value: Some(text(self.average)),
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
