//! IPAddress objects: the record of who has which cluster IP.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::json;

use super::ServiceAllocator;
use super::claims::Claims;
use crate::storage::StorageError;
use crate::strategy::fill_system_fields;

const MANAGER_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
const FAMILY_LABEL: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGER: &str = "ipallocator.k8s.io";

impl ServiceAllocator {
    pub(super) async fn give_back(&self, claims: &Claims) {
        {
            let mut taken = self.taken.lock();
            taken.addresses.retain(|ip| !claims.addresses.contains(ip));
            taken.ports.retain(|port| !claims.ports.contains(port));
        }
        for ip in &claims.addresses {
            self.remove_record(*ip).await;
        }
        if !claims.addresses.is_empty() {
            self.settle_deleting_ranges().await;
        }
    }

    pub(super) async fn record(&self, ip: IpAddr, namespace: &str, name: &str) {
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        let mut object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": ip.to_string(), "labels": {MANAGER_LABEL: MANAGER, FAMILY_LABEL: family}},
            "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}}});
        fill_system_fields(&mut object, Timestamp::now());
        match self.address_objects.create(object).await {
            Ok(_) | Err(StorageError::AlreadyExists) => {}
            Err(error) => tracing::warn!(%ip, %error, "could not record a cluster IP; the next repair will"),
        }
    }

    pub(super) async fn remove_record(&self, ip: IpAddr) {
        let Some(object) = self.address_objects.get("", &ip.to_string()) else { return };
        if object.label(MANAGER_LABEL) == Some(MANAGER)
            && let Err(error) = self.address_objects.delete("", object.name(), object.revision()).await
        {
            tracing::warn!(%ip, %error, "could not remove the record of a cluster IP; the next repair will");
        }
    }

    /// Makes memory and IPAddress objects agree with the stored Services.
    pub async fn repair(&self) {
        let mut owners = HashMap::new();
        for service in self.services.all(None) {
            for ip in Claims::of(&service.value()).addresses {
                owners.insert(ip, (service.namespace().to_owned(), service.name().to_owned()));
            }
        }
        for object in self.address_objects.all(None) {
            let managed = object.label(MANAGER_LABEL) == Some(MANAGER);
            let Ok(ip) = object.name().parse::<IpAddr>() else { continue };
            // What is taken but not stored yet belongs to a write on its way.
            if managed && !owners.contains_key(&ip) && !self.taken.lock().addresses.contains(&ip) {
                self.remove_record(ip).await;
            }
        }
        for (ip, (namespace, name)) in owners {
            if self.address_objects.get("", &ip.to_string()).is_none() && self.services.get(&namespace, &name).is_some()
            {
                self.record(ip, &namespace, &name).await;
            }
        }
    }
}
