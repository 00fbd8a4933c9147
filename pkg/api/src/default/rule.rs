//! The named rules: mostly fields with a constant, the rest in code.

use serde_json::{Map, Value, json};

use super::{pod, workload};
use crate::schema::Type;

/// A rule at one place of an object: constants for unset fields, then code for what is no constant.
pub(super) struct Rule {
    name: &'static str,
    fields: &'static [(&'static str, Fill)],
    code: Option<fn(&mut Value)>,
}

/// What an unset field becomes. Fields are paths of members; structs on the way are made.
#[derive(Clone, Copy)]
enum Fill {
    Text(&'static str),
    /// For fields that tell 0 from unset.
    Number(i64),
    /// For fields where 0 is unset.
    Nonzero(i64),
    Flag(bool),
    Object,
}

use Fill::{Flag, Nonzero, Number, Object, Text};

pub(super) fn find(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

impl Rule {
    pub(super) fn run(&self, value: &mut Value, ty: Option<&'static Type>) {
        for (path, default) in self.fields {
            default.apply(path, value, ty);
        }
        if let Some(code) = self.code {
            code(value);
        }
    }
}

impl Fill {
    fn apply(self, path: &str, value: &mut Value, ty: Option<&'static Type>) {
        let (parents, member) = path.rsplit_once('.').unwrap_or(("", path));
        let (mut at, mut ty) = (value, ty);
        for parent in parents.split('.').filter(|p| !p.is_empty()) {
            let Some(members) = at.as_object_mut() else { return };
            let next = members.entry(parent).or_insert(Value::Null);
            if next.is_null() {
                *next = Map::new().into();
            }
            at = next;
            ty = ty.and_then(|ty| ty.field(parent)?.target());
        }
        if matches!(self, Nonzero(_)) && at[member] == 0 {
            set(at, member, Value::Null);
        }
        fill_member(at, member, ty, || match self {
            Text(text) => text.into(),
            Number(number) | Nonzero(number) => number.into(),
            Flag(flag) => flag.into(),
            Object => Map::new().into(),
        });
    }
}

/// Sets a member that is absent, null or an empty text.
pub(super) fn fill(value: &mut Value, member: &str, default: impl FnOnce() -> Value) {
    if let Some(members) = value.as_object_mut()
        && is_unset(members.get(member))
    {
        members.insert(member.to_owned(), default());
    }
}

/// Sets a member that is absent or null: one that tells an empty text from none.
pub(super) fn fill_missing(value: &mut Value, member: &str, default: impl FnOnce() -> Value) {
    if value.get(member).is_none_or(Value::is_null) {
        set(value, member, default());
    }
}

/// Sets a member of a type as upstream does: an empty text is a value only where there is a pointer to it.
pub(super) fn fill_member(value: &mut Value, member: &str, ty: Option<&'static Type>, default: impl FnOnce() -> Value) {
    if ty.and_then(|ty| ty.field(member)).is_some_and(|field| field.pointer) {
        fill_missing(value, member, default);
    } else {
        fill(value, member, default);
    }
}

pub(super) fn set(value: &mut Value, member: &str, new: Value) {
    if let Some(members) = value.as_object_mut() {
        members.insert(member.to_owned(), new);
    }
}

pub(super) fn is_unset(value: Option<&Value>) -> bool {
    value.is_none_or(|v| v.is_null() || v == "")
}

pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

const fn fields(name: &'static str, fields: &'static [(&'static str, Fill)]) -> Rule {
    Rule { name, fields, code: None }
}

const fn code(name: &'static str, code: fn(&mut Value)) -> Rule {
    Rule { name, fields: &[], code: Some(code) }
}

const fn both(name: &'static str, fields: &'static [(&'static str, Fill)], code: fn(&mut Value)) -> Rule {
    Rule { name, fields, code: Some(code) }
}

const CONTAINER: &[(&str, Fill)] =
    &[("terminationMessagePath", Text("/dev/termination-log")), ("terminationMessagePolicy", Text("File"))];
const MODE: &[(&str, Fill)] = &[("defaultMode", Number(0o644))];
const WEBHOOK: &[(&str, Fill)] = &[
    ("failurePolicy", Text("Fail")),
    ("matchPolicy", Text("Equivalent")),
    ("namespaceSelector", Object),
    ("objectSelector", Object),
    ("timeoutSeconds", Number(10)),
];
const RBAC: &str = "rbac.authorization.k8s.io";

static RULES: &[Rule] = &[
    both("Pod", &[("spec.enableServiceLinks", Flag(true))], pod::pod),
    both(
        "PodSpec",
        &[
            ("dnsPolicy", Text("ClusterFirst")),
            ("restartPolicy", Text("Always")),
            ("securityContext", Object),
            ("terminationGracePeriodSeconds", Number(30)),
            ("schedulerName", Text("default-scheduler")),
        ],
        pod::spec,
    ),
    code("Volume", pod::volume),
    both("Container", CONTAINER, pod::container),
    both("EphemeralContainer", CONTAINER, pod::container),
    fields("ObjectFieldSelector", &[("apiVersion", Text("v1"))]),
    fields(
        "Probe",
        &[
            ("timeoutSeconds", Nonzero(1)),
            ("periodSeconds", Nonzero(10)),
            ("successThreshold", Nonzero(1)),
            ("failureThreshold", Nonzero(3)),
        ],
    ),
    fields("HTTPGetAction", &[("path", Text("/")), ("scheme", Text("HTTP"))]),
    code("ResourceList", pod::resource_list),
    fields("HostPathVolumeSource", &[("type", Text(""))]),
    fields("SecretVolumeSource", MODE),
    fields("ConfigMapVolumeSource", MODE),
    fields("DownwardAPIVolumeSource", MODE),
    fields("ProjectedVolumeSource", MODE),
    fields("ServiceAccountTokenProjection", &[("expirationSeconds", Number(3600))]),
    fields("PersistentVolumeClaimSpec", &[("volumeMode", Text("Filesystem"))]),
    fields("PersistentVolumeClaim", &[("status.phase", Text("Pending"))]),
    fields(
        "PersistentVolume",
        &[
            ("status.phase", Text("Pending")),
            ("spec.persistentVolumeReclaimPolicy", Text("Retain")),
            ("spec.volumeMode", Text("Filesystem")),
        ],
    ),
    code("ReplicationController", workload::replication_controller),
    both("Service", &[("spec.sessionAffinity", Text("None")), ("spec.type", Text("ClusterIP"))], workload::service),
    both("Secret", &[("type", Text("Opaque"))], workload::secret),
    code("Endpoints", |endpoints| each(endpoints, "/subsets", |s| each(s, "/ports", tcp))),
    code("Namespace", workload::namespace),
    fields("NamespaceStatus", &[("phase", Text("Active"))]),
    code("Node", |node| at(node, "/spec", workload::pod_cidrs)),
    code("NodeStatus", |status| {
        if !is_empty(&status["capacity"]) {
            let capacity = status["capacity"].clone();
            fill(status, "allocatable", || capacity);
        }
    }),
    code("LimitRangeItem", workload::limit_range_item),
    both(
        "Deployment",
        &[
            ("spec.replicas", Number(1)),
            ("spec.strategy.type", Text("RollingUpdate")),
            ("spec.revisionHistoryLimit", Number(10)),
            ("spec.progressDeadlineSeconds", Number(600)),
        ],
        |deployment| at(deployment, "/spec/strategy", |s| workload::rolling(s, json!("25%"), json!("25%"))),
    ),
    fields("ReplicaSet", &[("spec.replicas", Number(1))]),
    both(
        "DaemonSet",
        &[("spec.updateStrategy.type", Text("RollingUpdate")), ("spec.revisionHistoryLimit", Number(10))],
        |daemon| at(daemon, "/spec/updateStrategy", |s| workload::rolling(s, json!(1), json!(0))),
    ),
    both(
        "StatefulSet",
        &[
            ("spec.podManagementPolicy", Text("OrderedReady")),
            ("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", Text("Retain")),
            ("spec.persistentVolumeClaimRetentionPolicy.whenScaled", Text("Retain")),
            ("spec.replicas", Number(1)),
            ("spec.revisionHistoryLimit", Number(10)),
        ],
        workload::stateful_set,
    ),
    both(
        "Job",
        &[
            ("spec.completionMode", Text("NonIndexed")),
            ("spec.suspend", Flag(false)),
            ("spec.manualSelector", Flag(false)),
        ],
        workload::job,
    ),
    fields("PodFailurePolicyOnPodConditionsPattern", &[("status", Text("True"))]),
    fields(
        "CronJob",
        &[
            ("spec.concurrencyPolicy", Text("Allow")),
            ("spec.suspend", Flag(false)),
            ("spec.successfulJobsHistoryLimit", Number(3)),
            ("spec.failedJobsHistoryLimit", Number(1)),
        ],
    ),
    both("HorizontalPodAutoscaler", &[("spec.minReplicas", Number(1))], workload::autoscaler),
    fields("MutatingAdmissionPolicySpec", &[("failurePolicy", Text("Fail"))]),
    fields("ValidatingAdmissionPolicySpec", &[("failurePolicy", Text("Fail"))]),
    fields(
        "MatchResources",
        &[("matchPolicy", Text("Equivalent")), ("namespaceSelector", Object), ("objectSelector", Object)],
    ),
    fields("Rule", &[("scope", Text("*"))]),
    fields("ValidatingWebhook", WEBHOOK),
    both("MutatingWebhook", WEBHOOK, |hook| fill_missing(hook, "reinvocationPolicy", || "Never".into())),
    fields("ServiceReference", &[("port", Number(443))]),
    fields("TokenRequestSpec", &[("expirationSeconds", Number(3600))]),
    fields("EndpointPort", &[("name", Text("")), ("protocol", Text("TCP"))]),
    fields("FlowSchemaSpec", &[("matchingPrecedence", Nonzero(1000))]),
    fields(
        "LimitedPriorityLevelConfiguration",
        &[("nominalConcurrencyShares", Number(30)), ("lendablePercent", Number(0))],
    ),
    fields(
        "QueuingConfiguration",
        &[("handSize", Nonzero(8)), ("queues", Nonzero(64)), ("queueLengthLimit", Nonzero(50))],
    ),
    fields(
        "ExemptPriorityLevelConfiguration",
        &[("nominalConcurrencyShares", Number(0)), ("lendablePercent", Number(0))],
    ),
    code("NetworkPolicy", workload::network_policy),
    fields("NetworkPolicyPort", &[("protocol", Text("TCP"))]),
    code("IngressClass", |class| {
        at(class, "/spec/parameters", |parameters| fill_missing(parameters, "scope", || "Cluster".into()));
    }),
    fields("ClusterRoleBinding", &[("roleRef.apiGroup", Text(RBAC))]),
    fields("RoleBinding", &[("roleRef.apiGroup", Text(RBAC))]),
    code("Subject", |subject| {
        if subject["kind"] == "User" || subject["kind"] == "Group" {
            fill(subject, "apiGroup", || RBAC.into());
        }
    }),
    fields("PriorityClass", &[("preemptionPolicy", Text("PreemptLowerPriority"))]),
    fields("StorageClass", &[("reclaimPolicy", Text("Delete")), ("volumeBindingMode", Text("Immediate"))]),
    both(
        "CSIDriver",
        &[
            ("spec.attachRequired", Flag(true)),
            ("spec.podInfoOnMount", Flag(false)),
            ("spec.storageCapacity", Flag(false)),
            ("spec.requiresRepublish", Flag(false)),
            ("spec.fsGroupPolicy", Text("ReadWriteOnceWithFSType")),
            ("spec.seLinuxMount", Flag(false)),
        ],
        |driver| {
            if is_empty(&driver["spec"]["volumeLifecycleModes"]) {
                at(driver, "/spec", |spec| set(spec, "volumeLifecycleModes", json!(["Persistent"])));
            }
        },
    ),
    both("ExactDeviceRequest", &[("allocationMode", Text("ExactCount"))], workload::device_request),
    both("DeviceSubRequest", &[("allocationMode", Text("ExactCount"))], workload::device_request),
    code("Device", |device| {
        at(device, "/nodeAllocatableResourceMappings", |mappings| {
            let all = mappings.as_object_mut().into_iter().flat_map(Map::values_mut);
            all.for_each(|mapping| fill(mapping, "allocationMultiplier", || "1".into()));
        });
    }),
    code("DeviceTaint", |taint| {
        fill(taint, "timeAdded", || jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into());
    }),
    code("CustomResourceDefinition", workload::custom_resource_definition),
    code("CustomResourceDefinitionSpec", |spec| {
        fill(spec, "conversion", || json!({"strategy": "None"}));
    }),
];

/// Runs on each item of the list at a JSON pointer, if there is one.
pub(super) fn each(value: &mut Value, pointer: &str, each: impl FnMut(&mut Value)) {
    value.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten().for_each(each);
}

/// Runs on the value at a JSON pointer, if there is one.
pub(super) fn at(value: &mut Value, pointer: &str, run: impl FnOnce(&mut Value)) {
    if let Some(value) = value.pointer_mut(pointer) {
        run(value);
    }
}

fn tcp(port: &mut Value) {
    fill(port, "protocol", || "TCP".into());
}
