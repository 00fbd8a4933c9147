//! Objects that every kube1 cluster has beside Kubernetes' own: the Service of the cluster's DNS.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube1_supervisor::{BoxError, Component, Context};
use serde_json::{Value, json};

use crate::cli::{NodeArgs, Part};

const MANAGER: &str = "kube1";

/// Applies the objects at start; whoever changes them later is left alone until the next start.
pub struct Addons {
    client: kube::Client,
    /// The DNS Service, unless DNS is left out.
    dns: Option<Value>,
}

impl Addons {
    /// `client` acts as an administrator.
    pub fn new(client: kube::Client, args: &NodeArgs) -> Self {
        let enabled = !args.disable.contains(&Part::Dns);
        Self { client, dns: enabled.then(|| dns_service(&args.cluster_dns.to_string())) }
    }
}

/// A Service without a selector: every node answers at its address by itself.
fn dns_service(address: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "kube-dns"}},
        "spec": {
            "clusterIP": address,
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    })
}

#[async_trait]
impl Component for Addons {
    fn name(&self) -> &str {
        "addons"
    }

    async fn run(&self, ctx: Context) -> Result<(), BoxError> {
        if let Some(dns) = &self.dns {
            let services: Api<Service> = Api::namespaced(self.client.clone(), "kube-system");
            services.patch("kube-dns", &PatchParams::apply(MANAGER).force(), &Patch::Apply(dns)).await?;
        }
        ctx.ready();
        ctx.shutdown.cancelled().await;
        Ok(())
    }
}
