//! Labels and annotations by which pods, sandboxes and containers are known; they are upstream's.

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Says which specification a container was made from.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// How often all containers of the pod had been restarted when this one was made.
pub const RESTART_ROUND: &str = "kube1.io/restart-round";
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const POD_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Where a pod comes from: `api` or `file`.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Hash of a static pod's manifest.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// On the API's copy of a static pod: the hash of what it mirrors.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
