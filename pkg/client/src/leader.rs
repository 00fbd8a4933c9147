//! Leader election: of several processes with one job, one does it at a time.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics;

const NAMESPACE: &str = "kube-system";
/// A leader that did not renew for so long may be succeeded.
const LEASE: Duration = Duration::from_secs(15);
/// A leader that could not renew for so long steps back, before another may begin.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// One candidate for the Lease of a name in `kube-system`.
pub struct LeaderElection {
    api: Api<Lease>,
    name: String,
    identity: String,
}

/// Another process may have taken over.
#[derive(Debug, thiserror::Error)]
#[error("the lease {0} was lost: it could not be renewed in time, or another process took it")]
pub struct LostLead(String);

/// What was last seen of the Lease, by this machine's clock: those of others may differ.
struct Observed {
    spec: LeaseSpec,
    since: Instant,
}

impl LeaderElection {
    /// `identity` must differ between processes, also after a restart.
    pub fn new(client: Client, name: &str, identity: &str) -> Self {
        Self { api: Api::namespaced(client, NAMESPACE), name: name.to_owned(), identity: identity.to_owned() }
    }

    /// Runs `work` while this candidate leads: waits for the lead, ends the work when it is lost or at `shutdown`.
    pub async fn lead<E, Fut>(
        &self,
        shutdown: &CancellationToken,
        work: impl FnOnce(CancellationToken) -> Fut,
    ) -> Result<(), E>
    where
        Fut: Future<Output = Result<(), E>>,
        E: From<LostLead>,
    {
        metrics::leads(&self.name, false);
        if shutdown.run_until_cancelled(self.acquire()).await.is_none() {
            // The Lease may have been won in the very moment of the end.
            self.release().await;
            return Ok(());
        }
        tracing::info!(lease = self.name, identity = self.identity, "leading");
        let _leads = Leads::new(&self.name);
        let stop = shutdown.child_token();
        let mut working = std::pin::pin!(work(stop.clone()));
        let kept = tokio::select! {
            ended = &mut working => {
                self.release().await;
                return ended;
            }
            kept = self.keep(shutdown) => kept,
        };
        stop.cancel();
        // A lost lead may be taken up by another soon: what does not end by then is dropped.
        let ended = tokio::time::timeout(LEASE - RENEW_DEADLINE, working).await;
        if !kept {
            return Err(LostLead(self.name.clone()).into());
        }
        self.release().await;
        ended.unwrap_or(Ok(()))
    }

    /// Waits until this candidate leads. Cancel-safe: a Lease won by a dropped call runs out.
    async fn acquire(&self) {
        let mut observed = None;
        loop {
            match self.try_hold(&mut observed).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::debug!(lease = self.name, %error, "cannot ask for the lease"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Keeps the lead until `stop`, or until it is lost.
    ///
    /// Returns true when stopped. After false another process may do the job: the caller must end at once.
    async fn keep(&self, stop: &CancellationToken) -> bool {
        let mut observed = None;
        let mut renewed = Instant::now();
        loop {
            if stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                return true;
            }
            let attempt = tokio::time::timeout(RENEW_DEADLINE, self.try_hold(&mut observed)).await;
            match attempt {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return false,
                Ok(Err(error)) => tracing::debug!(lease = self.name, %error, "cannot renew the lease"),
                Err(_) => {}
            }
            if renewed.elapsed() >= RENEW_DEADLINE {
                return false;
            }
        }
    }

    /// Takes or renews the Lease; false if another holds it.
    async fn try_hold(&self, observed: &mut Option<Observed>) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let created = self.api.create(&PostParams::default(), &self.lease(None)).await;
            return won(created);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if observed.as_ref().is_none_or(|o| o.spec != spec) {
            *observed = Some(Observed { spec: spec.clone(), since: Instant::now() });
        }
        let holder = spec.holder_identity.as_deref().unwrap_or("");
        let duration =
            spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map_or(LEASE, Duration::from_secs);
        let expired = observed.as_ref().is_some_and(|o| o.since.elapsed() > duration);
        if holder != self.identity && !holder.is_empty() && !expired {
            return Ok(false);
        }
        won(self.api.replace(&self.name, &PostParams::default(), &self.lease(Some(&lease))).await)
    }

    fn lease(&self, old: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = old.and_then(|l| l.spec.clone()).unwrap_or_default();
        let same = before.holder_identity.as_deref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            acquire_time: before.acquire_time.filter(|_| same).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if same || old.is_none() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        };
        let fresh = || ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let mut metadata = old.map_or_else(fresh, |l| l.metadata.clone());
        metadata.managed_fields = None;
        Lease { metadata, spec: Some(spec) }
    }

    /// Lets the next candidate begin at once.
    async fn release(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return;
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        lease.metadata.managed_fields = None;
        if let Err(error) = self.api.replace(&self.name, &PostParams::default(), &lease).await {
            tracing::debug!(lease = self.name, %error, "cannot give the lease up; it runs out");
        }
    }
}

/// Tells that this process leads, until it is dropped.
struct Leads<'a>(&'a str);

impl<'a> Leads<'a> {
    fn new(lease: &'a str) -> Self {
        metrics::leads(lease, true);
        Self(lease)
    }
}

impl Drop for Leads<'_> {
    fn drop(&mut self) {
        metrics::leads(self.0, false);
    }
}

/// A write that came too late means that another was faster.
fn won(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
