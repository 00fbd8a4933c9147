//! Renewing a node's certificates before they expire.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use kube1_pki::{Leaf, ReloadingCertificate, clock};
use kube1_supervisor::{BoxError, Component, Context};

use crate::JoinError;
use crate::csr::{CertificateWish, request_certificate};
use crate::node::{CLIENT, JoinedNode, SERVING, client_wish, forget_pending_key, pending_key, serving_wish};

const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Clocks are set and machines sleep, so the dates are looked at again this often at least.
const LOOK: Duration = Duration::from_secs(3600);

/// Keeps a joined node's client and serving certificates valid; both take effect at once, without a restart.
pub struct CertificateRotation {
    node: JoinedNode,
    addresses: Vec<IpAddr>,
}

impl CertificateRotation {
    /// `addresses` are the node's, as in its status; the serving certificate is for them and the node's name.
    pub fn new(node: JoinedNode, addresses: Vec<IpAddr>) -> Self {
        Self { node, addresses }
    }

    async fn keep(&self, name: &'static str, wish: CertificateWish<'static>, shown: &ReloadingCertificate) {
        let mut delay = RETRY_MIN;
        loop {
            let wait = match self.due_in(name, &wish) {
                Some(wait) => wait.min(LOOK),
                None => match self.renew(name, &wish, shown).await {
                    Ok(()) => {
                        delay = RETRY_MIN;
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(certificate = name, error = %kube1_supervisor::chain(&error), "not renewed; trying again");
                        let wait = delay;
                        delay = (delay * 2).min(RETRY_MAX);
                        wait
                    }
                },
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// How long the certificate in the files is still good for; `None` when it is to be renewed now.
    fn due_in(&self, name: &str, wish: &CertificateWish<'_>) -> Option<Duration> {
        let leaf = Leaf::read(&self.node.layout.node_pki(), name).ok()??;
        let mut wanted = wish.alt_names.clone();
        let mut names = leaf.alt_names().ok()?;
        wanted.sort();
        names.sort();
        if !leaf.is_pair() || names != wanted {
            return None;
        }
        let left = leaf.renew_at().ok()? - clock::unix_now();
        u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_secs)
    }

    async fn renew(
        &self,
        name: &'static str,
        wish: &CertificateWish<'_>,
        shown: &ReloadingCertificate,
    ) -> Result<(), JoinError> {
        let layout = &self.node.layout;
        let key = pending_key(layout, name)?;
        let leaf = match request_certificate(&self.node.client, wish, &key).await {
            Ok(leaf) => leaf,
            Err(error) => {
                if matches!(error, JoinError::Denied { .. }) {
                    // That request stays denied; a new key makes a new one.
                    forget_pending_key(layout, name);
                }
                return Err(error);
            }
        };
        shown.replace(&leaf)?;
        leaf.write(&layout.node_pki(), name)?;
        if name == CLIENT {
            // A connection is good for as long as the certificate it was made with.
            self.node.servers.reconnect();
        }
        forget_pending_key(layout, name);
        tracing::info!(certificate = name, "certificate renewed");
        Ok(())
    }
}

#[async_trait]
impl Component for CertificateRotation {
    fn name(&self) -> &str {
        "certificate-rotation"
    }

    async fn run(&self, ctx: Context) -> Result<(), BoxError> {
        ctx.ready();
        let node = &self.node;
        let client = self.keep(CLIENT, client_wish(&node.node_name), &node.identity);
        let serving = self.keep(SERVING, serving_wish(&node.node_name, &self.addresses), &node.serving);
        ctx.shutdown.run_until_cancelled(futures::future::join(client, serving)).await;
        Ok(())
    }
}
