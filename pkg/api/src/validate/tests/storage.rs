//! Classes and drivers of storage.

use serde_json::json;

use super::*;

#[test]
fn classes_of_storage() {
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "a.b/c"});
    refused(
        &class,
        &[
            (
                json!({"reclaimPolicy": "Recycle"}),
                &["reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\""],
            ),
            (
                json!({"reclaimPolicy": ""}),
                &["reclaimPolicy: Unsupported value: \"\": supported values: \"Delete\", \"Retain\""],
            ),
            (
                json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "a", "values": []}, {"key": "a", "values": ["x", "x"]}]}]}),
                &[
                    "allowedTopologies[0].matchLabelExpressions[0].values: Required value",
                    "allowedTopologies[0].matchLabelExpressions[1].values[1]: Duplicate value: \"x\"",
                    "allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"a\"",
                ],
            ),
        ],
    );
    change_refused(
        &class,
        &[
            (json!({"provisioner": "x/y"}), &["provisioner: Forbidden: updates to provisioner are forbidden."]),
            (
                json!({"allowedTopologies": [{}]}),
                &["allowedTopologies[0].matchLabelExpressions: Duplicate value: \"\""],
            ),
            (
                json!({"volumeBindingMode": "WaitForFirstConsumer"}),
                &["volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable"],
            ),
        ],
    );
    let attributes = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "driverName": "a.b"});
    refused(&attributes, &[(json!({}), &["parameters: Required value: must contain at least one key/value pair"])]);
}

#[test]
fn volumes_inside_attachments() {
    const INLINE: &str = "Forbidden: may not be specified in the context of inline volumes";
    let csi = json!({"driver": "d.example", "volumeHandle": "h"});
    let inline = json!({"accessModes": ["ReadWriteOnce"], "csi": csi});
    let source = json!({"inlineVolumeSpec": inline});
    let attachment = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "spec": {"attacher": "d.example", "nodeName": "n", "source": source}});
    let with = |part: Value| json!({"spec": {"source": {"inlineVolumeSpec": part}}});
    refused(
        &attachment,
        &[
            (json!({}), &[]),
            (
                with(json!({"capacity": {"storage": "1"}})),
                &[&format!("spec.source.inlineVolumeSpec.capacity: {INLINE}")],
            ),
            (
                with(json!({"csi": null, "storageClassName": "a"})),
                &[
                    "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
                    "spec.source.inlineVolumeSpec: Required value: must specify a volume type",
                    &format!("spec.source.inlineVolumeSpec.storageClassName: {INLINE}"),
                ],
            ),
            (
                with(json!({"volumeMode": "Block", "persistentVolumeReclaimPolicy": "Delete", "nodeAffinity": {}})),
                &[
                    "spec.source.inlineVolumeSpec.persistentVolumeReclaimPolicy: Forbidden: may only be Retain in the context of inline volumes",
                    &format!("spec.source.inlineVolumeSpec.nodeAffinity: {INLINE}"),
                    "spec.source.inlineVolumeSpec.volumeMode: Forbidden: may not specify volumeMode other than Filesystem in the context of inline volumes",
                ],
            ),
        ],
    );
}

#[test]
fn drivers() {
    let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "spec": {}});
    let supported = "supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"";
    refused(
        &driver,
        &[
            (
                json!({"spec": {"fsGroupPolicy": "Some", "volumeLifecycleModes": ["Some"]}}),
                &[
                    &format!("spec.fsGroupPolicy: Unsupported value: \"Some\": {supported}"),
                    "spec.volumeLifecycleModes: Unsupported value: \"Some\": supported values: \"Persistent\", \"Ephemeral\"",
                ],
            ),
            (
                json!({"spec": {"tokenRequests": [{"audience": "a", "expirationSeconds": 5}, {"audience": "a"}]}}),
                &[
                    "spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
                    "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
                ],
            ),
        ],
    );
    change_refused(
        &driver,
        &[(
            json!({"spec": {"attachRequired": false}}),
            &["spec.attachedRequired: Invalid value: false: field is immutable"],
        )],
    );
    let node = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
        "spec": {"drivers": [{"name": "a.b", "nodeID": "i", "topologyKeys": ["k"]}]}});
    let count = json!({"spec": {"drivers": [{"name": "a.b", "nodeID": "i", "topologyKeys": ["k"], "allocatable": {"count": 3}}]}});
    assert_eq!(update(&node, &count), [""; 0], "what a node can attach may change");
    let moved = json!({"spec": {"drivers": [{"name": "a.b", "nodeID": "other", "topologyKeys": ["k"]}]}});
    assert!(update(&node, &moved)[0].starts_with("spec.drivers: Invalid value: "));
    let attachment = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "spec": {"attacher": "a.b",
        "nodeName": "n", "source": {"persistentVolumeName": "p"}}});
    refused(
        &attachment,
        &[(
            json!({"spec": {"source": {"inlineVolumeSpec": {}}}}),
            &["spec.source: Forbidden: must specify exactly one of inlineVolumeSpec and persistentVolumeName"],
        )],
    );
    let failed = json!({"status": {"attached": false, "attachError": {"errorCode": -1}}});
    assert_eq!(
        update_status(&attachment, &failed),
        ["status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive"]
    );
}
