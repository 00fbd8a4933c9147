//! The objects by which the cluster finds this server.

use kube1_api::default::apply_defaults;
use kube1_api::name::GroupResource;
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::Server;
use crate::bootstrap::{self, StorageWriter, Writer};

/// Makes sure of the Service `kubernetes`, of the endpoints that lead to this server, and of what aggregated servers read
/// about its clients.
pub async fn publish(server: &Server) -> Result<(), Status> {
    let config = &server.config;
    let table = server.table.load();
    let writer = StorageWriter::new(&server.storage, &table);
    let trusted = bootstrap::authentication_config(server.authenticator.trust());
    bootstrap::reconcile_one(&writer, &trusted).await?;
    let Some(service_ip) = config.service_cidr.hosts().next() else {
        return Err(Status::internal("the service CIDR has no address"));
    };
    let metadata = |labels: Value| json!({"name": "kubernetes", "namespace": "default", "labels": labels});
    let address = config.advertise_address;
    let port = json!([{"name": "https", "protocol": "TCP", "port": config.port}]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": metadata(json!({"component": "apiserver", "provider": "kubernetes"})),
        "spec": {
            "type": "ClusterIP", "clusterIP": service_ip.to_string(), "clusterIPs": [service_ip.to_string()],
            "ipFamilies": [if service_ip.is_ipv4() { "IPv4" } else { "IPv6" }], "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": config.port}],
        },
        "status": {"loadBalancer": {}},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": metadata(json!({"kubernetes.io/service-name": "kubernetes"})),
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": port,
    });
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": metadata(json!({"endpointslice.kubernetes.io/skip-mirror": "true"})),
        "subsets": [{"addresses": [{"ip": address.to_string()}], "ports": port}],
    });
    ensure(server, &GroupResource::new("", "services"), service, &["spec"]).await?;
    ensure(server, &GroupResource::new("", "endpoints"), endpoints, &["subsets"]).await?;
    let slices = GroupResource::new("discovery.k8s.io", "endpointslices");
    ensure(server, &slices, slice, &["addressType", "endpoints", "ports"]).await
}

/// Creates the object, or brings the given members of the stored one up to date.
async fn ensure(server: &Server, resource: &GroupResource, mut object: Value, members: &[&str]) -> Result<(), Status> {
    let table = server.table.load();
    let row = table.stored(&resource.group, &resource.resource);
    let row = row.ok_or_else(|| Status::internal(format!("{resource} is not in the resource table")))?;
    apply_defaults(&row, &mut object);
    let writer = StorageWriter::new(&server.storage, &table);
    let Some(mut live) = writer.get(resource, "default", "kubernetes").await? else {
        if resource.resource != "services" {
            return writer.create(resource, object).await;
        }
        let allocation = server.allocator.allocate(&mut object, None)?;
        writer.create(resource, object).await?;
        allocation.commit().await;
        return Ok(());
    };
    if members.iter().all(|m| live[*m] == object[*m]) {
        return Ok(());
    }
    for member in members {
        live[*member] = object[*member].take();
    }
    writer.update(resource, live).await
}
