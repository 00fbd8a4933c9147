//! Renewal of the server's certificates before they expire, shown live without a restart.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kube1_pki::ServerPki;
use kube1_pki::clock::unix_now;
use kube1_supervisor::{BoxError, Component, Context};

/// Longest pause between two looks: a suspended machine or a corrected clock is noticed within it.
const LOOK_MAX: Duration = Duration::from_secs(12 * 3600);
const LOOK_MIN: Duration = Duration::from_secs(60);

/// Looks after the certificates of [`ServerPki`].
pub struct CertificateRenewal {
    pki: Arc<ServerPki>,
}

impl CertificateRenewal {
    pub fn new(pki: Arc<ServerPki>) -> Self {
        Self { pki }
    }
}

#[async_trait]
impl Component for CertificateRenewal {
    fn name(&self) -> &str {
        "certificates"
    }

    async fn run(&self, ctx: Context) -> Result<(), BoxError> {
        loop {
            let pki = Arc::clone(&self.pki);
            let renewal = tokio::task::spawn_blocking(move || pki.renew()).await??;
            if !renewal.renewed.is_empty() {
                tracing::info!(certificates = renewal.renewed.join(","), "renewed");
            }
            ctx.ready();
            let due = Duration::from_secs(u64::try_from(renewal.next - unix_now()).unwrap_or(0));
            tokio::select! {
                () = ctx.shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(due.clamp(LOOK_MIN, LOOK_MAX)) => {}
            }
        }
    }
}
