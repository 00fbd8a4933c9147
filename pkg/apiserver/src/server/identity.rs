//! The Lease by which this server is known, and the removal of those of servers that are gone (KEP-1965).

use std::sync::Arc;
use std::time::Duration;

use kube1_api::name::GroupResource;
use kube1_api::selector::LabelSelector;
use kube1_api::status::Status;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::Server;
use super::parts::Parts;
use crate::bootstrap::{StorageWriter, Writer};

const NAMESPACE: &str = "kube-system";
const LABEL: &str = "apiserver.kubernetes.io/identity";
const VALUE: &str = "kube-apiserver";
/// How long a Lease says that its server is there.
const LIFE: Duration = Duration::from_secs(3600);
/// A Lease lives for so long that renewing it more often would only wear the disk.
const RENEW: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(5);

/// Keeps this server's Lease, and at the same pace removes those that have expired.
pub(super) fn keep(server: &Arc<Server>, parts: &Parts, tasks: &mut JoinSet<()>) {
    let server = server.clone();
    let holder = format!("{}_{}", host(), uuid::Uuid::new_v4());
    let keeping = async move {
        let mut pause = Duration::ZERO;
        while server.shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            pause = match tend(&server, &holder).await {
                Ok(()) => RENEW,
                Err(error) => {
                    tracing::warn!(%error, "the Lease of this server is late");
                    RETRY
                }
            };
        }
    };
    tasks.spawn(parts.identity.run(keeping));
}

async fn tend(server: &Server, holder: &str) -> Result<(), Status> {
    renew(server, holder).await?;
    collect(server, jiff::Timestamp::now()).await
}

fn leases() -> GroupResource {
    GroupResource::new("coordination.k8s.io", "leases")
}

async fn renew(server: &Server, holder: &str) -> Result<(), Status> {
    let table = server.table.load();
    let writer = StorageWriter::new(&server.storage, &table);
    let host = host();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": LIFE.as_secs(), "renewTime": now});
    let name = name(&host);
    match writer.get(&leases(), NAMESPACE, &name).await? {
        Some(mut live) => {
            live["spec"] = spec;
            live["metadata"]["labels"][LABEL] = VALUE.into();
            writer.update(&leases(), live).await
        }
        None => {
            let labels = json!({LABEL: VALUE, "kubernetes.io/hostname": host});
            let metadata = json!({"namespace": NAMESPACE, "name": name, "labels": labels});
            let kind = ("coordination.k8s.io/v1", "Lease");
            let lease = json!({"apiVersion": kind.0, "kind": kind.1, "metadata": metadata, "spec": spec});
            writer.create(&leases(), lease).await
        }
    }
}

/// Deletes the Leases of servers that were not renewed in time.
async fn collect(server: &Server, now: jiff::Timestamp) -> Result<(), Status> {
    let row = server.table.load().stored(&leases().group, &leases().resource);
    let row = row.ok_or_else(|| Status::internal("there is no resource leases"))?;
    let collection = server.storage.collection(&row);
    let ours = LabelSelector::parse(&format!("{LABEL}={VALUE}")).unwrap_or_default();
    for object in collection.all(Some(NAMESPACE)) {
        let lease = object.value();
        if !ours.matches_value(&lease["metadata"]["labels"]) || !is_expired(&lease, now) {
            continue;
        }
        match collection.delete(NAMESPACE, object.name(), object.revision()).await {
            Ok(_) => tracing::info!(lease = object.name(), "removed the Lease of a server that is gone"),
            // It was renewed in this moment; the next round looks again.
            Err(error) => tracing::debug!(%error, lease = object.name(), "an expired Lease was kept"),
        }
    }
    Ok(())
}

fn is_expired(lease: &Value, now: jiff::Timestamp) -> bool {
    let renewed = lease["spec"]["renewTime"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    match (renewed, lease["spec"]["leaseDurationSeconds"].as_i64()) {
        (Some(renewed), Some(life)) => renewed.as_second().saturating_add(life) < now.as_second(),
        _ => true,
    }
}

/// How this server calls itself in its Lease.
pub(super) fn instance() -> String {
    name(&host())
}

fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host.trim().to_owned()
}

/// `apiserver-` and the lower-case base32 of half the host name's SHA-256, as upstream forms it.
fn name(host: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digest = Sha256::digest(host.as_bytes());
    let (mut text, mut held, mut bits) = (String::from("apiserver-"), 0_u32, 0);
    for byte in &digest[..16] {
        (held, bits) = ((held << 8) | u32::from(*byte), bits + 8);
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(held >> bits) as usize & 31]));
        }
    }
    text.push(char::from(ALPHABET[(held << (5 - bits)) as usize & 31]));
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams_and_leases_expire() {
        assert_eq!(name("example"), "apiserver-kdmfryeyl3gh6ycbrkxqzrnlla");
        let now: jiff::Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        for (spec, expired) in [
            (json!({"renewTime": "2026-01-01T00:00:01.000000Z", "leaseDurationSeconds": 3600}), false),
            (json!({"renewTime": "2025-12-31T23:59:59.000000Z", "leaseDurationSeconds": 3600}), true),
            (json!({"leaseDurationSeconds": 3600}), true),
            (json!({"renewTime": "2026-01-01T00:00:01.000000Z"}), true),
        ] {
            assert_eq!(is_expired(&json!({"spec": spec}), now), expired, "{spec}");
        }
    }
}
