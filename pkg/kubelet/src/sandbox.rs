//! What the runtime is told about a pod's sandbox.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, SeccompProfile};
use kube1_cri::v1::{
    Int64Value, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, PortMapping, Protocol, SecurityProfile, security_profile::ProfileType,
};

use crate::config::KubeletConfig;
use crate::pod::{self, PodExt};
use crate::user_namespace::IdRange;
use crate::{dns, labels};

/// A pod's own labels and those by which its sandbox is found again.
pub fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let own = pod.metadata.labels.clone().unwrap_or_default();
    let mut all: HashMap<String, String> = own.into_iter().collect();
    all.extend(identity_labels(pod));
    all
}

pub fn identity_labels(pod: &Pod) -> [(String, String); 3] {
    [(labels::POD_NAME, pod.name()), (labels::POD_NAMESPACE, pod.namespace()), (labels::POD_UID, pod.uid())]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
}

/// The sandbox's configuration; `attempt` counts the sandboxes that the pod has had.
pub fn sandbox_config(
    config: &KubeletConfig,
    pod: &Pod,
    attempt: u32,
    cgroup_parent: String,
    ids: Option<IdRange>,
) -> Result<PodSandboxConfig, String> {
    let spec = pod.spec();
    let hostname = if pod.is_host_network() { String::new() } else { dns::kernel_hostname(config, pod)? };
    let mut annotations: HashMap<String, String> =
        pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect();
    annotations.insert(labels::POD_GRACE_PERIOD.to_owned(), pod.grace_period().to_string());
    let context = spec.security_context.clone().unwrap_or_default();
    let sysctls = context.sysctls.iter().flatten().map(|s| (s.name.replace('/', "."), s.value.clone())).collect();
    let security = LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec, ids)),
        run_as_user: context.run_as_user.map(int64),
        // A group without a user is refused by the runtime.
        run_as_group: context.run_as_user.and(context.run_as_group).map(int64),
        supplemental_groups: supplemental_groups(spec),
        privileged: pod::containers(spec).iter().any(|(_, c)| is_privileged(c)),
        seccomp: Some(SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..Default::default() }),
        ..LinuxSandboxSecurityContext::default()
    };
    Ok(PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            attempt,
        }),
        hostname,
        log_directory: config.pod_log_dir(pod.namespace(), pod.name(), pod.uid()).display().to_string(),
        dns_config: Some(dns::resolver(config, pod)),
        port_mappings: if pod.is_host_network() { Vec::new() } else { port_mappings(spec) },
        labels: sandbox_labels(pod),
        annotations,
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent,
            security_context: Some(security),
            sysctls,
            ..LinuxPodSandboxConfig::default()
        }),
        windows: None,
    })
}

pub fn int64(value: i64) -> Int64Value {
    Int64Value { value }
}

/// Which namespaces the pod's containers share, with each other and with the host.
pub fn namespaces(spec: &PodSpec, ids: Option<IdRange>) -> NamespaceOption {
    let host = |wanted: Option<bool>, otherwise| if wanted == Some(true) { NamespaceMode::Node } else { otherwise };
    let shared = if spec.share_process_namespace == Some(true) { NamespaceMode::Pod } else { NamespaceMode::Container };
    NamespaceOption {
        network: host(spec.host_network, NamespaceMode::Pod).into(),
        pid: host(spec.host_pid, shared).into(),
        ipc: host(spec.host_ipc, NamespaceMode::Pod).into(),
        userns_options: ids.map(IdRange::namespace),
        ..NamespaceOption::default()
    }
}

pub fn supplemental_groups(spec: &PodSpec) -> Vec<i64> {
    let Some(context) = &spec.security_context else { return Vec::new() };
    context.fs_group.into_iter().chain(context.supplemental_groups.iter().flatten().copied()).collect()
}

pub fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().is_some_and(|s| s.privileged == Some(true))
}

fn port_mappings(spec: &PodSpec) -> Vec<PortMapping> {
    let containers = spec.init_containers.iter().flatten().filter(|c| pod::is_sidecar(c)).chain(&spec.containers);
    let ports = containers.flat_map(|c| c.ports.iter().flatten()).filter(|p| p.host_port.is_some_and(|h| h > 0));
    ports
        .map(|port| PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            }
            .into(),
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

/// A seccomp profile as the runtime takes it; local ones are files below the node's data directory.
pub fn seccomp(config: &KubeletConfig, profile: Option<&SeccompProfile>) -> SecurityProfile {
    let Some(profile) = profile else {
        let default =
            if config.settings.seccomp_default { ProfileType::RuntimeDefault } else { ProfileType::Unconfined };
        return SecurityProfile { profile_type: default.into(), ..SecurityProfile::default() };
    };
    let (kind, file) = match profile.type_.as_str() {
        "RuntimeDefault" => (ProfileType::RuntimeDefault, None),
        "Localhost" => (ProfileType::Localhost, profile.localhost_profile.as_deref()),
        _ => (ProfileType::Unconfined, None),
    };
    let localhost_ref = file.map(|f| config.data_dir.join("seccomp").join(f).display().to_string());
    SecurityProfile { profile_type: kind.into(), localhost_ref: localhost_ref.unwrap_or_default() }
}
