#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::apply_defaults;
use crate::resource::ResourceTable;

/// The object after defaulting, which must not change it again.
fn defaulted(group: &str, plural: &str, mut object: Value) -> Value {
    let table = ResourceTable::builtin();
    let resource = table.iter().find(|r| r.group == group && r.plural == plural && r.is_storage_version()).unwrap();
    apply_defaults(resource, &mut object);
    let once = object.clone();
    apply_defaults(resource, &mut object);
    assert_eq!(object, once, "defaulting twice");
    object
}

/// Everything in `expected` must be in `actual`.
fn assert_includes(actual: &Value, expected: &Value, path: &str) {
    match (actual, expected) {
        (Value::Object(members), Value::Object(wanted)) => {
            for (key, value) in wanted {
                assert_includes(members.get(key).unwrap_or(&Value::Null), value, &format!("{path}.{key}"));
            }
        }
        (Value::Array(items), Value::Array(wanted)) => {
            assert_eq!(items.len(), wanted.len(), "{path}: {actual}");
            for (index, value) in wanted.iter().enumerate() {
                assert_includes(&items[index], value, &format!("{path}[{index}]"));
            }
        }
        _ => assert_eq!(actual, expected, "{path}"),
    }
}

/// Rules of the table that need no code here: what they set is left out again by the normal form.
const WITHOUT_EFFECT: [&str; 2] = ["ConfigMap", "PodLogOptions"];

#[test]
fn every_named_rule_is_known() {
    let types: Vec<super::TypeRules> = serde_json::from_str(include_str!("../data/defaults.json")).unwrap();
    for (path, rule) in types.iter().flat_map(|ty| &ty.rules) {
        if let super::RuleText::Named(name) = rule {
            assert!(super::rule::find(name).is_some() != WITHOUT_EFFECT.contains(name), "{name} at {path}");
        }
    }
}

#[test]
fn an_empty_text_is_a_value_where_there_is_a_pointer_to_it() {
    for (group, plural, object, pointer, expected) in [
        ("", "persistentvolumes", json!({"spec": {"volumeMode": ""}}), "/spec/volumeMode", json!("")),
        ("", "pods", json!({"spec": {"restartPolicy": ""}}), "/spec/restartPolicy", json!("Always")),
        ("storage.k8s.io", "storageclasses", json!({"reclaimPolicy": ""}), "/reclaimPolicy", json!("")),
        ("batch", "jobs", json!({"spec": {"podReplacementPolicy": ""}}), "/spec/podReplacementPolicy", json!("")),
        (
            "networking.k8s.io",
            "networkpolicies",
            json!({"spec": {"ingress": [{"ports": [{"protocol": ""}, {}]}]}}),
            "/spec/ingress/0/ports",
            json!([{"protocol": ""}, {"protocol": "TCP"}]),
        ),
        (
            "autoscaling",
            "horizontalpodautoscalers",
            json!({"apiVersion": "autoscaling/v2", "spec": {"behavior": {"scaleUp": {"policies": []}}}}),
            "/spec/behavior/scaleUp/policies",
            json!([]),
        ),
    ] {
        assert_eq!(defaulted(group, plural, object).pointer(pointer), Some(&expected), "{pointer}");
    }
}

macro_rules! facts {
    ($($name:ident: $group:literal $plural:literal $object:tt => $expected:tt;)*) => {$(
        #[test]
        fn $name() {
            assert_includes(&defaulted($group, $plural, json!($object)), &json!($expected), stringify!($name));
        }
    )*};
}

facts! {
    pods: "" "pods" {"spec": {"serviceAccountName": "sa", "containers": [{
            "name": "c", "image": "repo:5000/a/b", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "100u", "memory": "1Gi"}},
            "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "readinessProbe": {"httpGet": {"port": 80}}}],
        "volumes": [{"name": "a"}, {"name": "b", "secret": {"secretName": "s"}}, {"name": "c", "hostPath": {"path": "/"}},
            {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}}
        => {"spec": {"serviceAccount": "sa", "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
            "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler", "enableServiceLinks": true,
            "containers": [{"imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File", "ports": [{"containerPort": 80, "protocol": "TCP", "hostPort": null}],
                "resources": {"requests": {"cpu": "1m", "memory": "1Gi"}},
                "env": [{"valueFrom": {"fieldRef": {"apiVersion": "v1"}}}],
                "readinessProbe": {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
                    "httpGet": {"path": "/", "scheme": "HTTP"}}}],
            "volumes": [{"emptyDir": {}}, {"emptyDir": null, "secret": {"defaultMode": 420}}, {"hostPath": {"type": ""}},
                {"projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"expirationSeconds": 3600}}]}}]},
            "status": {}};
    host_network_pods: "" "pods" {"spec": {"hostNetwork": true, "containers": [
            {"name": "c", "image": "a:v1", "ports": [{"containerPort": 80}]}]}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}}
        => {"spec": {"containers": [{"imagePullPolicy": "IfNotPresent", "ports": [{"hostPort": 80}]}]},
            "status": {"podIP": "10.0.0.1"}};
    deployments: "apps" "deployments" {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "a@sha256:0"}]}}}}
        => {"spec": {"replicas": 1, "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
            "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, "template": {"spec": {"enableServiceLinks": null,
                "dnsPolicy": "ClusterFirst", "containers": [{"imagePullPolicy": "IfNotPresent", "resources": {}}]}}}};
    recreated_deployments: "apps" "deployments" {"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}}
        => {"spec": {"replicas": 0, "strategy": {"type": "Recreate", "rollingUpdate": null}}};
    stateful_sets: "apps" "statefulsets" {"spec": {"volumeClaimTemplates": [{"metadata": {"name": "d"}}]}}
        => {"spec": {"podManagementPolicy": "OrderedReady", "replicas": 1,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "volumeClaimTemplates": [{"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}]}};
    daemon_sets: "apps" "daemonsets" {"spec": {}}
        => {"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}},
            "status": {"numberReady": 0, "desiredNumberScheduled": 0}};
    services: "" "services" {"spec": {"sessionAffinity": "ClientIP", "type": "NodePort",
            "ports": [{"port": 80}, {"port": 81, "targetPort": "http"}]}}
        => {"spec": {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}, "externalTrafficPolicy": "Cluster",
            "internalTrafficPolicy": "Cluster", "ports": [{"protocol": "TCP", "targetPort": 80}, {"targetPort": "http"}]},
            "status": {"loadBalancer": {}}};
    jobs: "batch" "jobs" {"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}
        => {"metadata": {"labels": {"a": "b"}}, "spec": {"completions": 1, "parallelism": 1, "backoffLimit": 6,
            "completionMode": "NonIndexed", "suspend": false, "manualSelector": false,
            "podReplacementPolicy": "TerminatingOrFailed"}};
    work_queue_jobs: "batch" "jobs" {"spec": {"parallelism": 3, "backoffLimitPerIndex": 1, "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}}}
        => {"spec": {"completions": null, "parallelism": 3, "backoffLimit": 2147483647, "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": [{"onPodConditions": [{"status": "True"}]}]}}};
    cron_jobs: "batch" "cronjobs" {"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}}}
        => {"spec": {"concurrencyPolicy": "Allow", "suspend": false, "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 1, "jobTemplate": {"spec": {"backoffLimit": null, "template": {"spec": {
                "containers": [{"terminationMessagePolicy": "File"}]}}}}}};
    claims: "" "persistentvolumeclaims" {"spec": {"resources": {"requests": {"storage": "1024Ki"}}}}
        => {"spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}};
    autoscalers: "autoscaling" "horizontalpodautoscalers" {"apiVersion": "autoscaling/v2", "spec": {"behavior": {"scaleDown": {}}}}
        => {"spec": {"minReplicas": 1, "metrics": [{"resource": {"name": "cpu", "target": {"averageUtilization": 80}}}],
            "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods"}, {"type": "Percent"}]},
                "scaleDown": {"selectPolicy": "Max", "stabilizationWindowSeconds": null}}}};
    network_policies: "networking.k8s.io" "networkpolicies" {"spec": {"egress": [{"ports": [{"port": 53}]}]}}
        => {"spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [{"ports": [{"protocol": "TCP"}]}]}};
    role_bindings: "rbac.authorization.k8s.io" "rolebindings" {"roleRef": {"kind": "Role", "name": "r"}, "subjects": [
            {"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]}
        => {"roleRef": {"apiGroup": "rbac.authorization.k8s.io"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io"}, {"apiGroup": null}]};
    secrets: "" "secrets" {"data": {"a": "AA=="}, "stringData": {"a": "x", "b": ""}}
        => {"type": "Opaque", "data": {"a": "eA==", "b": ""}, "stringData": null};
    definitions: "apiextensions.k8s.io" "customresourcedefinitions" {"spec": {"names": {"kind": "Foo", "plural": "foos"},
            "versions": [{"name": "v1", "served": true, "storage": true}]}}
        => {"spec": {"names": {"singular": "foo", "listKind": "FooList"}, "conversion": {"strategy": "None"}},
            "status": {"storedVersions": ["v1"]}};
    nodes: "" "nodes" {"spec": {"podCIDRs": ["10.42.0.0/24"]}, "status": {"capacity": {"cpu": "4"}}}
        => {"spec": {"podCIDR": "10.42.0.0/24"}, "status": {"allocatable": {"cpu": "4"}}};
    namespaces: "" "namespaces" {"metadata": {"name": "a"}}
        => {"metadata": {"labels": {"kubernetes.io/metadata.name": "a"}}, "status": {"phase": "Active"}};
    webhooks: "admissionregistration.k8s.io" "validatingwebhookconfigurations" {"webhooks": [{"rules": [{"operations": ["*"]}],
            "clientConfig": {"service": {"name": "s", "namespace": "n"}}}]}
        => {"webhooks": [{"failurePolicy": "Fail", "timeoutSeconds": 10, "namespaceSelector": {},
            "rules": [{"scope": "*"}], "clientConfig": {"service": {"port": 443}}}]};
}
