//! What upstream's own server said of the same definitions.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::at::At;
use crate::patch::merge_patch;

fn found(patch: &Value) -> Vec<String> {
    let definition = json!({"metadata": {"name": "widgets.x.io"}, "status": {"storedVersions": ["v1"]}, "spec": {
        "group": "x.io", "scope": "Cluster", "conversion": {"strategy": "None"},
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let definition = merge_patch(&definition, patch);
    let mut errors = Vec::new();
    super::definition::custom_resource_definition(&At::root(&definition), None, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn version(member: &str, value: Value) -> Value {
    let mut version = json!({"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "string"}}}}});
    version[member] = value;
    json!({"spec": {"versions": [version]}})
}

fn webhook(client: Value, reviews: Value) -> Value {
    json!({"spec": {"conversion": {"strategy": "Webhook",
        "webhook": {"clientConfig": client, "conversionReviewVersions": reviews}}}})
}

#[test]
fn definitions_are_judged_in_upstreams_words() {
    let (client, reviews) = (json!({"url": "https://x/"}), json!(["v1"]));
    let one = "[{\"Name\":\"v1\",\"Served\":true,\"Storage\":false,\"Deprecated\":false,\"DeprecationWarning\":null,\
               \"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}]";
    for (patch, expected) in [
        (json!({}), &[][..]),
        (
            json!({"spec": {"group": "y"}}),
            &[
                "metadata.name: Invalid value: \"widgets.x.io\": must be spec.names.plural+\".\"+spec.group",
                "spec.group: Invalid value: \"y\": should be a domain with at least one dot",
            ],
        ),
        (
            version("storage", json!(false)),
            &[&format!("spec.versions: Invalid value: {one}: must have exactly one version marked as storage version")],
        ),
        (version("schema", json!(null)), &["spec.versions[0].schema.openAPIV3Schema: Required value"]),
        (
            json!({"status": {"storedVersions": ["v0"]}}),
            &[
                "status.storedVersions: Invalid value: [\"v0\"]: must have the storage version v1",
                "status.storedVersions[0]: Invalid value: \"v0\": missing from spec.versions; v0 was previously a storage \
                 version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v0 \
                 and removes v0 from status.storedVersions",
            ],
        ),
        (
            version("selectableFields", json!([{"jsonPath": ".b"}])),
            &[
                "spec.selectableFields[0].jsonPath: Invalid value: \".b\": is an invalid path: does not refer to a valid field",
            ],
        ),
        (
            version("subresources", json!({"scale": {"specReplicasPath": ".spec.a"}})),
            &["spec.subresources.scale.statusReplicasPath: Required value"],
        ),
        (webhook(client.clone(), reviews.clone()), &[]),
        (
            webhook(json!(null), json!(["v1", "v1"])),
            &[
                "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
                "spec.conversion.conversionReviewVersions[1]: Invalid value: \"v1\": duplicate version",
            ],
        ),
        (
            webhook(json!({"url": "http://u:p@x/?q=r"}), reviews.clone()),
            &[
                "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; \
                 desired format: https://host[/path]",
                "spec.conversion.webhookClientConfig.url: Invalid value: \"u:p\": user information is not permitted in the URL",
                "spec.conversion.webhookClientConfig.url: Invalid value: \"q=r\": query parameters are not permitted in the URL",
            ],
        ),
        (
            webhook(json!({"service": {"name": "a", "namespace": "b", "path": "/x//y", "port": 0}}), reviews),
            &[
                "spec.conversion.webhookClientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and \
                 65535, inclusive",
                "spec.conversion.webhookClientConfig.service.path: Invalid value: \"/x//y\": segment[1] may not be empty",
            ],
        ),
        (json!({"spec": {"conversion": {"strategy": null}}}), &["spec.conversion.strategy: Required value"]),
    ] {
        assert_eq!(found(&patch), expected, "{patch}");
    }
}

#[test]
fn groups_of_kubernetes_need_approval() {
    let within = |annotation: Value| {
        json!({"metadata": {"name": "widgets.a.k8s.io", "annotations": {"api-approved.kubernetes.io": annotation}},
            "spec": {"group": "a.k8s.io"}})
    };
    let must = "protected groups must have approval annotation \"api-approved.kubernetes.io\"";
    for (annotation, expected) in [
        (json!("https://github.com/kubernetes/kubernetes/pull/1"), None),
        (json!("unapproved, a trial"), None),
        (json!(null), Some(format!("Required value: {must}, see"))),
        (json!("soon"), Some(format!("Invalid value: \"soon\": {must} with either a URL or"))),
    ] {
        let errors = found(&within(annotation.clone()));
        match expected {
            None => assert_eq!(errors, [""; 0], "{annotation}"),
            Some(text) => {
                let text = format!("metadata.annotations[api-approved.kubernetes.io]: {text}");
                assert!(errors.len() == 1 && errors[0].starts_with(&text), "{annotation}: {errors:?}");
            }
        }
    }
}

#[test]
fn schemas_are_judged_in_upstreams_words() {
    let list = |kind: &str, items: Value, keys: Value| json!({"type": "array", "x-kubernetes-list-type": kind, "items": items, "x-kubernetes-list-map-keys": keys});
    let item = |a: Value| json!({"type": "object", "required": ["a"], "properties": {"a": a}});
    for (schema, expected) in [
        (list("set", json!({"type": "array", "items": {"type": "string"}}), json!(null)), ""),
        (
            list("set", json!({"type": "string", "nullable": true}), json!(null)),
            "items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is set",
        ),
        (
            list("map", item(json!({"type": "object"})), json!(["a"])),
            "items.properties[a].type: Invalid value: \"object\": must be a scalar type if parent array's \
             x-kubernetes-list-type is map",
        ),
        (
            list("map", item(json!({"type": "string"})), json!(["a", "a"])),
            "x-kubernetes-list-map-keys: Invalid value: [\"a\",\"a\"]: must not contain duplicate entries",
        ),
        (
            list("map", item(json!({"type": "string", "nullable": true})), json!(["a"])),
            "items.properties[a].nullable: Forbidden: this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
        ),
        (
            list("set", item(json!({"type": "string"})), json!(["a"])),
            "x-kubernetes-list-type: Invalid value: \"set\": must be map if x-kubernetes-list-map-keys is non-empty",
        ),
        (
            json!({"type": "array", "items": [{"type": "string"}]}),
            "items: Forbidden: items must be a schema object and not an array",
        ),
        (json!({"$ref": "#/x"}), "$ref: Forbidden: $ref is not supported"),
        (
            json!({"type": "array", "items": {"type": "string"}, "additionalItems": false}),
            "additionalItems: Forbidden: additionalItems is not supported",
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true,
                "default": {"kind": "Pod"}}),
            "default.apiVersion: Required value",
        ),
        (
            json!({"type": "string", "maxLength": 3, "default": "b",
                "x-kubernetes-validations": [{"rule": "self == 'a'", "message": "not a"}]}),
            "default: Invalid value: \"b\": not a",
        ),
    ] {
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"p": schema}}});
        let errors = found(&version("schema", schema.clone()));
        let within =
            |error: &String| error.starts_with(&format!("spec.validation.openAPIV3Schema.properties[p].{expected}"));
        assert!(
            if expected.is_empty() { errors.is_empty() } else { errors.iter().any(within) },
            "{schema}: {errors:?}"
        );
    }
    for (schema, expected) in [
        (json!({"type": "object", "nullable": true}), "nullable: Forbidden: nullable cannot be true at the root"),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {
                "name": {"type": "string", "default": "x"}}}}}),
            "properties[metadata].properties[name].default: Forbidden: must not be set in top-level metadata",
        ),
    ] {
        let errors = found(&version("schema", json!({"openAPIV3Schema": schema})));
        assert_eq!(errors, [format!("spec.validation.openAPIV3Schema.{expected}")]);
    }
}
