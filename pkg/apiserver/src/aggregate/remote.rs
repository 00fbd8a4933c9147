//! An APIService that is served by a Service of the cluster.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::ResolvesClientCert;
use serde_json::Value;

use crate::dial::{ResolveError, Resolver, Target, Trust};

/// Where an extension API server is and whom it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteService {
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub name: String,
    pub port: u16,
    ca_bundle: Vec<u8>,
    insecure: bool,
}

impl RemoteService {
    /// None for an APIService that this server serves itself.
    pub fn read(api_service: &Value) -> Option<Self> {
        let spec = &api_service["spec"];
        let service = spec.get("service").filter(|s| s.is_object())?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some(Self {
            group: text(&spec["group"]),
            version: text(&spec["version"]),
            namespace: text(&service["namespace"]),
            name: text(&service["name"]),
            port: service["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(443),
            ca_bundle: STANDARD.decode(spec["caBundle"].as_str().unwrap_or_default()).unwrap_or_default(),
            insecure: spec["insecureSkipTLSVerify"] == true,
        })
    }

    /// A ready endpoint of the Service, to be met as the front proxy.
    pub fn target(
        &self,
        resolver: &Resolver,
        identity: Option<Arc<dyn ResolvesClientCert>>,
    ) -> Result<Target, ResolveError> {
        let address = match resolver.external(&self.namespace, &self.name, self.port) {
            Some(address) => address,
            None => resolver.endpoint(&self.namespace, &self.name, &self.port.to_string())?.into(),
        };
        let trust = if self.insecure { Trust::Anything } else { Trust::bundle(self.ca_bundle.clone()) };
        let server_name = format!("{}.{}.svc", self.name, self.namespace);
        Ok(Target { address, server_name, trust, identity })
    }
}
