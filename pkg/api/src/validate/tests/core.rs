//! The core group: pods, services, volumes, nodes and limits.

use serde_json::json;

use super::*;

fn pod(spec: Value) -> Value {
    let base = json!({"containers": [{"name": "c", "image": "i"}]});
    json!({"apiVersion": "v1", "kind": "Pod", "spec": merge_patch(&base, &spec)})
}

fn container(extra: Value) -> Value {
    json!({"spec": {"containers": [merge_patch(&json!({"name": "c", "image": "i"}), &extra)]}})
}

#[test]
fn containers_of_pods() {
    refused(
        &pod(json!({})),
        &[
            (
                container(json!({"imagePullPolicy": "Sometimes"})),
                &[
                    "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
                ],
            ),
            (
                container(json!({"volumeMounts": [{"name": "x", "mountPath": "/a", "subPath": "/b"}]})),
                &[
                    "spec.containers[0].volumeMounts[0].name: Not found: \"x\"",
                    "spec.containers[0].volumeMounts.subPath: Invalid value: \"/b\": must be a relative path",
                ],
            ),
            (
                container(
                    json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.host"}}}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.none"}}}]}),
                ),
                &[
                    "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Invalid value: \"status.none\": error converting fieldPath: field label not supported: status.none",
                ],
            ),
            (
                container(
                    json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}]}),
                ),
                &[
                    "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
                ],
            ),
            (
                container(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 60}}}})),
                &[
                    "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 60: must be non-negative and less than terminationGracePeriodSeconds (30)",
                ],
            ),
            (
                container(json!({"resources": {"limits": {"hugepages-2Mi": "3Mi", "memory": "1Gi"}}})),
                &[
                    "spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
                    "spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
                ],
            ),
            (
                container(json!({"resources": {"claims": [{"name": "gpu"}]}})),
                &[
                    "spec.containers[0].resources.claims[0]: Not found: \"gpu\": must be one of the names in pod.spec.resourceClaims which is empty",
                ],
            ),
            (
                container(json!({"restartPolicyRules": [{"action": "Restart"}]})),
                &[
                    "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
                    "spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified",
                ],
            ),
            (
                container(json!({"lifecycle": {"stopSignal": "SIGTERM"}})),
                &[
                    "spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`",
                ],
            ),
            (
                container(
                    json!({"ports": [{"containerPort": 80, "hostPort": 1}, {"containerPort": 81, "hostPort": 1}]}),
                ),
                &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//1\""],
            ),
        ],
    );
}

#[test]
fn pods_as_a_whole() {
    refused(
        &pod(json!({})),
        &[
            (
                json!({"spec": {"os": {"name": "linux"}, "securityContext": {"windowsOptions": {}}}}),
                &["spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"],
            ),
            (
                json!({"spec": {"os": {"name": "windows"}, "hostPID": true}}),
                &["spec.hostPID: Forbidden: cannot be set for a windows pod"],
            ),
            (
                json!({"spec": {"hostUsers": false, "hostIPC": true}}),
                &["spec.HostIPC: Forbidden: when `hostUsers` is false"],
            ),
            (
                json!({"spec": {"hostnameOverride": "a", "setHostnameAsFQDN": true}}),
                &["spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true"],
            ),
            (
                json!({"spec": {"hostAliases": [{"ip": "010.0.0.1"}]}}),
                &["spec.hostAliases[0].ip: Invalid value: \"010.0.0.1\": must not have leading 0s"],
            ),
            (
                json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "a", "type": "Thing"}}]}}),
                &[
                    "spec.volumes[0].hostPath.type: Unsupported value: \"Thing\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
                ],
            ),
            (
                json!({"spec": {"volumes": [{"name": "v", "image": {"pullPolicy": "Always"}}]}}),
                &["spec.volumes[0].image.reference: Required value"],
            ),
            (
                json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists", "effect": "Never"}]}}),
                &[
                    "spec.tolerations[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ],
            ),
            (
                json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "Maybe"}]}}),
                &[
                    "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                    "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Maybe\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
                ],
            ),
            (
                json!({"spec": {"resources": {"requests": {"ephemeral-storage": "1"}}}}),
                &[
                    "spec.resources.requests[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
                ],
            ),
            (
                json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "+1"}}}),
                &[
                    "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+1\": must be a 32bit integer",
                ],
            ),
            (
                json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/x": "unconfined"}}}),
                &[
                    "metadata.annotations[container.apparmor.security.beta.kubernetes.io/x]: Invalid value: \"x\": container not found",
                ],
            ),
        ],
    );
    let status = json!({"status": {"qosClass": "BestEffort", "podIPs": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.5"}], "hostIP": "1.1.1.1", "hostIPs": [{"ip": "1.1.1.2"}]}});
    let mut running = pod(json!({}));
    running["status"] = json!({"qosClass": "BestEffort"});
    assert_eq!(
        update_status(&running, &status),
        [
            "status.podIPs: Invalid value: [{\"ip\":\"1.2.3.4\"},{\"ip\":\"1.2.3.5\"}]: may specify no more than one IP for each IP family",
            "status.hostIPs[0].ip: Invalid value: \"1.1.1.2\": must be equal to `hostIP`",
        ]
    );
}

#[test]
fn services() {
    let service = |spec: Value| {
        let base =
            json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80}]});
        json!({"apiVersion": "v1", "kind": "Service", "spec": merge_patch(&base, &spec)})
    };
    refused(
        &service(json!({})),
        &[
            (json!({"spec": {"ports": []}}), &["spec.ports: Required value"]),
            (
                json!({"spec": {"externalIPs": ["127.0.0.1"], "externalTrafficPolicy": "Local"}}),
                &[
                    "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ],
            ),
            (
                json!({"spec": {"loadBalancerSourceRanges": ["10.0.0.1/8"]}}),
                &[
                    "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                    "spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length",
                ],
            ),
            (
                json!({"spec": {"ipFamilies": ["IPv6"]}}),
                &[
                    "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
                ],
            ),
            (
                json!({"spec": {"trafficDistribution": "Near"}}),
                &[
                    "spec.trafficDistribution: Unsupported value: \"Near\": supported values: \"PreferClose\", \"PreferSameZone\", \"PreferSameNode\"",
                ],
            ),
            (
                json!({"spec": {"ports": [{"port": 80, "nodePort": 30000}]}}),
                &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
        ],
    );
    let two = json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"});
    change_refused(
        &service(two),
        &[(
            json!({"spec": {"clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"]}}),
            &[
                "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the secondary clusterIP",
                "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the secondary ipFamily",
            ],
        )],
    );
    let point = json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4", "ipMode": "VIP"}]}}});
    assert_eq!(
        update_status(&service(json!({})), &point),
        ["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"]
    );
}

#[test]
fn volumes_and_claims() {
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"]}});
    refused(
        &volume,
        &[
            (json!({}), &["spec: Required value: must specify a volume type"]),
            (
                json!({"spec": {"local": {"path": "/a"}}}),
                &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
            ),
            (
                json!({"spec": {"csi": {"driver": "d", "volumeHandle": "h", "nodePublishSecretRef": {"name": "s"}}}}),
                &["spec.csi.nodePublishSecretRef.namespace: Required value"],
            ),
            (
                json!({"spec": {"gcePersistentDisk": {"pdName": "p", "partition": 256}}}),
                &["spec.persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive"],
            ),
            (
                json!({"spec": {"iscsi": {"targetPortal": "t", "iqn": "bad"}}}),
                &["spec.iscsi.iqn: Invalid value: \"bad\": must be valid format"],
            ),
            (
                json!({"spec": {"hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"}}),
                &["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"],
            ),
            (
                json!({"spec": {"hostPath": {"path": "/a"}, "accessModes": ["Often"]}}),
                &[
                    "spec.accessModes: Unsupported value: \"Often\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                ],
            ),
        ],
    );
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    refused(
        &claim,
        &[
            (
                json!({"spec": {"resources": {"requests": {"storage": "0"}}}}),
                &["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"],
            ),
            (
                json!({"spec": {"dataSource": {"kind": "Pod", "name": "p"}}}),
                &[
                    "spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
                ],
            ),
        ],
    );
}

#[test]
fn nodes_limits_and_quotas() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    refused(
        &node,
        &[
            (json!({"spec": {"taints": [{"key": "a"}]}}), &["metadata.taints[0].effect: Required value"]),
            (
                json!({"spec": {"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}}),
                &[
                    "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each IP family",
                ],
            ),
            (
                json!({"status": {"declaredFeatures": ["B", "A"]}}),
                &["status.declaredFeatures[1]: Invalid value: \"A\": list must be sorted alphabetically"],
            ),
        ],
    );
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}}]}});
    refused(
        &range,
        &[
            (
                json!({"spec": {"limits": [{"type": "Thing"}]}}),
                &["spec.limits[0].type: Invalid value: \"Thing\": must be a standard limit type or fully qualified"],
            ),
            (
                json!({"spec": {"limits": [{"type": "Pod", "min": {"cpu": "3"}, "max": {"cpu": "2"}}]}}),
                &["spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2"],
            ),
            (
                json!({"spec": {"limits": [{"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}}]}}),
                &[
                    "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
                ],
            ),
        ],
    );
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": {"pods": "1"}}});
    refused(
        &quota,
        &[
            (
                json!({"spec": {"hard": {"storage": "1"}}}),
                &["spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota"],
            ),
            (
                json!({"spec": {"hard": {"pods": "1.5"}}}),
                &["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"],
            ),
            (
                json!({"spec": {"hard": {"services": "1"}, "scopes": ["BestEffort"]}}),
                &["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
            ),
            (
                json!({"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "BestEffort", "operator": "In", "values": ["a"]}]}}}),
                &[
                    "spec.scopeSelector.matchExpressions.operator: Invalid value: \"In\": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
                ],
            ),
        ],
    );
}
