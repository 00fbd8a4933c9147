//! HorizontalPodAutoscalers: as many pods as their use calls for.

mod adapters;
mod behavior;
mod metrics;
mod ratio;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus,
};
use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use kube1_api::selector::LabelSelector;
use kube1_client::{Event, EventRecorder, EventType, Informer, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cached_pod::CachedPod;
use crate::clock;
use crate::controller::{Controller, Reconcile, SyncError, SyncResult, namespaced, replace_status, unless_gone};
use crate::discovery::Kinds;
use crate::pod_control::reason;
use behavior::History;
use metrics::{Subject, judge};
use ratio::{Size, Tolerance};

/// Use changes all the time: it is looked at so often.
const PERIOD: Duration = Duration::from_secs(15);

/// Runs the controller of HorizontalPodAutoscalers.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let scalers = controller.informers.all::<HorizontalPodAutoscaler>();
    let pods = controller.informers.all::<CachedPod>();
    if !controller.synced(&[&scalers, &pods]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    controller.watch(&scalers, &queue, |event| {
        let scaler = event.object();
        // Its own reports are no reason to look again.
        let same = matches!(event, Event::Updated { old, new } if old.spec == new.spec);
        (!same).then(|| ObjectKey::of(&**scaler))
    });
    let (client, recorder) = (controller.client.clone(), controller.recorder.clone());
    let autoscaler = Autoscaler { client, recorder, scalers, pods, histories: Mutex::default() };
    controller.keep(&queue, 4, autoscaler).await;
    Ok(())
}

struct Autoscaler {
    client: Client,
    recorder: EventRecorder,
    scalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<CachedPod>,
    histories: Mutex<HashMap<ObjectKey, History>>,
}

const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";

impl Reconcile<ObjectKey> for Autoscaler {
    async fn sync(&self, key: ObjectKey) -> SyncResult {
        let Some(scaler) = self.scalers.get(&key) else {
            self.histories.lock().remove(&key);
            return Ok(Outcome::Done);
        };
        let spec = &scaler.spec;
        let mut status = scaler.status.clone().unwrap_or_default();
        status.observed_generation = scaler.metadata.generation;
        self.scale(&key, &scaler, spec, &mut status).await;
        if scaler.status.as_ref() != Some(&status) {
            let changed = HorizontalPodAutoscaler { status: Some(status), ..HorizontalPodAutoscaler::clone(&scaler) };
            unless_gone(replace_status(&namespaced(&self.client, &key.namespace), changed).await)?;
        }
        Ok(Outcome::RequeueAfter(PERIOD))
    }
}

impl Autoscaler {
    /// Scales the target; what goes wrong is told in the status.
    async fn scale(
        &self,
        key: &ObjectKey,
        scaler: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
        status: &mut HorizontalPodAutoscalerStatus,
    ) {
        let (api, scale) = match self.target(key, spec).await {
            Ok(target) => target,
            Err(error) => {
                let message = format!("the HPA controller was unable to get the target's current scale: {error}");
                self.recorder.event(scaler, EventType::Warning, "FailedGetScale", message.clone());
                return set(status, ABLE, "False", "FailedGetScale", message);
            }
        };
        set(status, ABLE, "True", "SucceededGetScale", "the HPA controller was able to get the target's current scale");
        let current = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        status.current_replicas = Some(current);
        let starting = || History::starting(current, Instant::now());
        self.histories.lock().entry(key.clone()).or_insert_with(starting);
        let Some((wanted, why)) = self.wanted(key, scaler, spec, &scale, current, status).await else {
            status.desired_replicas = current;
            return;
        };
        status.desired_replicas = wanted;
        if wanted == current {
            return;
        }
        let mut changed = scale.clone();
        changed.spec.get_or_insert_default().replicas = Some(wanted);
        match api.replace_scale(&spec.scale_target_ref.name, &PostParams::default(), &changed).await {
            Ok(_) => {
                set(
                    status,
                    ABLE,
                    "True",
                    "SucceededRescale",
                    format!("the HPA controller was able to update the target scale to {wanted}"),
                );
                let message = format!("New size: {wanted}; reason: {why}");
                self.recorder.event(scaler, EventType::Normal, "SuccessfulRescale", message);
                self.histories.lock().entry(key.clone()).or_default().changed(wanted - current, Instant::now());
                status.last_scale_time = Some(clock::now());
            }
            Err(error) => {
                let error = reason(&error);
                let message = format!("New size: {wanted}; reason: {why}; error: {error}");
                self.recorder.event(scaler, EventType::Warning, "FailedRescale", message);
                let message = format!("the HPA controller was unable to update the target scale: {error}");
                set(status, ABLE, "False", "FailedUpdateScale", message);
                status.desired_replicas = current;
            }
        }
    }

    async fn target(
        &self,
        key: &ObjectKey,
        spec: &HorizontalPodAutoscalerSpec,
    ) -> Result<(Api<DynamicObject>, Scale), SyncError> {
        let target = &spec.scale_target_ref;
        let kinds = Kinds::discover(&self.client).await?;
        let api_version = target.api_version.as_deref().unwrap_or("v1");
        let unknown = || SyncError::Invalid(format!("no matches for kind {:?} in {api_version:?}", target.kind));
        let kind = kinds.find(api_version, &target.kind).ok_or_else(unknown)?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &kind.resource);
        let scale = api.get_scale(&target.name).await?;
        Ok((api, scale))
    }

    /// The size to have now and why; None if nothing can be said.
    async fn wanted(
        &self,
        key: &ObjectKey,
        scaler: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
        scale: &Scale,
        current: i32,
        status: &mut HorizontalPodAutoscalerStatus,
    ) -> Option<(i32, String)> {
        let min = spec.min_replicas.unwrap_or(1);
        if current == 0 && min != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            set(status, ACTIVE, "False", "ScalingDisabled", message);
            return None;
        }
        if current > spec.max_replicas {
            return Some((spec.max_replicas, "Current number of replicas above Spec.MaxReplicas".into()));
        }
        if current < min {
            return Some((min, "Current number of replicas below Spec.MinReplicas".into()));
        }
        let (wanted, why) = self.by_metrics(key, scaler, spec, scale, current, status).await?;
        let bounded =
            self.histories.lock().entry(key.clone()).or_default().bound(spec, current, wanted, Instant::now());
        match bounded.stabilized {
            Some(message) => set(status, ABLE, "True", "ScaleDownStabilized", message),
            None => set(status, ABLE, "True", "ReadyForNewScale", "recommended size matches current size"),
        }
        match bounded.limited {
            Some((reason, message)) => set(status, LIMITED, "True", reason, message),
            None => {
                let message = "the desired count is within the acceptable range";
                set(status, LIMITED, "False", "DesiredWithinRange", message);
            }
        }
        let why = if bounded.replicas < current {
            "All metrics below target".to_owned()
        } else {
            format!("{why} above target")
        };
        Some((bounded.replicas, why))
    }

    /// The largest size that any metric calls for. A metric that fails keeps the others from shrinking the target.
    async fn by_metrics(
        &self,
        key: &ObjectKey,
        scaler: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
        scale: &Scale,
        current: i32,
        status: &mut HorizontalPodAutoscalerStatus,
    ) -> Option<(i32, String)> {
        let text = scale.status.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
        let Some(selector) = LabelSelector::parse(&text).ok().filter(|s| !s.is_empty()) else {
            let message = "the HPA target's scale is missing a selector";
            self.recorder.event(scaler, EventType::Warning, "SelectorRequired", message);
            set(status, ACTIVE, "False", "InvalidSelector", message);
            return None;
        };
        let labels = |p: &Arc<CachedPod>| selector.matches(|key| p.labels.get(key).map(String::as_str));
        let pods: Vec<_> = self.pods.list_namespace(&key.namespace).into_iter().filter(labels).collect();
        let (mut best, mut statuses, mut failure) = (None::<(i32, String)>, Vec::new(), None);
        let present = scale.status.as_ref().map_or(0, |s| s.replicas);
        let size = Size { wanted: current, present, tolerance: Tolerance::of(spec.behavior.as_ref()) };
        let (client, namespace) = (&self.client, key.namespace.as_str());
        let subject = Subject { client, namespace, selector: &text, pods: &pods, size };
        for metric in spec.metrics.iter().flatten() {
            match judge(&subject, metric).await {
                Ok(found) => {
                    if best.as_ref().is_none_or(|(n, _)| found.replicas > *n) {
                        best = Some((found.replicas, found.name));
                    }
                    statuses.push(found.status);
                }
                Err(error) => {
                    self.recorder.event(scaler, EventType::Warning, error.reason, error.message.clone());
                    failure.get_or_insert(error);
                }
            }
        }
        status.current_metrics = (!statuses.is_empty()).then_some(statuses);
        if let Some(error) = &failure
            && best.as_ref().is_none_or(|(n, _)| *n < current)
        {
            let message = format!("the HPA was unable to compute the replica count: {}", error.message);
            self.recorder.event(scaler, EventType::Warning, "FailedComputeMetricsReplicas", message.clone());
            set(status, ACTIVE, "False", error.reason, message);
            return None;
        }
        let (replicas, name) = best?;
        let message = format!("the HPA was able to successfully calculate a replica count from {name}");
        set(status, ACTIVE, "True", "ValidMetricFound", message);
        Some((replicas, name))
    }
}

fn set(status: &mut HorizontalPodAutoscalerStatus, kind: &str, value: &str, reason: &str, message: impl Into<String>) {
    let conditions = status.conditions.get_or_insert_default();
    let since = conditions.iter().find(|c| c.type_ == kind && c.status == value);
    let since = since.and_then(|c| c.last_transition_time.clone()).or_else(|| Some(clock::now()));
    let condition = HorizontalPodAutoscalerCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}
