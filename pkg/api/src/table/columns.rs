//! The columns of every built-in resource.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::*;

/// A column and how its cells are made.
pub(super) struct Column {
    pub name: &'static str,
    pub kind: &'static str,
    pub format: &'static str,
    /// Shown by default (0) or only when asked for (1).
    pub priority: u8,
    pub cell: Cell,
}

pub(super) enum Cell {
    /// The member as text, empty without one.
    Text(&'static str),
    TextOr(&'static str, &'static str),
    /// The number, 0 without one.
    Int(&'static str),
    /// The number, or a text without one.
    IntOr(&'static str, &'static str),
    BoolOr(&'static str, bool),
    Age(&'static str),
    /// `key=value` pairs.
    Labels(&'static str),
    Selector(&'static str),
    /// How many items or members there are.
    Count(&'static str),
    /// The `name` of each item of a list.
    Names(&'static str),
    /// The `image` of each item of a list.
    Images(&'static str),
    /// Items of a list of texts.
    Joined(&'static str, &'static str),
    Code(fn(&Value) -> String),
    Timed(fn(&Value, Timestamp) -> String),
    /// Code that gives no text.
    Json(fn(&Value) -> Value),
}

use Cell::{Age, BoolOr, Code, Count, Images, Int, IntOr, Joined, Json, Labels, Names, Selector, Text, TextOr, Timed};

const fn column(name: &'static str, kind: &'static str, priority: u8, cell: Cell) -> Column {
    Column { name, kind, format: "", priority, cell }
}

const fn s(name: &'static str, cell: Cell) -> Column {
    column(name, "string", 0, cell)
}

const fn wide(name: &'static str, cell: Cell) -> Column {
    column(name, "string", 1, cell)
}

const fn int(name: &'static str, cell: Cell) -> Column {
    column(name, "integer", 0, cell)
}

const fn boolean(name: &'static str, cell: Cell) -> Column {
    column(name, "boolean", 0, cell)
}

const fn named(name: &'static str, cell: Cell) -> Column {
    Column { name, kind: "string", format: "name", priority: 0, cell }
}

const NAME: Column = named("Name", Text("metadata.name"));
const AGE: Column = s("Age", Age("metadata.creationTimestamp"));
const CONTAINERS: Column = wide("Containers", Names("spec.template.spec.containers"));
const IMAGES: Column = wide("Images", Images("spec.template.spec.containers"));
const SELECTOR: Column = wide("Selector", Selector("spec.selector"));

/// For resources without columns of their own.
pub(super) static FALLBACK: &[Column] = &[NAME, column("Created At", "date", 0, Text("metadata.creationTimestamp"))];

/// For the scale subresource of any resource.
pub(super) static SCALE: &[Column] = &[
    s("Name", Text("metadata.name")),
    int("Desired", Int("spec.replicas")),
    int("Available", Int("status.replicas")),
    AGE,
];

static NAME_AND_AGE: &[Column] = &[NAME, AGE];

/// Columns by group and plural.
pub(super) fn find(group: &str, plural: &str) -> &'static [Column] {
    let row = COLUMNS.iter().find(|(g, p, _)| *g == group && *p == plural);
    row.map_or(FALLBACK, |(_, _, columns)| columns)
}

const WEBHOOKS: &[Column] = &[NAME, int("Webhooks", Count("webhooks")), AGE];
const POLICY_BINDINGS: &[Column] =
    &[NAME, s("PolicyName", Text("spec.policyName")), s("ParamRef", Code(param_ref)), AGE];
const ROLE_BINDINGS: &[Column] = &[
    NAME,
    s("Role", Code(role)),
    AGE,
    wide("Users", Code(users)),
    wide("Groups", Code(groups)),
    wide("ServiceAccounts", Code(service_accounts)),
];
const EVENTS: &[Column] = &[
    s("Last Seen", Timed(event_last_seen)),
    s("Type", Text("type")),
    s("Reason", Text("reason")),
    s("Object", Code(event_object)),
    wide("Subobject", Code(event_subobject)),
    wide("Source", Code(event_source)),
    s("Message", Code(event_message)),
    wide("First Seen", Timed(event_first_seen)),
    wide("Count", Json(event_count)),
    Column { priority: 1, ..NAME },
];

type Row = (&'static str, &'static str, &'static [Column]);

#[rustfmt::skip]
static COLUMNS: &[Row] = &[
    ("", "pods", &[NAME, s("Ready", Code(pod_ready)), s("Status", Code(pod_status)), s("Restarts", Timed(pod_restarts)), AGE,
        wide("IP", Code(pod_ip)), wide("Node", TextOr("spec.nodeName", NONE)),
        wide("Nominated Node", TextOr("status.nominatedNodeName", NONE)), wide("Readiness Gates", Code(readiness_gates))]),
    ("", "podtemplates", &[NAME, s("Containers", Names("template.spec.containers")),
        s("Images", Images("template.spec.containers")), s("Pod Labels", Labels("template.metadata.labels"))]),
    ("", "replicationcontrollers", &[NAME, int("Desired", Int("spec.replicas")), int("Current", Int("status.replicas")),
        int("Ready", Int("status.readyReplicas")), AGE, CONTAINERS, IMAGES, wide("Selector", Labels("spec.selector"))]),
    ("", "services", &[NAME, s("Type", Text("spec.type")), s("Cluster-IP", Code(cluster_ip)), s("External-IP", Code(external_ip)),
        s("Port(s)", Code(service_ports)), AGE, wide("Selector", Labels("spec.selector"))]),
    ("", "endpoints", &[NAME, s("Endpoints", Code(endpoints)), AGE]),
    ("", "nodes", &[NAME, s("Status", Code(node_status)), s("Roles", Code(node_roles)), AGE,
        s("Version", Text("status.nodeInfo.kubeletVersion")), wide("Internal-IP", Code(node_internal_ip)),
        wide("External-IP", Code(node_external_ip)), wide("OS-Image", TextOr("status.nodeInfo.osImage", UNKNOWN)),
        wide("Kernel-Version", Code(node_kernel)),
        wide("Container-Runtime", TextOr("status.nodeInfo.containerRuntimeVersion", UNKNOWN))]),
    ("", "events", EVENTS),
    ("events.k8s.io", "events", EVENTS),
    ("", "namespaces", &[NAME, s("Status", Text("status.phase")), AGE]),
    ("", "secrets", &[NAME, s("Type", Text("type")), s("Data", Count("data")), AGE]),
    ("", "serviceaccounts", NAME_AND_AGE),
    ("", "persistentvolumes", &[NAME, s("Capacity", Text("spec.capacity.storage")), s("Access Modes", Code(volume_access)),
        s("Reclaim Policy", Text("spec.persistentVolumeReclaimPolicy")), s("Status", Code(phase)), s("Claim", Code(volume_claim)),
        s("StorageClass", Code(storage_class)), s("VolumeAttributesClass", TextOr("spec.volumeAttributesClassName", UNSET)),
        s("Reason", Text("status.reason")), AGE, wide("VolumeMode", TextOr("spec.volumeMode", UNSET))]),
    ("", "persistentvolumeclaims", &[NAME, s("Status", Code(phase)), s("Volume", Text("spec.volumeName")),
        s("Capacity", Code(claim_capacity)), s("Access Modes", Code(claim_access)), s("StorageClass", Code(storage_class)),
        s("VolumeAttributesClass", TextOr("spec.volumeAttributesClassName", UNSET)), AGE,
        wide("VolumeMode", TextOr("spec.volumeMode", UNSET))]),
    ("", "componentstatuses", &[NAME, s("Status", Code(component_status)), s("Message", Code(component_message)),
        s("Error", Code(component_error))]),
    ("", "configmaps", &[NAME, s("Data", Json(config_keys)), AGE]),
    ("", "resourcequotas", &[NAME, s("Request", Code(quota_requests)), s("Limit", Code(quota_limits)), AGE]),
    ("apps", "deployments", &[NAME, s("Ready", Code(ready_of_desired)), s("Up-to-date", Int("status.updatedReplicas")),
        s("Available", Int("status.availableReplicas")), AGE, CONTAINERS, IMAGES, wide("Selector", Code(deployment_selector))]),
    ("apps", "replicasets", &[NAME, int("Desired", Int("spec.replicas")), int("Current", Int("status.replicas")),
        int("Ready", Int("status.readyReplicas")), AGE, CONTAINERS, IMAGES, SELECTOR]),
    ("apps", "daemonsets", &[NAME, int("Desired", Int("status.desiredNumberScheduled")),
        int("Current", Int("status.currentNumberScheduled")), int("Ready", Int("status.numberReady")),
        int("Up-to-date", Int("status.updatedNumberScheduled")), int("Available", Int("status.numberAvailable")),
        s("Node Selector", Labels("spec.template.spec.nodeSelector")), AGE, CONTAINERS, IMAGES, SELECTOR]),
    ("apps", "statefulsets", &[NAME, s("Ready", Code(ready_of_desired)), AGE, CONTAINERS, IMAGES]),
    ("apps", "controllerrevisions", &[NAME, s("Controller", Code(controller)), s("Revision", Int("revision")), AGE]),
    ("batch", "jobs", &[NAME, s("Status", Code(job_status)), s("Completions", Code(job_completions)),
        s("Duration", Timed(job_duration)), AGE, CONTAINERS, IMAGES, SELECTOR]),
    ("batch", "cronjobs", &[NAME, s("Schedule", Text("spec.schedule")), s("Timezone", TextOr("spec.timeZone", NONE)),
        boolean("Suspend", Code(suspended)), int("Active", Count("status.active")), s("Last Schedule", Timed(last_schedule)), AGE,
        wide("Containers", Names("spec.jobTemplate.spec.template.spec.containers")),
        wide("Images", Images("spec.jobTemplate.spec.template.spec.containers")),
        wide("Selector", Selector("spec.jobTemplate.spec.selector"))]),
    ("policy", "poddisruptionbudgets", &[NAME, s("Min Available", TextOr("spec.minAvailable", "N/A")),
        s("Max Unavailable", TextOr("spec.maxUnavailable", "N/A")), int("Allowed Disruptions", Int("status.disruptionsAllowed")), AGE]),
    ("networking.k8s.io", "ingresses", &[NAME, s("Class", TextOr("spec.ingressClassName", NONE)), s("Hosts", Code(ingress_hosts)),
        s("Address", Code(ingress_address)), s("Ports", Code(ingress_ports)), AGE]),
    ("networking.k8s.io", "ingressclasses", &[named("Name", Code(ingress_class_name)), s("Controller", Text("spec.controller")),
        s("Parameters", Code(ingress_class_parameters)), AGE]),
    ("networking.k8s.io", "networkpolicies", &[NAME, s("Pod-Selector", Selector("spec.podSelector")), AGE]),
    ("networking.k8s.io", "servicecidrs", &[NAME, s("CIDRs", Joined("spec.cidrs", "")), AGE]),
    ("networking.k8s.io", "ipaddresses", &[NAME, s("ParentRef", Code(parent_ref))]),
    ("autoscaling", "horizontalpodautoscalers", &[NAME, s("Reference", Code(scale_target)), s("Targets", Code(autoscaler_targets)),
        s("MinPods", TextOr("spec.minReplicas", UNSET)), s("MaxPods", Int("spec.maxReplicas")),
        s("Replicas", Int("status.currentReplicas")), AGE]),
    ("rbac.authorization.k8s.io", "rolebindings", ROLE_BINDINGS),
    ("rbac.authorization.k8s.io", "clusterrolebindings", ROLE_BINDINGS),
    ("certificates.k8s.io", "certificatesigningrequests", &[NAME, AGE, s("SignerName", TextOr("spec.signerName", NONE)),
        s("Requestor", Text("spec.username")), s("RequestedDuration", Code(requested_duration)), s("Condition", Code(request_condition))]),
    ("coordination.k8s.io", "leases", &[NAME, s("Holder", Text("spec.holderIdentity")), AGE]),
    ("storage.k8s.io", "storageclasses", &[named("Name", Code(storage_class_name)), s("Provisioner", Text("provisioner")),
        s("ReclaimPolicy", TextOr("reclaimPolicy", "Delete")), s("VolumeBindingMode", TextOr("volumeBindingMode", "Immediate")),
        s("AllowVolumeExpansion", BoolOr("allowVolumeExpansion", false)), AGE]),
    ("storage.k8s.io", "volumeattributesclasses", &[NAME, s("DriverName", Text("driverName")), AGE]),
    ("storage.k8s.io", "volumeattachments", &[NAME, named("Attacher", Text("spec.attacher")),
        s("PV", Text("spec.source.persistentVolumeName")), s("Node", Text("spec.nodeName")),
        boolean("Attached", BoolOr("status.attached", false)), AGE]),
    ("storage.k8s.io", "csinodes", &[NAME, int("Drivers", Count("spec.drivers")), AGE]),
    ("storage.k8s.io", "csidrivers", &[NAME, boolean("AttachRequired", BoolOr("spec.attachRequired", true)),
        boolean("PodInfoOnMount", BoolOr("spec.podInfoOnMount", false)), boolean("StorageCapacity", BoolOr("spec.storageCapacity", false)),
        s("TokenRequests", Code(token_requests)), boolean("RequiresRepublish", BoolOr("spec.requiresRepublish", false)),
        s("Modes", Joined("spec.volumeLifecycleModes", NONE)), AGE]),
    ("scheduling.k8s.io", "priorityclasses", &[NAME, int("Value", Int("value")), boolean("Global-Default", BoolOr("globalDefault", false)),
        AGE, s("PreemptionPolicy", Text("preemptionPolicy"))]),
    ("node.k8s.io", "runtimeclasses", &[NAME, s("Handler", Text("handler")), AGE]),
    ("discovery.k8s.io", "endpointslices", &[NAME, s("AddressType", Text("addressType")), s("Ports", Code(slice_ports)),
        s("Endpoints", Code(slice_endpoints)), AGE]),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", WEBHOOKS),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", WEBHOOKS),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", &[NAME, int("Validations", Count("spec.validations")),
        s("ParamKind", Code(param_kind)), AGE]),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies", &[NAME, int("Mutations", Count("spec.mutations")),
        s("ParamKind", Code(param_kind)), AGE]),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", POLICY_BINDINGS),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings", POLICY_BINDINGS),
    ("flowcontrol.apiserver.k8s.io", "flowschemas", &[NAME, s("PriorityLevel", Text("spec.priorityLevelConfiguration.name")),
        s("MatchingPrecedence", Int("spec.matchingPrecedence")), s("DistinguisherMethod", TextOr("spec.distinguisherMethod.type", NONE)),
        AGE, s("MissingPL", Code(missing_level))]),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", &[NAME, s("Type", Text("spec.type")),
        s("NominalConcurrencyShares", IntOr("spec.limited.nominalConcurrencyShares", NONE)),
        s("Queues", IntOr("spec.limited.limitResponse.queuing.queues", NONE)),
        s("HandSize", IntOr("spec.limited.limitResponse.queuing.handSize", NONE)),
        s("QueueLengthLimit", IntOr("spec.limited.limitResponse.queuing.queueLengthLimit", NONE)), AGE]),
    ("resource.k8s.io", "deviceclasses", NAME_AND_AGE),
    ("resource.k8s.io", "resourceclaims", &[NAME, s("State", Code(resource_claim_state)), AGE]),
    ("resource.k8s.io", "resourceclaimtemplates", NAME_AND_AGE),
    ("resource.k8s.io", "resourceslices", &[NAME, s("Node", Text("spec.nodeName")), s("Driver", Text("spec.driver")),
        s("Pool", Text("spec.pool.name")), AGE]),
    ("storagemigration.k8s.io", "storageversionmigrations", &[s("Name", Text("metadata.name")), s("Resource", Code(migrated_resource)),
        s("Status", Code(migration_status))]),
    ("metrics.k8s.io", "nodes", &[NAME, s("cpu", Text("usage.cpu")), s("memory", Text("usage.memory")), s("Window", Text("window"))]),
    ("metrics.k8s.io", "pods", &[NAME, s("cpu", Code(pod_cpu)), s("memory", Code(pod_memory)), s("Window", Text("window"))]),
    ("apiregistration.k8s.io", "apiservices", &[NAME, s("Service", Code(api_service)), s("Available", Code(api_service_available)), AGE]),
];
