//! Whether extension API servers answer: the condition Available of their APIServices.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use jiff::Timestamp;
use kube1_api::resource::ResourceTable;
use kube1_telemetry::metrics::{Counters, Gauges, shared};
use rustls::client::ResolvesClientCert;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::remote::RemoteService;
use super::route::identity_headers;
use crate::custom::{Condition, set_condition};
use crate::dial::{self, Address, ResolveError, Resolver};
use crate::options::ListOptions;
use crate::storage::{Collection, Object, Storage};
use crate::strategy::time_text;
use crate::user::{MASTERS, UserInfo};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
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
    /// What tells soonest that a server has come or gone.
    slices: Arc<Collection>,
    resolver: Resolver,
    identity: Arc<dyn ResolvesClientCert>,
}

impl AvailabilityController {
    /// `identity` is the front proxy's certificate. None if the table lacks what is needed.
    pub fn new(storage: &Storage, table: &ResourceTable, identity: Arc<dyn ResolvesClientCert>) -> Option<Self> {
        let services = storage.collection(&*table.stored("apiregistration.k8s.io", "apiservices")?);
        let slices = storage.collection(&*table.stored("discovery.k8s.io", "endpointslices")?);
        Some(Self { services, slices, resolver: Resolver::new(storage, table)?, identity })
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
            let change = match self.look().await {
                None => changes.next().await.is_some(),
                Some(pause) => tokio::select! {
                    change = changes.next() => change.is_some(),
                    () = self.moved() => true,
                    () = tokio::time::sleep(pause) => true,
                },
            };
            if !change {
                return;
            }
        }
    }

    /// Waits until the endpoints of a remote APIService's Service change.
    async fn moved(&self) {
        let later = ListOptions { send_initial_events: Some(false), ..ListOptions::default() };
        let Ok(mut changes) = self.slices.watch(None, &later).await else { return std::future::pending().await };
        while let Some(change) = changes.next().await {
            let (namespace, service) = (change.object.namespace(), change.object.label(SERVICE_LABEL));
            let services = self.services.all(None);
            let mut remote = services.iter().filter_map(|o| RemoteService::read(&o.value()));
            if remote.any(|r| r.namespace == namespace && Some(r.name.as_str()) == service) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Checks every remote APIService; gives the time to the next look, if there is to be one.
    async fn look(&self) -> Option<Duration> {
        let services = self.services.all(None);
        // One that is slow does not keep the others waiting.
        let looks = services.iter().filter_map(|object| {
            let value = object.value();
            let remote = RemoteService::read(&value)?;
            Some(async move {
                let outcome = self.check(&remote).await;
                let next = if outcome.is_ok() { PERIOD } else { PERIOD_FAILING };
                self.record(object, value, outcome).await;
                next
            })
        });
        join_all(looks).await.into_iter().min()
    }

    /// The reason and message of not being available.
    async fn check(&self, remote: &RemoteService) -> Result<(), (&'static str, String)> {
        let service = format!("service/{} in \"{}\"", remote.name, remote.namespace);
        let target = remote.target(&self.resolver, Some(self.identity.clone())).map_err(|error| match error {
            ResolveError::NoService(_) => ("ServiceNotFound", format!("{service} is not present")),
            ResolveError::NoPort { .. } => {
                ("ServicePortError", format!("{service} is not listening on port {}", remote.port))
            }
            ResolveError::NoEndpoints(_) => ("MissingEndpoints", format!("endpoints for {service} have no addresses")),
        })?;
        let path = format!("/apis/{}/{}", remote.group, remote.version);
        let url = match &target.address {
            Address::Socket(address) => format!("https://{address}{path}"),
            Address::Host(host, port) => format!("https://{host}:{port}{path}"),
        };
        let who = UserInfo::authenticated("system:kube-aggregator", &[MASTERS]);
        let headers = identity_headers(&who).unwrap_or_default();
        let why = match dial::get_with(&target, &path, &headers, TIMEOUT).await {
            Ok(response) if response.status.is_success() => return Ok(()),
            Ok(response) => format!("bad status from {url}: {}", response.status.as_u16()),
            Err(error) => format!("Get \"{url}\": {}", kube1_supervisor::chain(&error)),
        };
        Err(("FailedDiscoveryCheck", format!("failing or missing response from {url}: {why}")))
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
