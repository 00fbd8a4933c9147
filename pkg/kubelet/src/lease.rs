//! The node's lease: by its renewal the control plane knows that the node lives.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;
use tokio_util::sync::CancellationToken;

use crate::node::Node;

const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);

/// Renews the lease until `stop`.
pub async fn keep(node: &Node, stop: &CancellationToken) {
    let mut held: Option<Lease> = None;
    let mut ticks = tokio::time::interval(RENEW);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        held = match renew(node, held.take()).await {
            Ok(lease) => Some(lease),
            Err(error) => {
                tracing::warn!(%error, "cannot renew the node's lease");
                None
            }
        };
    }
}

async fn renew(node: &Node, held: Option<Lease>) -> Result<Lease, kube::Error> {
    let api: Api<Lease> = Api::namespaced(node.config.client.clone(), LEASE_NAMESPACE);
    let name = &node.config.node_name;
    let lease = match held {
        Some(lease) => Some(lease),
        None => api.get_opt(name).await?,
    };
    let spec = LeaseSpec {
        holder_identity: Some(name.clone()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    let owners = node.api_node().map(|object| {
        vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.clone(),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            ..OwnerReference::default()
        }]
    });
    match lease {
        Some(mut lease) => {
            lease.spec = Some(spec);
            lease.metadata.owner_references = owners.or(lease.metadata.owner_references.take());
            api.replace(name, &PostParams::default(), &lease).await
        }
        None => {
            let metadata = ObjectMeta { name: Some(name.clone()), owner_references: owners, ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec) };
            api.create(&PostParams::default(), &lease).await
        }
    }
}
