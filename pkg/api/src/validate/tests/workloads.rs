//! Deployments and their like, autoscalers, budgets, classes, roles.

use serde_json::json;

use super::*;

const MISMATCH: &str =
    "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`";

#[test]
fn deployments() {
    refused(
        &deployment(),
        &[
            (json!({"spec": {"selector": null}}), &["spec.selector: Required value", MISMATCH]),
            (
                json!({"spec": {"selector": {"matchLabels": null}}}),
                &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
            ),
            (
                json!({"spec": {"strategy": {"type": "Blue"}}}),
                &[
                    "spec.strategy: Unsupported value: {\"type\":\"Blue\"}: supported values: \"Recreate\", \"RollingUpdate\"",
                ],
            ),
            (
                json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}}),
                &[
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                json!({"spec": {"minReadySeconds": 600, "progressDeadlineSeconds": 600}}),
                &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
            ),
            (
                json!({"spec": {"template": {"spec": {"activeDeadlineSeconds": 5}}}}),
                &[
                    "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
                ],
            ),
            (
                json!({"metadata": {"labels": {"a": "b c"}}}),
                &[
                    "metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
                ],
            ),
        ],
    );
    let over = json!({"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 2}});
    assert_eq!(
        update_status(&deployment(), &over),
        [
            "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas"
        ]
    );
}

#[test]
fn stateful_and_daemon_sets() {
    refused(
        &stateful_set(),
        &[
            (
                json!({"spec": {"podManagementPolicy": "Some"}}),
                &["spec.podManagementPolicy: Invalid value: \"Some\": must be 'OrderedReady' or 'Parallel'"],
            ),
            (
                json!({"spec": {"updateStrategy": {"type": "Some"}}}),
                &["spec.updateStrategy: Invalid value: {\"type\":\"Some\"}: must be 'RollingUpdate' or 'OnDelete'"],
            ),
            (
                json!({"spec": {"serviceName": "a.b"}}),
                &["spec.serviceName: Invalid value: \"a.b\": must not contain dots"],
            ),
        ],
    );
    let mut daemons = deployment();
    daemons["kind"] = "DaemonSet".into();
    refused(
        &daemons,
        &[
            (json!({"spec": {"selector": null}}), &[MISMATCH]),
            (
                json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}}}),
                &[
                    "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
                ],
            ),
        ],
    );
}

#[test]
fn autoscalers() {
    let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 5}}});
    let base = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": {"maxReplicas": 3,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "metrics": [metric]}});
    assert_eq!(create(&base), [""; 0]);
    let unknown = "supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"";
    refused(
        &base,
        &[
            (
                json!({"spec": {"maxReplicas": 0, "minReplicas": 0}}),
                &[
                    "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                    "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                    "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
                ],
            ),
            (
                json!({"spec": {"scaleTargetRef": {"apiVersion": "v1"}}}),
                &["spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group"],
            ),
            (json!({"spec": {"scaleTargetRef": {"apiVersion": "v1", "kind": "ReplicationController"}}}), &[]),
            (
                json!({"spec": {"metrics": [{"type": "Some"}]}}),
                &[&format!("spec.metrics[0].type: Unsupported value: \"Some\": {unknown}")],
            ),
            (
                json!({"spec": {"metrics": [{"type": "Pods", "resource": metric["resource"]}]}}),
                &["spec.metrics[0].pods: Required value: must populate information for the given metric source"],
            ),
            (
                json!({"spec": {"behavior": {"scaleUp": {"stabilizationWindowSeconds": -1}}}}),
                &[
                    "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero",
                ],
            ),
        ],
    );
}

#[test]
fn budgets_classes_and_roles() {
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": {"minAvailable": 1}});
    refused(
        &budget,
        &[
            (
                json!({"spec": {"minAvailable": "101%"}}),
                &["spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"],
            ),
            (
                json!({"spec": {"unhealthyPodEvictionPolicy": "No"}}),
                &[
                    "spec.unhealthyPodEvictionPolicy: Unsupported value: \"No\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
                ],
            ),
        ],
    );
    let bad =
        json!({"status": {"expectedPods": -1, "conditions": [{"type": "A", "status": "Maybe", "reason": "x y"}]}});
    assert_eq!(update_status(&budget, &bad).len(), 4);
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1});
    refused(
        &class,
        &[(
            json!({"metadata": {"name": "system-x"}}),
            &[
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class",
            ],
        )],
    );
    change_refused(
        &class,
        &[
            (json!({"value": 2}), &["value: Forbidden: may not be changed in an update."]),
            (json!({"preemptionPolicy": "Never"}), &["preemptionPolicy: Invalid value: \"Never\": field is immutable"]),
        ],
    );
    assert_eq!(
        create(&merge_patch(&role_binding(), &json!({"subjects": [{"kind": "ServiceAccount", "name": "s"}]}))),
        [""; 0]
    );
    let cluster = json!({"kind": "ClusterRoleBinding", "roleRef": {"kind": "ClusterRole"},
        "subjects": [{"kind": "ServiceAccount", "name": "s"}]});
    refused(&role_binding(), &[(cluster, &["subjects[0].namespace: Required value"])]);
    let runtime = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "h"});
    let toleration = json!({"key": "k", "operator": "Exists", "effect": "No"});
    let listed = "Unsupported value: \"No\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"";
    refused(
        &runtime,
        &[(
            json!({"scheduling": {"tolerations": [toleration, toleration]}}),
            &[
                &format!("scheduling.tolerations.tolerations[0].effect: {listed}"),
                &format!("scheduling.tolerations.tolerations[1].effect: {listed}"),
                "scheduling.tolerations[1]: Duplicate value: {\"effect\":\"No\",\"key\":\"k\",\"operator\":\"Exists\"}",
            ],
        )],
    );
    let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.a.b"},
        "spec": {"group": "a.b", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}});
    refused(
        &service,
        &[
            (
                json!({"spec": {"versionPriority": 1001}}),
                &["spec.versionPriority: Invalid value: 1001: must be positive and less than 1000"],
            ),
            (
                json!({"metadata": {"name": "v2."}, "spec": {"group": null, "version": "v2"}}),
                &["spec.group: Required value: only v1 may have an empty group and it better be legacy kube"],
            ),
        ],
    );
}

#[test]
fn names_of_updated_objects() {
    let bad = json!({"metadata": {"generateName": "A"}});
    assert_eq!(update(&ingress(), &bad).len(), 1, "ingresses are checked whole");
    assert_eq!(update(&deployment(), &bad), [""; 0]);
    let slash = json!({"metadata": {"generateName": "a/b"}});
    assert_eq!(update(&deployment(), &slash), ["metadata.generateName: Invalid value: \"a/b\": may not contain '/'"]);
    let empty = json!({"metadata": {"labels": {"a b": ""}}});
    assert_eq!(update(&deployment(), &empty).len(), 1, "an empty label is one, too");
    let finalizers = json!({"metadata": {"finalizers": ["orphan", "foregroundDeletion"]}});
    assert_eq!(
        create(&merge_patch(&deployment(), &finalizers)),
        [
            "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set"
        ]
    );
    assert_eq!(update(&deployment(), &finalizers).len(), 1);
}
