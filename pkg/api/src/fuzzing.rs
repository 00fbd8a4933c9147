//! What hostile input is tried on: each function must survive any bytes. Used by tests and by the targets in `fuzz/`.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use crate::apply;
use crate::cel::{Env, Type};
use crate::codec::{
    self, FieldValidation, decode_json, decode_yaml, encode_canonical, parse_json, parse_yaml, protobuf,
};
use crate::custom::CustomSchema;
use crate::default::apply_defaults;
use crate::expression::{Bindings, Expression};
use crate::field::FieldPath;
use crate::patch;
use crate::quantity::Quantity;
use crate::resource::{CustomResource, Resource, ResourceTable};
use crate::schema;
use crate::selector::{FieldSelector, LabelSelector};
use crate::table;
use crate::validate::{validate_create, validate_update};

static TABLE: LazyLock<ResourceTable> = LazyLock::new(ResourceTable::builtin);

fn row(group: &str, plural: &str) -> Arc<Resource> {
    TABLE.stored(group, plural).expect("a built-in resource")
}

fn rows() -> [Arc<Resource>; 5] {
    [
        row("", "pods"),
        row("apps", "deployments"),
        row("resource.k8s.io", "resourceslices"),
        row("apiextensions.k8s.io", "customresourcedefinitions"),
        custom_row(),
    ]
}

/// A custom resource of which any part may be there.
fn custom_row() -> Arc<Resource> {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"list": {"type": "array", "items": {"type": "object", "required": ["name"], "properties":
            {"name": {"type": "string", "maxLength": 10}, "size": {"type": "integer", "default": 3, "minimum": 1}}},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}}}}});
    let compiled = CustomSchema::compile(&schema, &FieldPath::new("schema"));
    let mut row = Resource::from(CustomResource {
        group: "g.io".into(),
        version: "v1".into(),
        plural: "foos".into(),
        kind: "Foo".into(),
        list_kind: "FooList".into(),
        namespaced: true,
        schema: Some(Arc::new(schema)),
        ..CustomResource::default()
    });
    row.custom_schema = compiled.ok().map(Arc::new);
    Arc::new(row)
}

/// What becomes of an object that was decoded: all of the pure part of a creation, and every form of the answer.
fn pass_through(row: &Resource, mut object: Value) {
    apply_defaults(row, &mut object);
    let _ = validate_create(row, &object);
    let _ = validate_update(row, &object, &object, "");
    let _ = table::render(row, &[&object], &json!({}), &table::TableOptions::default());
    let _ = apply::apply(row, Some(&object), &object, "m", true, "", "2026-01-01T00:00:00Z");
    let stored = encode_canonical(&object);
    let read: Value = serde_json::from_slice(&stored).expect("what is stored can be read");
    assert_eq!(read.as_object().map(serde_json::Map::len), object.as_object().map(serde_json::Map::len));
    let _ = protobuf::encode_object(&object);
    let _ = codec::encode_yaml(&object);
}

pub fn json(data: &[u8]) {
    let _ = parse_json(data);
    for row in rows() {
        for validation in [FieldValidation::Warn, FieldValidation::Strict] {
            if let Ok(decoded) = decode_json(&row, data, validation) {
                pass_through(&row, decoded.value);
            }
        }
    }
}

pub fn yaml(data: &[u8]) {
    let _ = parse_yaml(data);
    let pods = row("", "pods");
    if let Ok(decoded) = decode_yaml(&pods, data, FieldValidation::Warn) {
        pass_through(&pods, decoded.value);
    }
    let _ = decode_yaml(&pods, data, FieldValidation::Strict);
}

pub fn protobuf(data: &[u8]) {
    let pod = schema::find("io.k8s.api.core.v1.Pod").expect("pods are known");
    for ty in [Some(pod), schema::find("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")] {
        if let Some(value) = ty.and_then(|ty| protobuf::decode(ty, data).ok()) {
            let _ = protobuf::encode(pod, "v1", "Pod", &value);
        }
    }
    let enveloped = [protobuf::MAGIC, data].concat();
    for bytes in [data, &enveloped[..]] {
        let Ok(decoded) = protobuf::decode_object(bytes) else { continue };
        let _ = protobuf::encode_object(&decoded.value);
        for row in rows().iter().filter(|r| r.kind == decoded.kind && r.api_version() == decoded.api_version) {
            if let Ok(checked) = codec::check_value(row, decoded.value.clone(), FieldValidation::Ignore) {
                pass_through(row, checked.value);
            }
        }
    }
}

/// The object that patches are applied to.
fn patched() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "1"}, "finalizers": ["x/a"]},
        "spec": {"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}],
            "ports": [{"containerPort": 80, "protocol": "TCP"}]}], "tolerations": [{"key": "k"}],
            "volumes": [{"name": "v", "emptyDir": {}}]}})
}

/// Every kind of patch; what comes out goes the way of a changed object.
pub fn patch(data: &[u8]) {
    let Ok((patch, _)) = parse_json(data) else { return };
    let (pods, foos, object) = (row("", "pods"), custom_row(), patched());
    if let Ok(patched) = patch::json_patch(&object, &patch) {
        serde_json::from_slice::<Value>(&encode_canonical(&patched)).expect("what was patched can be read again");
    }
    let results = [
        patch::json_patch(&object, &patch).map_err(Into::into),
        Ok(patch::merge_patch(&object, &patch)),
        patch::strategic_merge_patch(pods.shape(), &object, &patch),
        apply::apply(&pods, Some(&object), &patch, "m", true, "", "2026-01-01T00:00:00Z"),
    ];
    for value in results.into_iter().flatten() {
        for row in [&pods, &foos] {
            let mut value = value.clone();
            if let Some(members) = value.as_object_mut() {
                members.insert("apiVersion".into(), row.api_version().into());
                members.insert("kind".into(), row.kind.as_str().into());
            }
            if let Ok(checked) = codec::check_value(row, value, FieldValidation::Warn) {
                let mut new = checked.value;
                apply::track_update(row, Some(&object), &mut new, "m", "", "2026-01-01T00:00:00Z");
                pass_through(row, new);
            }
        }
    }
    let _ = apply::apply(&foos, None, &patch, "m", true, "", "2026-01-01T00:00:00Z");
}

/// managedFields that a client sends.
pub fn managed_fields(data: &[u8]) {
    let Ok((fields, _)) = parse_json(data) else { return };
    let (pods, mut object) = (row("", "pods"), patched());
    object["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Apply", "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
    let config = patched();
    let _ = apply::apply(&pods, Some(&object), &config, "m", false, "", "2026-01-02T00:00:00Z");
    object["metadata"]["managedFields"] = fields;
    let mut new = object.clone();
    apply::track_update(&pods, Some(&object), &mut new, "other", "", "2026-01-02T00:00:00Z");
    let _ = apply::apply(&pods, Some(&new), &config, "m", true, "", "2026-01-02T00:00:00Z");
}

pub fn selectors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        selector.matches(|key| (key == "a").then_some("1"));
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        selector.matches(str::to_owned);
    }
    if let Ok((value, _)) = parse_json(data) {
        let _ = LabelSelector::from_value(&value);
    }
    let _ = table::jsonpath::first(text, &patched());
}

pub fn quantities(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(quantity) = Quantity::parse(text) else { return };
    let shown = quantity.to_string();
    let again = Quantity::parse(&shown).expect("what is shown can be read");
    assert_eq!(again.partial_cmp(&quantity), Some(std::cmp::Ordering::Equal), "{text} {shown}");
    assert_eq!(again.to_string(), shown, "{text}");
    let sum = quantity.plus(again).minus(quantity);
    let _ = (sum.millis(), sum.units(), sum.rounded_to_millis().to_string());
}

pub fn expressions(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(expression) = Expression::compile(text, &Env::admission(Type::Dyn).with_authorizer().patching()) {
        let mut bindings = Bindings::new();
        bindings.set("object", patched());
        let _ = expression.evaluate(&bindings);
    }
}

/// A schema of a definition, and an object against it.
pub fn structural(data: &[u8]) {
    let Ok((schema, _)) = parse_json(data) else { return };
    let Ok(compiled) = CustomSchema::compile(&schema, &FieldPath::new("schema")) else { return };
    for mut object in [patched(), schema] {
        compiled.admit(&mut object);
        let _ = compiled.validate(&object, Some(&object));
    }
}

#[cfg(test)]
mod tests {
    use kube1_mutate::{PER_BYTE, Target, run};

    const POD: &[u8] = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"b":"c"},"creationTimestamp":"2026-01-02T03:04:05Z","deletionGracePeriodSeconds":3},"spec":{"containers":[{"name":"c","image":"i:1","resources":{"limits":{"cpu":"100m","memory":1}},"ports":[{"containerPort":80}],"livenessProbe":{"httpGet":{"port":"web"}}}],"tolerations":[{"operator":"Exists"}],"x":1}}"#;
    const FOO: &[u8] = br#"{"apiVersion":"g.io/v1","kind":"Foo","metadata":{"name":"a"},"spec":{"list":[{"name":"x"},{"name":"y","size":2}],"any":{"thing":[1,2.5,null]}}}"#;
    const DEFINITION: &[u8] = br#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"foos.g.io"},"spec":{"group":"g.io","names":{"plural":"foos","kind":"Foo"},"scope":"Namespaced","versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","x-kubernetes-validations":[{"rule":"self.a > 1"}]}}}}}]}}"#;
    const SCHEMA: &[u8] = br#"{"type":"object","required":["spec"],"properties":{"spec":{"type":"object","default":{},"properties":{"a":{"type":"integer","minimum":1,"default":2},"s":{"type":"string","pattern":"^a+$","format":"date-time","enum":["x"]},"l":{"type":"array","maxItems":5,"uniqueItems":false,"items":{"anyOf":[{"type":"string"}],"x-kubernetes-int-or-string":true},"x-kubernetes-list-type":"set"}},"additionalProperties":false,"x-kubernetes-validations":[{"rule":"self.a > 1 && self.s.matches('^a')","message":"m"}]}}}"#;
    const JSON_WORDS: &[&str] = &[
        "\"metadata\"",
        "\"spec\"",
        "\"name\":",
        "\"$patch\":\"delete\"",
        "\"$patch\":\"replace\"",
        "\"$retainKeys\":[\"a\"]",
        "\"$setElementOrder/containers\":[{\"name\":\"c\"}]",
        "\"$deleteFromPrimitiveList/finalizers\":[\"x/a\"]",
        "\"op\":\"copy\"",
        "\"from\":\"\"",
        "\"path\":\"/spec/containers/-\"",
        "\"f:spec\":{}",
        "\"k:{\\\"name\\\":\\\"c\\\"}\":{}",
        "\"v:1\":{}",
        "\".\":{}",
        "\"type\":\"object\"",
        "\"properties\":{\"a\":",
        "\"x-kubernetes-preserve-unknown-fields\":true",
        "\"items\":",
        "\"default\":",
    ];

    #[test]
    fn json_survives() {
        run(&[Target {
            name: "json",
            run: super::json,
            seeds: &[POD, FOO, DEFINITION],
            words: JSON_WORDS,
            per_byte: PER_BYTE,
        }]);
    }

    #[test]
    fn yaml_survives() {
        const YAML: &[u8] = b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: &n a\n  labels: {<<: *n, \"b\": 'c'}\nspec:\n  containers:\n  - name: c\n    args: [1, ~, 0x10, .inf, 1_0, yes]\n    command:\n    - |\n      text\n    - >-\n      folded\n";
        const BOMB: &[u8] = b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
        let words = &[
            "&a",
            "*a",
            "<<: *n",
            "!!binary",
            "!!float",
            "? ",
            "- ",
            ": ",
            "|\n",
            ">\n",
            "%YAML 1.1\n",
            "...\n",
            "{",
            "[",
            "]",
            "}",
        ];
        run(&[Target { name: "yaml", run: super::yaml, seeds: &[YAML, BOMB, POD], words, per_byte: PER_BYTE }]);
    }

    #[test]
    fn protobuf_survives() {
        let pod: serde_json::Value = serde_json::from_slice(POD).unwrap_or_default();
        let definition: serde_json::Value = serde_json::from_slice(DEFINITION).unwrap_or_default();
        let encode = |value| super::protobuf::encode_object(value).unwrap_or_default().leak() as &'static [u8];
        let seeds: &'static [&'static [u8]] = vec![encode(&pod), encode(&definition), b"\x0a\x02\x08\x01"].leak();
        run(&[Target {
            name: "protobuf",
            run: super::protobuf,
            seeds,
            words: &["k8s\0", "application/json", "Pod", "v1"],
            per_byte: PER_BYTE,
        }]);
    }

    #[test]
    fn patches_survive() {
        const SEEDS: &[&[u8]] = &[
            br#"[{"op":"add","path":"/metadata/labels/x","value":"y"},{"op":"copy","from":"/spec","path":"/spec/a"},{"op":"move","from":"/metadata/labels","path":"/spec/l"},{"op":"test","path":"/kind","value":"Pod"},{"op":"remove","path":"/spec/containers/0"}]"#,
            br#"{"metadata":{"labels":{"a":null,"$patch":"replace"}},"spec":{"$setElementOrder/containers":[{"name":"d"},{"name":"c"}],"containers":[{"name":"c","env":[{"name":"A","$patch":"delete"}],"ports":[{"containerPort":80,"hostPort":1}]},{"name":"d"}],"$retainKeys":["containers"],"tolerations":[{"$patch":"replace"}]}}"#,
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","finalizers":["x/b"],"$deleteFromPrimitiveList/finalizers":["x/a"]},"spec":{"containers":[{"name":"c","image":"j","ports":[{"containerPort":80,"protocol":"UDP"}]}]}}"#,
        ];
        run(&[Target { name: "patch", run: super::patch, seeds: SEEDS, words: JSON_WORDS, per_byte: PER_BYTE }]);
    }

    #[test]
    fn managed_fields_survive() {
        const SEEDS: &[&[u8]] = &[
            br#"{"f:metadata":{"f:labels":{".":{},"f:a":{}},"f:finalizers":{"v:\"x/a\"":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{}}}},"f:tolerations":{}}}"#,
            br#"[{"manager":"a","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:x":{}}},"subresource":"status"},{}]"#,
        ];
        run(&[Target {
            name: "managedFields",
            run: super::managed_fields,
            seeds: SEEDS,
            words: JSON_WORDS,
            per_byte: PER_BYTE,
        }]);
    }

    #[test]
    fn selectors_and_quantities_survive() {
        const SELECTORS: &[&[u8]] = &[
            b"a=b,c!=d,e in (f, g),h notin (i),!j,k,l>1,m<2",
            b"metadata.name=a\\,b,spec.nodeName!=c==d",
            b".status.conditions[?(@.type==\"Ready\")].status['a'][*]..b",
            br#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]}"#,
        ];
        const QUANTITIES: &[&[u8]] = &[
            b"1",
            b"100m",
            b"1.5Gi",
            b"-3e10",
            b"0.000000001",
            b"9223372036854775807Ei",
            b"170141183460469231731687303715884105727",
        ];
        let words = &[" in (", ")", "!=", "notin", "[?(", "@.", "Ki", "e-9", "E", "n"];
        run(&[
            Target { name: "selectors", run: super::selectors, seeds: SELECTORS, words, per_byte: PER_BYTE },
            Target { name: "quantities", run: super::quantities, seeds: QUANTITIES, words, per_byte: PER_BYTE },
        ]);
    }

    #[test]
    fn expressions_survive() {
        const SEEDS: &[&[u8]] = &[
            b"object.spec.containers.all(c, c.image.startsWith('a') || has(c.env)) ? 'x' : \"y\" + string(1.5)",
            b"[1, 2u, {'a': b'c'}][0] in [3] && !(a.b[?0].orValue(-4) >= 5) && quantity('1Gi').isGreaterThan(quantity('1'))",
            b"Object{spec: Object.spec{replicas: 1, ?x: optional.none()}}",
        ];
        let words = &[
            "has(",
            ".map(x, ",
            ".exists(",
            "cel.bind(a, ",
            "?",
            "||",
            "&&",
            "'''",
            "r'",
            "in",
            "[",
            "]",
            "{",
            "}",
            "url('",
            ".find('(a+)+')",
            "9223372036854775808",
            "duration('1h')",
        ];
        run(&[Target { name: "expressions", run: super::expressions, seeds: SEEDS, words, per_byte: 1500 }]);
    }

    #[test]
    fn schemas_survive() {
        run(&[Target {
            name: "structural",
            run: super::structural,
            seeds: &[SCHEMA],
            words: JSON_WORDS,
            per_byte: PER_BYTE,
        }]);
    }
}
