#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::resource::{CustomResource, ResourceTable};

fn options(include: IncludeObject) -> TableOptions<'static> {
    TableOptions { include, no_headers: false, version: "v1", now: "2026-01-01T01:00:00Z".parse().unwrap() }
}

fn cells(group: &str, plural: &str, mut object: Value) -> Value {
    object["metadata"]["name"] = "a".into();
    object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    let table = ResourceTable::builtin();
    let resource = table.iter().find(|r| r.group == group && r.plural == plural && r.is_storage_version()).unwrap();
    let rendered = render(resource, &[&object], &json!({}), &options(IncludeObject::Metadata));
    let widths = rendered["columnDefinitions"].as_array().unwrap().len();
    assert!(rendered["rows"][0]["cells"].as_array().unwrap().len() >= widths);
    rendered["rows"][0]["cells"].clone()
}

#[test]
fn rows_show_what_people_look_for() {
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}});
    let cases = [
        (
            ("apps", "deployments"),
            json!({"spec": {"replicas": 3, "selector": {"matchLabels": {"x": "y"}}, "template": template},
                "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}}),
            json!(["a", "2/3", 3, 2, "60m", "c,d", "i,j", "x=y"]),
        ),
        (
            ("", "services"),
            json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"], "selector": {"k": "v"},
                "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000}]}}),
            json!(["a", "LoadBalancer", "10.0.0.1", "<pending>", "80:30000/TCP", "60m", "k=v"]),
        ),
        (
            ("", "nodes"),
            json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true},
                "status": {"conditions": [{"type": "Ready", "status": "True"}],
                    "nodeInfo": {"kubeletVersion": "v1", "kernelVersion": "6", "architecture": "amd64"},
                    "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}]}}),
            json!([
                "a",
                "Ready,SchedulingDisabled",
                "control-plane",
                "60m",
                "v1",
                "1.2.3.4",
                "<none>",
                "<unknown>",
                "6 (amd64)",
                "<unknown>"
            ]),
        ),
        (
            ("batch", "jobs"),
            json!({"spec": {"completions": 2, "template": template}, "status": {"succeeded": 1,
                "startTime": "2026-01-01T00:59:00Z"}}),
            json!(["a", "Running", "1/2", "60s", "60m", "c,d", "i,j", "<none>"]),
        ),
        (
            ("", "events"),
            json!({"type": "Normal", "reason": "R", "message": "m\n", "involvedObject": {"kind": "Pod", "name": "p"},
                "lastTimestamp": "2026-01-01T00:59:30Z", "firstTimestamp": "2026-01-01T00:59:00Z", "count": 4,
                "source": {"component": "kubelet", "host": "n"}}),
            json!(["30s", "Normal", "R", "pod/p", "", "kubelet, n", "m", "60s", 4, "a"]),
        ),
        (
            ("autoscaling", "horizontalpodautoscalers"),
            json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 3,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}]},
                "status": {"currentReplicas": 2}}),
            json!(["a", "Deployment/d", "cpu: <unknown>/80%", "1", 3, 2, "60m"]),
        ),
        (
            ("", "endpoints"),
            json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "fd00::1"}], "ports": [{"port": 1}, {"port": 2}]}]}),
            json!(["a", "1.1.1.1:1,[fd00::1]:1,1.1.1.1:2 + 1 more...", "60m"]),
        ),
        (("networking.k8s.io", "ipaddresses"), json!({}), json!(["a", "<none>", "60m"])),
    ];
    for ((group, plural), object, expected) in cases {
        assert_eq!(cells(group, plural, object), expected, "{plural}");
    }
}

#[test]
fn every_resource_renders_an_empty_object() {
    for resource in ResourceTable::builtin().iter() {
        let table = render(resource, &[&json!({})], &json!({"resourceVersion": "7"}), &options(IncludeObject::None));
        assert_eq!((&table["rows"][0]["object"], &table["metadata"]["resourceVersion"]), (&Value::Null, &json!("7")));
        let columns = table["columnDefinitions"].as_array().unwrap();
        assert_eq!(columns.len() > 1, resource.plural != "-");
        for column in columns {
            assert!(column["name"] != "Name" || column["format"] == "name", "{}", resource.plural);
            assert!(!column["description"].as_str().unwrap().is_empty(), "{} of {}", column["name"], resource.plural);
        }
    }
}

#[test]
fn custom_columns_follow_their_paths() {
    let column = |name: &str, kind: &str, path: &str| PrinterColumn {
        name: name.into(),
        kind: kind.into(),
        json_path: path.into(),
        ..PrinterColumn::default()
    };
    let columns = vec![
        column("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status"),
        column("Size", "integer", ".spec.size"),
        column("Since", "date", ".metadata.creationTimestamp"),
        column("None", "boolean", ".spec.size"),
    ];
    let resource = Resource::from(CustomResource { kind: "Foo".into(), columns, ..CustomResource::default() });
    let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"size": 3},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let table = render(&resource, &[&object], &json!({}), &options(IncludeObject::Object));
    assert_eq!(table["rows"][0]["cells"], json!(["a", "True", 3, "60m", null]));
    assert_eq!(table["rows"][0]["object"]["kind"], "Foo");
    let unnamed = Resource::from(CustomResource::default());
    let table = render(&unnamed, &[&object], &json!({}), &options(IncludeObject::Metadata));
    assert_eq!(table["rows"][0]["cells"], json!(["a", "60m"]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}
