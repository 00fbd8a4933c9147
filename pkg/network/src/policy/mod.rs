//! NetworkPolicies, enforced on the node of the pods that they select.

mod direction;
mod rules;
mod world;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube1_client::{Event, Informers};
use kube1_supervisor::{BoxError, Component, Context};
use tokio::sync::Notify;

use crate::POLICY_TABLE;
use crate::nft::{Content, NftError, Table};
pub use rules::content as policy_content;
use world::PolicyPod;
pub use world::{Member, World};

/// Changes that come within this time are one transaction: many pods often change together.
const GATHER: Duration = Duration::from_millis(50);
/// How often the table is looked for, in case other software removed it.
const CHECK: Duration = Duration::from_secs(30);

/// Why policies are not enforced; they are again when the component has started anew.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error("nftables table {POLICY_TABLE} was removed by somebody else")]
    Removed,
    #[error("the enforcement of network policies was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// The enforcement of NetworkPolicies as a component.
///
/// As long as there is no policy it watches policies only and costs packets nothing. Its table stays in the kernel when
/// it stops.
pub struct NetworkPolicies {
    informers: Informers,
    node_name: String,
    dns: Option<IpAddr>,
}

impl NetworkPolicies {
    /// `dns` is the cluster's DNS address if this node serves it by itself.
    pub fn new(informers: Informers, node_name: String, dns: Option<IpAddr>) -> Self {
        Self { informers, node_name, dns }
    }

    fn world(&self) -> World {
        let pods = self.informers.all::<PolicyPod>().list();
        let members = pods.iter().filter_map(|pod| pod.on(&self.node_name));
        let namespaces = self.informers.all::<Namespace>().list().into_iter().map(|namespace| {
            let metadata = &namespace.metadata;
            (metadata.name.clone().unwrap_or_default(), metadata.labels.clone().unwrap_or_default())
        });
        let mut policies: Vec<NetworkPolicy> =
            self.informers.all::<NetworkPolicy>().list().iter().map(|policy| NetworkPolicy::clone(policy)).collect();
        let name = |policy: &NetworkPolicy| (policy.metadata.namespace.clone(), policy.metadata.name.clone());
        policies.sort_by_cached_key(name);
        World {
            members: members.chain(self.dns.map(Member::dns)).collect(),
            namespaces: namespaces.collect::<HashMap<_, _>>(),
            policies,
        }
    }

    /// Waits until everything that decides is known. Pods and namespaces are only watched once there is a policy.
    async fn known(&self, changed: &Arc<Notify>, watching: &mut bool) -> bool {
        let policies = self.informers.all::<NetworkPolicy>();
        policies.synced().await;
        if policies.is_empty() && !*watching {
            return false;
        }
        let (pods, namespaces) = (self.informers.all::<PolicyPod>(), self.informers.all::<Namespace>());
        if !std::mem::replace(watching, true) {
            let (weak, node) = (Arc::downgrade(changed), self.node_name.clone());
            pods.add_handler(move |event| {
                let same = matches!(event, Event::Updated { old, new } if old.on(&node) == new.on(&node));
                if let Some(changed) = weak.upgrade().filter(|_| !same) {
                    changed.notify_one();
                }
            });
            let weak = Arc::downgrade(changed);
            namespaces.add_handler(move |event| {
                let same = matches!(event, Event::Updated { old, new } if old.metadata.labels == new.metadata.labels);
                if let Some(changed) = weak.upgrade().filter(|_| !same) {
                    changed.notify_one();
                }
            });
        }
        tokio::join!(pods.synced(), namespaces.synced());
        true
    }

    async fn enforce(&self, ctx: &Context) -> Result<(), PolicyError> {
        let (changed, mut watching) = (Arc::new(Notify::new()), false);
        let weak = Arc::downgrade(&changed);
        self.informers.all::<NetworkPolicy>().add_handler(move |_| {
            if let Some(changed) = weak.upgrade() {
                changed.notify_one();
            }
        });
        // What the kernel has; unknown at first.
        let mut current: Option<Option<Content>> = None;
        loop {
            let known = ctx.shutdown.run_until_cancelled(self.known(&changed, &mut watching)).await;
            let Some(known) = known else { return Ok(()) };
            let wanted = if known { policy_content(&self.world()) } else { None };
            if current.as_ref() != Some(&wanted) {
                let had = current.take();
                let next = tokio::task::spawn_blocking(move || commit(had, wanted)).await??;
                current = Some(next);
            }
            ctx.ready();
            loop {
                tokio::select! {
                    () = ctx.shutdown.cancelled() => return Ok(()),
                    () = changed.notified() => break,
                    () = tokio::time::sleep(CHECK) => {
                        if matches!(current, Some(Some(_))) && !Table::new(POLICY_TABLE).exists()? {
                            return Err(PolicyError::Removed);
                        }
                    }
                }
            }
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// Brings the kernel from one state to another; gives back what it has then.
fn commit(had: Option<Option<Content>>, wanted: Option<Content>) -> Result<Option<Content>, NftError> {
    let table = Table::new(POLICY_TABLE);
    match (had.flatten(), &wanted) {
        (Some(had), Some(wanted)) => table.change(&[(&had, wanted)])?,
        (None, Some(wanted)) => table.replace(wanted)?,
        (_, None) => table.delete()?,
    }
    Ok(wanted)
}

#[async_trait]
impl Component for NetworkPolicies {
    fn name(&self) -> &str {
        "network-policy"
    }

    async fn run(&self, ctx: Context) -> Result<(), BoxError> {
        Ok(self.enforce(&ctx).await?)
    }
}
