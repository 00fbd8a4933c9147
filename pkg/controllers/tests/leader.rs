//! Leader election against a real API server.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube1_client::{LeaderElection, LostLead};
use support::Cluster;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_the_next_follows_at_once() {
    let cluster = Cluster::start(0).await;
    let leading = Arc::new(AtomicUsize::new(0));
    let candidate = |identity: &'static str, shutdown: &CancellationToken| {
        let election = LeaderElection::new(cluster.client.clone(), "job", identity);
        let (leading, shutdown) = (Arc::clone(&leading), shutdown.clone());
        tokio::spawn(async move {
            let work = |stop: CancellationToken| async move {
                assert_eq!(leading.fetch_add(1, SeqCst), 0, "nobody else leads");
                stop.cancelled().await;
                leading.fetch_sub(1, SeqCst);
                Ok::<(), LostLead>(())
            };
            election.lead(&shutdown, work).await
        })
    };
    let (first_stop, second_stop) = (CancellationToken::new(), CancellationToken::new());
    let held_by = |who: &'static str| move |l: &Lease| l.spec.as_ref().unwrap().holder_identity.as_deref() == Some(who);
    let first = candidate("a", &first_stop);
    cluster.until_one::<Lease>("kube-system", "job", held_by("a")).await;
    let second = candidate("b", &second_stop);
    first_stop.cancel();
    first.await.unwrap().unwrap();
    let started = std::time::Instant::now();
    cluster.until_one::<Lease>("kube-system", "job", held_by("b")).await;
    assert!(started.elapsed() < Duration::from_secs(14), "the lease was given up, not left to run out");
    second_stop.cancel();
    second.await.unwrap().unwrap();
}
