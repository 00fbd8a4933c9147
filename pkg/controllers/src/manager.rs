//! Runs every controller as a task of its own and starts those again that fail.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use ipnet::IpNet;
use kube::Client;
use kube1_client::{EventRecorder, Informers, LeaderElection};
use kube1_pki::{Authority, ServiceAccountKeys};
use kube1_supervisor::{BoxError, Component};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::controller::Controller;
use crate::metrics;
use crate::registry::CONTROLLERS;

/// The component and its Lease.
const NAME: &str = "kube-controller-manager";
const RESTART_MIN: Duration = Duration::from_secs(1);
const RESTART_MAX: Duration = Duration::from_secs(60);

/// Gives the client that acts as a service account of `kube-system`.
pub type ClientFor = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// What the controllers need to know of the cluster.
#[derive(Clone)]
pub struct ControllerManagerConfig {
    /// Reads everything: `system:kube-controller-manager`.
    pub client: Client,
    /// Clients for writing, by the name of the controller's service account.
    pub clients: ClientFor,
    /// Signs client and serving certificates.
    pub ca: Arc<Authority>,
    /// Sign the tokens of service-account token Secrets.
    pub service_account_keys: Arc<ServiceAccountKeys>,
    /// Certificates by which pods verify the API server.
    pub root_ca_pem: String,
    /// Nodes get their pod ranges out of this network.
    pub cluster_cidr: IpNet,
}

/// The controllers of a cluster.
pub struct ControllerManager {
    config: Arc<ControllerManagerConfig>,
    disabled: Vec<&'static str>,
    election: Option<LeaderElection>,
}

impl ControllerManager {
    pub fn new(config: ControllerManagerConfig) -> Self {
        Self { config: Arc::new(config), disabled: Vec::new(), election: None }
    }

    /// Leaves out a controller, by its name in upstream.
    pub fn without(mut self, name: &'static str) -> Self {
        self.disabled.push(name);
        self
    }

    /// Lets only one of several servers run the controllers. `identity` is this process's own.
    #[must_use]
    pub fn with_leader_election(mut self, identity: &str) -> Self {
        self.election = Some(LeaderElection::new(self.config.client.clone(), NAME, identity));
        self
    }

    async fn control(&self, stop: CancellationToken) -> Result<(), BoxError> {
        let _guard = stop.clone().drop_guard();
        let informers = Informers::new(self.config.client.clone(), stop.clone());
        let mut tasks = JoinSet::new();
        for entry in CONTROLLERS.iter().filter(|entry| !self.disabled.contains(&entry.name)) {
            tasks.spawn(keep_running(entry, Arc::clone(&self.config), informers.clone(), stop.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        informers.stopped().await;
        Ok(())
    }
}

/// What a controller is: its name, its service account and its code.
pub(crate) struct Entry {
    pub name: &'static str,
    /// Where its events say they come from, also the service account.
    pub account: &'static str,
    pub run: fn(Controller) -> BoxFuture<'static, Result<(), BoxError>>,
}

#[async_trait]
impl Component for ControllerManager {
    fn name(&self) -> &str {
        NAME
    }

    async fn run(&self, ctx: kube1_supervisor::Context) -> Result<(), BoxError> {
        ctx.ready();
        match &self.election {
            Some(election) => election.lead(&ctx.shutdown, |stop| self.control(stop)).await,
            None => self.control(ctx.shutdown.child_token()).await,
        }
    }
}

/// Runs a controller until `stop`, again after each failure.
async fn keep_running(
    entry: &'static Entry,
    config: Arc<ControllerManagerConfig>,
    informers: Informers,
    stop: CancellationToken,
) {
    let mut delay = RESTART_MIN;
    while !stop.is_cancelled() {
        let started = tokio::time::Instant::now();
        let error = run_once(entry, &config, &informers, stop.child_token()).await;
        if stop.is_cancelled() {
            break;
        }
        if started.elapsed() > RESTART_MAX {
            delay = RESTART_MIN;
        }
        tracing::error!(controller = entry.name, error, ?delay, "controller ended, will be started again");
        if stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
            break;
        }
        delay = (delay * 2).min(RESTART_MAX);
    }
}

/// Tells that a controller runs, until it is dropped.
struct Running(&'static str);

impl Running {
    fn new(name: &'static str) -> Self {
        metrics::running(name, true);
        Self(name)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        metrics::running(self.0, false);
    }
}

/// Returns why the controller ended.
async fn run_once(
    entry: &'static Entry,
    config: &Arc<ControllerManagerConfig>,
    informers: &Informers,
    stop: CancellationToken,
) -> String {
    let _guard = stop.clone().drop_guard();
    let _running = Running::new(entry.name);
    let client = (config.clients)(entry.account);
    let (recorder, write_events) = EventRecorder::new(client.clone(), entry.account, None, stop.clone());
    let controller = Controller {
        name: entry.name,
        client,
        informers: informers.clone(),
        recorder,
        config: Arc::clone(config),
        stop: stop.clone(),
    };
    // A task each, so that a panic ends this controller only.
    let mut tasks: JoinSet<Result<(), BoxError>> = JoinSet::new();
    tasks.spawn((entry.run)(controller));
    let events = tasks.spawn(async move {
        write_events.await;
        Ok(())
    });
    let ended = tasks.join_next().await;
    stop.cancel();
    events.abort();
    match ended {
        Some(Ok(Ok(()))) | None => "it ended without an error".to_owned(),
        Some(Ok(Err(error))) => error.to_string(),
        Some(Err(error)) => error.to_string(),
    }
}
