//! Whether extension API servers answer: the condition Available of their APIServices.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube1_api::resource::ResourceTable;
use kube1_telemetry::metrics::{Counters, Gauges, shared};
use rustls::client::ResolvesClientCert;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::remote::RemoteService;
use crate::custom::{Condition, set_condition};
use crate::dial::{self, ResolveError, Resolver};
use crate::options::ListOptions;
use crate::storage::{Collection, Object, Storage};
use crate::strategy::time_text;

/// Pause between two looks at extension servers; without any there are no looks.
const PERIOD: Duration = Duration::from_secs(30);
/// Pause while one of them does not answer.
const PERIOD_FAILING: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);

static UNAVAILABLE: LazyLock<(Gauges, Counters)> = LazyLock::new(|| {
    let name = "aggregator_unavailable_apiservice";
    let help = "Gauge of APIServices which are marked as unavailable broken down by APIService name";
    let counted = "Counter of APIServices which are marked as unavailable broken down by APIService name and reason";
    shared(|r| (r.gauges(name, help, &["name"]), r.counters(name, counted, &["name", "reason"])))
});

fn unavailable(service: &str, reason: Option<&str>) {
    let (now, before) = &*UNAVAILABLE;
    let was = now.at(&[service]).get() > 0.0;
    now.set(&[service], f64::from(u8::from(reason.is_some())));
    if let Some(reason) = reason.filter(|_| !was) {
        before.inc(&[service, reason]);
    }
}

/// Keeps the condition of every remote APIService.
pub struct AvailabilityController {
    services: Arc<Collection>,
    resolver: Resolver,
    identity: Arc<dyn ResolvesClientCert>,
}

impl AvailabilityController {
    /// `identity` is the front proxy's certificate. None if the table lacks what is needed.
    pub fn new(storage: &Storage, table: &ResourceTable, identity: Arc<dyn ResolvesClientCert>) -> Option<Self> {
        let services = storage.collection(&*table.stored("apiregistration.k8s.io", "apiservices")?);
        Some(Self { services, resolver: Resolver::new(storage, table)?, identity })
    }

    /// Looks until cancelled: when an APIService changes, and at times.
    pub async fn run(&self, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.follow() => {}
            }
        }
    }

    async fn follow(&self) {
        let Ok(mut changes) = self.services.watch(None, &ListOptions::default()).await else {
            return tokio::time::sleep(PERIOD_FAILING).await;
        };
        loop {
            let pause = self.look().await;
            let change = match pause {
                None => changes.next().await.is_some(),
                Some(pause) => match tokio::time::timeout(pause, changes.next()).await {
                    Ok(change) => change.is_some(),
                    Err(_) => true,
                },
            };
            if !change {
                return;
            }
        }
    }

    /// Checks every remote APIService; gives the time to the next look, if there is to be one.
    async fn look(&self) -> Option<Duration> {
        let mut pause = None;
        for object in self.services.all(None) {
            let value = object.value();
            let Some(remote) = RemoteService::read(&value) else { continue };
            let outcome = self.check(&remote).await;
            let next = if outcome.is_ok() { PERIOD } else { PERIOD_FAILING };
            pause = Some(pause.unwrap_or(next).min(next));
            self.record(&object, value, outcome).await;
        }
        pause
    }

    /// The reason and message of not being available.
    async fn check(&self, remote: &RemoteService) -> Result<(), (&'static str, String)> {
        let place = format!("{}/{}", remote.namespace, remote.name);
        let target = remote.target(&self.resolver, Some(self.identity.clone())).map_err(|error| match error {
            ResolveError::NoService(_) => {
                ("ServiceNotFound", format!("service/{} in \"{}\" is not present", remote.name, remote.namespace))
            }
            ResolveError::NoPort { .. } => {
                ("ServicePortError", format!("service/{place} is not listening on port {}", remote.port))
            }
            ResolveError::NoEndpoints(_) => {
                ("MissingEndpoints", format!("endpoints for service/{place} have no addresses"))
            }
        })?;
        let path = format!("/apis/{}/{}", remote.group, remote.version);
        match dial::get(&target, &path, TIMEOUT).await {
            Ok(response) if response.status.is_success() || matches!(response.status.as_u16(), 401 | 403) => Ok(()),
            Ok(response) => Err((
                "FailedDiscoveryCheck",
                format!("failing or missing response from {path}: bad status {}", response.status.as_u16()),
            )),
            Err(error) => Err((
                "FailedDiscoveryCheck",
                format!("failing or missing response from {path}: {}", kube1_supervisor::chain(&error)),
            )),
        }
    }

    async fn record(&self, object: &Object, mut value: Value, outcome: Result<(), (&'static str, String)>) {
        unavailable(object.name(), outcome.as_ref().err().map(|(reason, _)| *reason));
        let condition = match &outcome {
            Ok(()) => Condition::new("Available", true, "Passed", "all checks passed"),
            Err((reason, message)) => Condition::new("Available", false, reason, message),
        };
        let mut conditions = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
        set_condition(&mut conditions, &condition, &time_text(Timestamp::now()));
        let conditions = Value::from(conditions);
        if value["status"]["conditions"] == conditions {
            return;
        }
        value["status"]["conditions"] = conditions;
        if let Err(error) = self.services.update(value, object.revision()).await {
            tracing::debug!(name = object.name(), %error, "cannot write the status of an APIService yet");
        }
    }
}
