//! What the CNI specification says of calls, configurations, results and errors.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(super) const SUPPORTED_VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A failure, as the runtime is told of it.
#[derive(Debug, thiserror::Error)]
#[error("{message}: {details}")]
pub struct CniError {
    code: u32,
    message: String,
    details: String,
}

impl CniError {
    const INCOMPATIBLE_VERSION: u32 = 1;
    const ENVIRONMENT: u32 = 4;
    const IO: u32 = 5;
    const DECODE: u32 = 6;
    const INVALID_CONFIG: u32 = 7;
    const TRY_AGAIN: u32 = 11;
    const NOT_AVAILABLE: u32 = 50;
    const KERNEL: u32 = 100;
    const EXHAUSTED: u32 = 101;
    const CHECK: u32 = 102;

    fn new(code: u32, message: &str, details: impl Into<String>) -> Self {
        Self { code, message: message.to_owned(), details: details.into() }
    }

    pub(super) fn environment(details: &str) -> Self {
        Self::new(Self::ENVIRONMENT, "invalid environment", details)
    }

    pub(super) fn io(message: &str, error: &io::Error) -> Self {
        Self::new(Self::IO, message, error.to_string())
    }

    /// The kernel refused something.
    pub(super) fn kernel(message: &str, error: &dyn Error) -> Self {
        Self::new(Self::KERNEL, message, kube1_supervisor::chain(error))
    }

    pub(super) fn exhausted(subnet: IpNet) -> Self {
        Self::new(Self::EXHAUSTED, "no pod address is free", format!("all of {subnet} are in use"))
    }

    pub(super) fn check(details: String) -> Self {
        Self::new(Self::CHECK, "the pod's network is not as it was set up", details)
    }

    pub(super) fn try_again(details: &str) -> Self {
        Self::new(Self::TRY_AGAIN, "the node's network is not ready yet", details)
    }

    pub(super) fn not_available(details: &str) -> Self {
        Self::new(Self::NOT_AVAILABLE, "the node's network is not ready", details)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({"cniVersion": "1.0.0", "code": self.code, "msg": self.message, "details": self.details})
    }
}

/// The plugin's network configuration. The loopback plugin uses the version only.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub cni_version: String,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub bridge: String,
    #[serde(default)]
    pub subnet: Option<IpNet>,
    #[serde(default)]
    pub mtu: u32,
    #[serde(default)]
    pub data_dir: PathBuf,
    #[serde(default, skip_serializing)]
    pub(super) runtime_config: RuntimeConfig,
    /// What CHECK is given of the ADD before it.
    #[serde(default, skip_serializing)]
    pub(super) prev_result: Option<Value>,
    /// The attachments that GC must keep.
    #[serde(default, skip_serializing, rename = "cni.dev/valid-attachments")]
    pub(super) valid_attachments: Option<Vec<Attachment>>,
    #[serde(default)]
    pub capabilities: Capabilities,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    #[serde(default)]
    pub port_mappings: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuntimeConfig {
    #[serde(default)]
    pub(super) port_mappings: Vec<PortMapping>,
}

/// Readers written in Go take any spelling of the names, so that containerd sends its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortMapping {
    #[serde(alias = "HostPort")]
    pub(super) host_port: u16,
    #[serde(alias = "ContainerPort")]
    pub(super) container_port: u16,
    #[serde(default = "tcp", alias = "Protocol")]
    pub(super) protocol: String,
    #[serde(default, rename = "hostIP", alias = "HostIP")]
    pub(super) host_ip: String,
}

fn tcp() -> String {
    "tcp".to_owned()
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attachment {
    #[serde(rename = "containerID")]
    pub(super) container_id: String,
    pub(super) ifname: String,
}

impl Config {
    pub(super) fn parse(input: &[u8]) -> Result<Self, CniError> {
        let config: Self = serde_json::from_slice(input).map_err(|error| {
            CniError::new(CniError::DECODE, "cannot read the network configuration", error.to_string())
        })?;
        if !SUPPORTED_VERSIONS.contains(&&*config.cni_version) {
            let details = format!("the configuration has {}, supported are {SUPPORTED_VERSIONS:?}", config.cni_version);
            return Err(CniError::new(CniError::INCOMPATIBLE_VERSION, "incompatible CNI version", details));
        }
        Ok(config)
    }

    pub(super) fn pod_subnet(&self) -> Result<IpNet, CniError> {
        self.subnet.ok_or_else(|| {
            CniError::new(CniError::INVALID_CONFIG, "invalid network configuration", "subnet is missing")
        })
    }
}

/// One call of a plugin for one interface of one container.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) container_id: String,
    /// Absent in a DEL after which the namespace is gone.
    pub(super) namespace: Option<PathBuf>,
    pub(super) interface: String,
}

impl Call {
    pub(super) fn from_environment(command: &str) -> Result<Self, CniError> {
        let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let need = |name: &str| read(name).ok_or_else(|| CniError::environment(&format!("{name} is not set")));
        let call = Self {
            container_id: need("CNI_CONTAINERID")?,
            namespace: read("CNI_NETNS").map(PathBuf::from),
            interface: need("CNI_IFNAME")?,
        };
        if call.namespace.is_none() && command != "DEL" {
            return Err(CniError::environment("CNI_NETNS is not set"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !call.container_id.chars().all(plain) || !call.container_id.starts_with(|c: char| c.is_ascii_alphanumeric())
        {
            return Err(CniError::environment("CNI_CONTAINERID has characters that are not allowed"));
        }
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
        if call.interface.len() > 15 || matches!(&*call.interface, "." | "..") || call.interface.contains(bad) {
            return Err(CniError::environment("CNI_IFNAME is not the name of an interface"));
        }
        Ok(call)
    }

    pub(super) fn namespace(&self) -> Result<&PathBuf, CniError> {
        self.namespace.as_ref().ok_or_else(|| CniError::environment("CNI_NETNS is not set"))
    }
}

/// The result of an ADD. Interface 0 is the host's, 1 the pod's.
pub(super) fn result(config: &Config, interfaces: Value, address: Option<(IpNet, IpAddr)>) -> Value {
    let mut result = json!({"cniVersion": config.cni_version, "interfaces": interfaces, "dns": {}});
    if let Some((address, gateway)) = address {
        let mut ip = json!({"address": address, "gateway": gateway, "interface": 1});
        if config.cni_version.starts_with("0.") {
            ip["version"] = json!(if gateway.is_ipv4() { "4" } else { "6" });
        }
        result["ips"] = json!([ip]);
        result["routes"] = json!([{"dst": if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, "gw": gateway}]);
    }
    result
}
