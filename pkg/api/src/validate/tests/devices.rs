//! Claims for devices and slices of them.

use serde_json::json;

use super::*;

#[test]
fn claims() {
    let request = json!({"name": "r", "exactly": {"deviceClassName": "c"}});
    let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "spec": {"devices": {"requests": [request]}}});
    assert_eq!(create(&claim), [""; 0]);
    let requests = |requests: Value| json!({"spec": {"devices": {"requests": requests}}});
    let place = "spec.devices.requests[0]";
    refused(
        &claim,
        &[
            (
                requests(json!([{"name": "r"}])),
                &[&format!("{place}: Required value: exactly one of `exactly` or `firstAvailable` is required")],
            ),
            (requests(json!([request, request])), &["spec.devices.requests[1]: Duplicate value: \"r\""]),
            (
                requests(
                    json!([{"name": "r", "exactly": {"deviceClassName": "c", "allocationMode": "All", "count": 2}}]),
                ),
                &[&format!(
                    "{place}.exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'"
                )],
            ),
            (
                requests(
                    json!([{"name": "r", "exactly": {"deviceClassName": "c", "tolerations": [{"operator": "Exists", "value": "v"}]}}]),
                ),
                &[&format!(
                    "{place}.exactly.tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`"
                )],
            ),
            (
                json!({"spec": {"devices": {"constraints": [{"requests": ["other"], "matchAttribute": "a"}]}}}),
                &[
                    "spec.devices.constraints[0].requests[0]: Invalid value: \"other\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
                    "spec.devices.constraints[0].matchAttribute: Invalid value: \"a\": a fully qualified name must be a domain and a name separated by a slash",
                ],
            ),
            (
                json!({"spec": {"devices": {"config": [{"opaque": {"driver": "d.e", "parameters": 5}}]}}}),
                &[
                    "spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
                ],
            ),
        ],
    );
    assert!(update(&claim, &requests(json!([])))[0].ends_with("field is immutable"));
    let result = json!({"request": "r", "driver": "d.e", "pool": "p", "device": "v"});
    let allocation = json!({"devices": {"results": [result]}});
    assert_eq!(update_status(&claim, &json!({"status": {"allocation": allocation}})), [""; 0]);
    let wrong =
        json!({"status": {"allocation": allocation, "devices": [{"driver": "d.e", "pool": "p", "device": "w"}]}});
    assert_eq!(
        update_status(&claim, &wrong),
        [
            "status.devices[0]: Invalid value: {\"Device\":\"w\",\"Driver\":\"d.e\",\"Pool\":\"p\"}: must be an allocated device in the claim"
        ]
    );
    let unallocated = json!({"status": {"reservedFor": [{"resource": "pods", "name": "p"}]}});
    assert_eq!(
        update_status(&claim, &unallocated),
        [
            "status.reservedFor[0].uid: Required value",
            "status.reservedFor: Forbidden: may not be specified when `allocated` is not set"
        ]
    );
}

#[test]
fn slices() {
    let slice = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "spec": {"driver": "d.e", "nodeName": "n",
        "pool": {"name": "p", "resourceSliceCount": 1, "generation": 1}, "devices": [{"name": "v"}]}});
    assert_eq!(create(&slice), [""; 0]);
    let device = |device: Value| json!({"spec": {"devices": [device]}});
    refused(
        &slice,
        &[
            (
                json!({"spec": {"nodeName": null}}),
                &[
                    "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
                ],
            ),
            (
                json!({"spec": {"allNodes": true}}),
                &[
                    "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
                ],
            ),
            (
                json!({"spec": {"sharedCounters": [{"name": "c", "counters": {"a": {"value": "1"}}}]}}),
                &["spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed"],
            ),
            (
                device(json!({"name": "v", "attributes": {"a": {"version": "1"}, "b": {}}})),
                &[
                    "spec.devices[0].attributes[a].version: Invalid value: \"1\": must be a string compatible with semver.org spec 2.0.0",
                    "spec.devices[0].attributes[b]: Invalid value: \"\": exactly one value must be specified",
                ],
            ),
            (
                device(json!({"name": "v", "capacity": {"m": {"value": "4", "requestPolicy": {"default": "1"}}}})),
                &["spec.devices[0].capacity[m].requestPolicy: Forbidden: allowMultipleAllocations must be true"],
            ),
            (
                device(json!({"name": "v", "allowMultipleAllocations": true, "capacity": {"m": {"value": "4",
                    "requestPolicy": {"default": "3", "validRange": {"min": "1", "step": "4", "max": "5"}}}}})),
                &[
                    "spec.devices[0].capacity[m].requestPolicy.validRange.max: Invalid value: \"5\": max is larger than capacity value: 4",
                    "spec.devices[0].capacity[m].requestPolicy.validRange.step: Invalid value: \"4\": one step 5 is larger than capacity value: 4",
                    "spec.devices[0].capacity[m].requestPolicy.validRange.step: Invalid value: \"3\": value is not a multiple of a given step (4) from (1)",
                ],
            ),
            (
                device(json!({"name": "v", "bindingConditions": ["a"]})),
                &[
                    "spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions",
                ],
            ),
            (
                device(json!({"name": "v", "allNodes": true})),
                &[
                    "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
                ],
            ),
        ],
    );
}
