//! Stored objects as the server's own parts read and write them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use kube1_api::default::apply_defaults;
use kube1_api::name::GroupResource;
use kube1_api::resource::{Resource, ResourceTable};
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::Server;
use crate::bootstrap::Writer;
use crate::reader::Reader;
use crate::registry::identify;
use crate::registry::pending::strategy;
use crate::storage::{Object, Storage, StorageError};

/// Reads from the storage.
#[derive(Clone)]
pub struct StorageReader {
    storage: Storage,
    table: Arc<ArcSwap<ResourceTable>>,
}

impl StorageReader {
    pub fn new(storage: Storage, table: Arc<ArcSwap<ResourceTable>>) -> Self {
        Self { storage, table }
    }

    fn object(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let row = self.table.load().stored(group, plural)?;
        self.storage.collection(&row).get(namespace, name)
    }
}

impl Reader for StorageReader {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.object(group, plural, namespace, name).map(|o| o.value())
    }
}

/// Writes the server's own objects, past admission and validation.
pub struct StorageWriter {
    server: Arc<Server>,
}

impl StorageWriter {
    pub fn new(server: Arc<Server>) -> Self {
        Self { server }
    }

    fn row(&self, resource: &GroupResource) -> Result<Arc<Resource>, Status> {
        let row = self.server.table.load().stored(&resource.group, &resource.resource);
        row.ok_or_else(|| Status::internal(format!("there is no resource {resource}")))
    }

    /// Makes sure of the Service `kubernetes` and of the endpoint slice that leads to this server.
    pub async fn publish_self(&self) -> Result<(), Status> {
        let config = &self.server.config;
        let Some(service_ip) = config.service_cidr.hosts().next() else {
            return Err(Status::internal("the service CIDR has no address"));
        };
        let family = if service_ip.is_ipv4() { "IPv4" } else { "IPv6" };
        let metadata = |labels: Value| json!({"name": "kubernetes", "namespace": "default", "labels": labels});
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": metadata(json!({"component": "apiserver", "provider": "kubernetes"})),
            "spec": {
                "type": "ClusterIP", "clusterIP": service_ip.to_string(), "clusterIPs": [service_ip.to_string()],
                "ipFamilies": [family], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
                "sessionAffinity": "None",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": config.port}],
            },
            "status": {"loadBalancer": {}},
        });
        let address = config.advertise_address;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": metadata(json!({"kubernetes.io/service-name": "kubernetes"})),
            "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "protocol": "TCP", "port": config.port}],
        });
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": metadata(json!({"endpointslice.kubernetes.io/skip-mirror": "true"})),
            "subsets": [{"addresses": [{"ip": address.to_string()}],
                "ports": [{"name": "https", "protocol": "TCP", "port": config.port}]}],
        });
        self.ensure(&GroupResource::new("", "services"), service, &["spec"]).await?;
        self.ensure(&GroupResource::new("", "endpoints"), endpoints, &["subsets"]).await?;
        let slices = GroupResource::new("discovery.k8s.io", "endpointslices");
        self.ensure(&slices, slice, &["addressType", "endpoints", "ports"]).await
    }

    /// Creates the object, or brings the given members of the stored one up to date.
    async fn ensure(&self, resource: &GroupResource, object: Value, members: &[&str]) -> Result<(), Status> {
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let Some(mut live) = self.get(resource, &namespace, &name).await? else {
            return self.create(resource, object).await;
        };
        let mut wanted = object;
        apply_defaults(&*self.row(resource)?, &mut wanted);
        if members.iter().all(|m| live[*m] == wanted[*m]) {
            return Ok(());
        }
        for member in members {
            live[*member] = wanted[*member].take();
        }
        self.update(resource, live).await
    }
}

#[async_trait]
impl Writer for StorageWriter {
    async fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Result<Option<Value>, Status> {
        let row = self.row(resource)?;
        Ok(self.server.storage.collection(&row).get(namespace, name).map(|o| o.value()))
    }

    async fn create(&self, resource: &GroupResource, mut object: Value) -> Result<(), Status> {
        let row = self.row(resource)?;
        object["apiVersion"] = row.api_version().into();
        object["kind"] = row.kind.clone().into();
        apply_defaults(&row, &mut object);
        identify(&mut object, None);
        strategy::prepare_create(&row, &mut object);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match self.server.storage.collection(&row).create(object).await {
            // Another server was faster.
            Ok(_) | Err(StorageError::AlreadyExists) => Ok(()),
            Err(error) => Err(error.to_status(resource, &name)),
        }
    }

    async fn update(&self, resource: &GroupResource, mut object: Value) -> Result<(), Status> {
        let row = self.row(resource)?;
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let expected = text("resourceVersion").parse().unwrap_or_default();
        let collection = self.server.storage.collection(&row);
        if let Some(old) = collection.get(&namespace, &name).filter(|o| o.revision() == expected) {
            strategy::prepare_update(&row, "", &mut object, &old.value());
        }
        let updated = collection.update(object, expected).await;
        updated.map(|_| ()).map_err(|error| error.to_status(resource, &name))
    }
}
