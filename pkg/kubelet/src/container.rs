//! What the runtime is told about a container.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeDevice, VolumeMount};
use kube1_cri::v1::{
    Capability, ContainerConfig, ContainerMetadata, Device, Image, ImageSpec, KeyValue, LinuxContainerConfig,
    LinuxContainerSecurityContext, Mount, MountPropagation, NamespaceMode, RuntimeHandlerFeatures, SecurityProfile,
    SupplementalGroupsPolicy, security_profile::ProfileType,
};
use sha2::{Digest, Sha256};

use crate::config::KubeletConfig;
use crate::expand::{expand, expand_strictly};
use crate::machine::Machine;
use crate::pod::PodExt;
use crate::restart_round::Round;
use crate::sandbox::{self, int64};
use crate::user_namespace::IdRange;
use crate::volume::{SubPathError, Volumes, bind_sub_path};
use crate::{labels, resources};

/// Kernel files that a container must not see, and those that it must not write.
const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Why a container's configuration cannot be made (`CreateContainerConfigError`).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}")]
    SubPath(#[from] SubPathError),
    #[error("container {container} has a mount of volume {volume}, which the pod does not have")]
    NoVolume { container: String, volume: String },
    #[error("subPathExpr of volumeMount \"{volume}\": variable {variable} is not set")]
    SubPathVariable { volume: String, variable: String },
    #[error("{0}")]
    NonRoot(String),
    #[error("cannot prepare {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("volume {0} is a block device, which is named in volumeDevices and not in volumeMounts")]
    Mounted(String),
    #[error("volume {0}: recursive read-only mount is not supported by the runtime of this node")]
    RecursiveReadOnly(String),
    #[error("volume {0} is a file system, which is named in volumeMounts and not in volumeDevices")]
    NotBlock(String),
}

/// An image that a volume shows.
#[derive(Clone, Debug)]
pub struct VolumeImage {
    /// By which the runtime knows it.
    pub name: String,
    /// Where it is mounted, if the container sees a part of it.
    pub dir: Option<PathBuf>,
}

/// Whether a container sees only a part of a volume.
pub fn has_sub_path(mount: &VolumeMount) -> bool {
    [&mount.sub_path, &mount.sub_path_expr].into_iter().flatten().any(|path| !path.is_empty())
}

/// Everything that a container's configuration is made from.
pub struct Inputs<'a> {
    pub config: &'a KubeletConfig,
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub env: Vec<(String, String)>,
    pub image: &'a Image,
    pub volumes: &'a Volumes,
    /// The images that volumes show, by volume.
    pub volume_images: HashMap<String, VolumeImage>,
    pub hosts_file: Option<PathBuf>,
    pub attempt: u32,
    pub round: Round,
    /// The container whose processes an ephemeral container sees.
    pub target_id: Option<String>,
    pub machine: &'a Machine,
    /// The pod's own user ids.
    pub ids: Option<IdRange>,
    /// What the pod's runtime handler can do.
    pub features: RuntimeHandlerFeatures,
}

/// Says from which specification a container was made: a change of these fields means a new container.
pub fn spec_hash(container: &Container) -> String {
    let text = format!("{}\n{}", container.name, container.image.as_deref().unwrap_or_default());
    Sha256::digest(text).iter().take(4).map(|b| format!("{b:02x}")).collect()
}

pub fn container_config(inputs: &Inputs<'_>) -> Result<ContainerConfig, ConfigError> {
    let (pod, container) = (inputs.pod, inputs.container);
    verify_non_root(pod, container, inputs.image)?;
    let lookup = |name: &str| inputs.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let words = |list: &Option<Vec<String>>| list.iter().flatten().map(|w| expand(w, lookup)).collect();
    let log_dir = inputs.config.pod_log_dir(pod.namespace(), pod.name(), pod.uid()).join(&container.name);
    std::fs::create_dir_all(&log_dir).map_err(|source| ConfigError::Io { path: log_dir, source })?;
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: inputs.attempt }),
        image: Some(ImageSpec {
            image: inputs.image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..ImageSpec::default()
        }),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: inputs.env.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts: mounts(inputs, &lookup)?,
        devices: devices(inputs)?,
        labels: container_labels(pod, container),
        annotations: container_annotations(inputs),
        log_path: format!("{}/{}.log", container.name, inputs.attempt),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources::container_resources(pod.spec(), container, inputs.machine)),
            security_context: Some(security_context(inputs)),
        }),
        ..ContainerConfig::default()
    })
}

fn container_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let name = (labels::CONTAINER_NAME.to_owned(), container.name.clone());
    sandbox::identity_labels(pod).into_iter().chain([name]).collect()
}

fn container_annotations(inputs: &Inputs<'_>) -> HashMap<String, String> {
    let (pod, container) = (inputs.pod, inputs.container);
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let pairs = [
        (labels::CONTAINER_HASH, spec_hash(container)),
        (labels::RESTART_COUNT, inputs.attempt.to_string()),
        (labels::RESTART_ROUND, inputs.round.number.to_string()),
        (labels::MESSAGE_PATH, path.to_owned()),
        (labels::MESSAGE_POLICY, policy.to_owned()),
        (labels::POD_GRACE_PERIOD, pod.grace_period().to_string()),
    ];
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

fn mounts(inputs: &Inputs<'_>, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Mount>, ConfigError> {
    let (pod, container) = (inputs.pod, inputs.container);
    let mut mounts = Vec::new();
    for (number, mount) in container.volume_mounts.iter().flatten().enumerate() {
        mounts.push(volume_mount(inputs, number, mount, lookup)?);
    }
    let mounted = |path: &str| container.volume_mounts.iter().flatten().any(|m| m.mount_path == path);
    if let Some(hosts) = &inputs.hosts_file
        && !mounted("/etc/hosts")
    {
        mounts.push(bind("/etc/hosts", hosts));
    }
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if !path.is_empty() && !mounted(path) {
        let file = termination_file(inputs.config, pod, container, inputs.attempt)?;
        mounts.push(bind(path, &file));
    }
    // What lies on the host belongs to the host's users; the pod's root sees it as its own.
    if let Some(ids) = inputs.ids {
        for mount in mounts.iter_mut().filter(|mount| mount.image.is_none()) {
            (mount.uid_mappings, mount.gid_mappings) = (ids.mappings(), ids.mappings());
        }
    }
    Ok(mounts)
}

/// The volumes that the container sees as block devices.
fn devices(inputs: &Inputs<'_>) -> Result<Vec<Device>, ConfigError> {
    let wanted = inputs.container.volume_devices.iter().flatten();
    let device = |wanted: &VolumeDevice| {
        let volume = inputs.volumes.paths.get(&wanted.name).ok_or_else(|| ConfigError::NoVolume {
            container: inputs.container.name.clone(),
            volume: wanted.name.clone(),
        })?;
        if !volume.block {
            return Err(ConfigError::NotBlock(wanted.name.clone()));
        }
        // Links are followed here: the runtime takes nothing but the device itself.
        let path = std::fs::canonicalize(&volume.path);
        let path = path.map_err(|source| ConfigError::Io { path: volume.path.clone(), source })?;
        Ok(Device {
            container_path: wanted.device_path.clone(),
            host_path: path.display().to_string(),
            permissions: if volume.read_only { "r" } else { "mrw" }.to_owned(),
        })
    };
    wanted.map(device).collect()
}

fn bind(container_path: &str, host_path: &Path) -> Mount {
    Mount { container_path: container_path.to_owned(), host_path: host_path.display().to_string(), ..Mount::default() }
}

/// Where a container's last words lie on the host.
pub fn termination_path(config: &KubeletConfig, uid: &str, container: &str, attempt: u32) -> PathBuf {
    config.pod_dir(uid).join("containers").join(container).join(attempt.to_string())
}

fn termination_file(
    config: &KubeletConfig,
    pod: &Pod,
    container: &Container,
    attempt: u32,
) -> Result<PathBuf, ConfigError> {
    let path = termination_path(config, pod.uid(), &container.name, attempt);
    let make = || {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(&path, [])?;
        // Writable for whatever user the container runs as.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
    };
    make().map_err(|source| ConfigError::Io { path: path.clone(), source })?;
    Ok(path)
}

fn volume_mount(
    inputs: &Inputs<'_>,
    number: usize,
    mount: &VolumeMount,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Mount, ConfigError> {
    let container = &inputs.container.name;
    let volume = inputs
        .volumes
        .paths
        .get(&mount.name)
        .ok_or_else(|| ConfigError::NoVolume { container: container.clone(), volume: mount.name.clone() })?;
    if volume.block {
        return Err(ConfigError::Mounted(mount.name.clone()));
    }
    let image = inputs.volume_images.get(&mount.name);
    if volume.image.is_some() && !has_sub_path(mount) {
        let image = image.map(|image| ImageSpec { image: image.name.clone(), ..ImageSpec::default() });
        return Ok(Mount { container_path: mount.mount_path.clone(), readonly: true, image, ..Mount::default() });
    }
    let root = image.and_then(|image| image.dir.as_ref()).unwrap_or(&volume.path);
    let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
        (_, Some(text)) if !text.is_empty() => {
            let missing = |variable| ConfigError::SubPathVariable { volume: mount.name.clone(), variable };
            Some(expand_strictly(text, lookup).map_err(missing)?)
        }
        (Some(path), _) if !path.is_empty() => Some(path.clone()),
        _ => None,
    };
    let host_path = match sub_path {
        Some(path) => {
            let pod_dir = inputs.config.pod_dir(inputs.pod.uid());
            bind_sub_path(&pod_dir, (&mount.name, root), container, number, &path)?
        }
        None => volume.path.clone(),
    };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        _ => MountPropagation::PropagationPrivate,
    };
    let recursive_read_only = match mount.recursive_read_only.as_deref() {
        Some("Enabled") if !inputs.features.recursive_read_only_mounts => {
            return Err(ConfigError::RecursiveReadOnly(mount.name.clone()));
        }
        Some("Enabled") => true,
        Some("IfPossible") => inputs.features.recursive_read_only_mounts,
        _ => false,
    };
    // A relative path is one below the container's root.
    let absolute = mount.mount_path.starts_with('/');
    let container_path = if absolute { mount.mount_path.clone() } else { format!("/{}", mount.mount_path) };
    Ok(Mount {
        container_path,
        host_path: host_path.display().to_string(),
        readonly: volume.read_only || mount.read_only == Some(true),
        propagation: propagation.into(),
        recursive_read_only,
        ..Mount::default()
    })
}

fn security_context(inputs: &Inputs<'_>) -> LinuxContainerSecurityContext {
    let spec = inputs.pod.spec();
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = inputs.container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() };
    let user = own.run_as_user.or(pod.run_as_user);
    // What the image says is repeated, because the runtime takes a group only beside a user; no user means root.
    let (user, username) = match (user, &inputs.image.uid) {
        (Some(user), _) => (Some(user), String::new()),
        (None, Some(uid)) => (Some(uid.value), String::new()),
        (None, None) if !inputs.image.username.is_empty() => (None, inputs.image.username.clone()),
        (None, None) => (Some(0), String::new()),
    };
    let group = own.run_as_group.or(pod.run_as_group);
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let mut namespaces = sandbox::namespaces(spec, inputs.ids);
    if let Some(target) = &inputs.target_id {
        namespaces.pid = NamespaceMode::Target.into();
        namespaces.target_id = target.clone();
    }
    let strict = pod.supplemental_groups_policy.as_deref() == Some("Strict");
    let policy = if strict { SupplementalGroupsPolicy::Strict } else { SupplementalGroupsPolicy::Merge };
    let seccomp = own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref());
    let apparmor = own.app_armor_profile.as_ref().or(pod.app_armor_profile.as_ref()).map(|profile| {
        let profile_type = match profile.type_.as_str() {
            "Unconfined" => ProfileType::Unconfined,
            "Localhost" => ProfileType::Localhost,
            _ => ProfileType::RuntimeDefault,
        };
        let localhost_ref = profile.localhost_profile.clone().unwrap_or_default();
        SecurityProfile { profile_type: profile_type.into(), localhost_ref }
    });
    LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(namespaces),
        run_as_user: user.map(int64),
        run_as_group: group.map(int64),
        run_as_username: username,
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: sandbox::supplemental_groups(spec),
        supplemental_groups_policy: policy.into(),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(if privileged && seccomp.is_none() {
            sandbox::seccomp(inputs.config, None)
        } else {
            sandbox::seccomp(inputs.config, seccomp)
        }),
        apparmor,
        ..LinuxContainerSecurityContext::default()
    }
}

/// Holds `runAsNonRoot`: neither the specification nor the image may choose root.
fn verify_non_root(pod: &Pod, container: &Container, image: &Image) -> Result<(), ConfigError> {
    let (of_pod, own) = (pod.spec().security_context.as_ref(), container.security_context.as_ref());
    let wanted = own.and_then(|s| s.run_as_non_root).or(of_pod.and_then(|s| s.run_as_non_root));
    if wanted != Some(true) {
        return Ok(());
    }
    let user = own.and_then(|s| s.run_as_user).or(of_pod.and_then(|s| s.run_as_user));
    let place = format!("(pod: \"{}\", container: {})", pod.full_name(), container.name);
    let refusal = match (user, &image.uid) {
        (Some(0), _) => format!("container's runAsUser breaks non-root policy {place}"),
        (Some(_), _) => return Ok(()),
        (None, Some(uid)) if uid.value != 0 => return Ok(()),
        (None, None) if !image.username.is_empty() => format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {place}",
            image.username
        ),
        _ => format!("container has runAsNonRoot and image will run as root {place}"),
    };
    Err(ConfigError::NonRoot(refusal))
}
