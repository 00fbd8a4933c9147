//! What admission policies do beyond the plain case.

use serde_json::{Value, json};

use super::tests::World;
use super::*;

const GROUP: &str = "admissionregistration.k8s.io";

/// Stores a policy about deployments and a binding of the same name.
async fn put(world: &World, kind: &str, name: &str, policy: Value, binding: Value) {
    let rules =
        json!([{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]}]);
    let mut spec = json!({"matchConstraints": {"resourceRules": rules}, "failurePolicy": "Fail"});
    spec.as_object_mut().unwrap().extend(policy.as_object().unwrap().clone());
    let mut bound = json!({"policyName": name, "validationActions": ["Deny"]});
    bound.as_object_mut().unwrap().extend(binding.as_object().unwrap().clone());
    world.put(GROUP, &format!("{kind}policies"), json!({"metadata": {"name": name}, "spec": spec})).await;
    world.put(GROUP, &format!("{kind}policybindings"), json!({"metadata": {"name": name}, "spec": bound})).await;
}

fn deployment(world: &World) -> Attributes {
    let container = json!({"name": "c", "args": ["a"]});
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "x"}},
        "spec": {"replicas": 3, "template": {"spec": {"containers": [container]}}}});
    world.create("apps", "deployments", object)
}

#[tokio::test]
async fn validations_fail_as_the_policy_says() {
    const DENIED: &str =
        "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: ";
    for (policy, binding, expected) in [
        (
            json!({"validations": [{"expression": "object.spec.replicas < 3"}]}),
            json!({}),
            Some((422, "failed expression: object.spec.replicas < 3")),
        ),
        (
            json!({"validations": [{"expression": "object.spec.replicas < 3", "message": "few!", "reason": "Unauthorized"}]}),
            json!({}),
            Some((401, "few!")),
        ),
        (
            json!({"validations": [{"expression": "object.spec.nothing == 1"}]}),
            json!({}),
            Some((422, "expression 'object.spec.nothing == 1' resulted in error: no such key: nothing")),
        ),
        (
            json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.spec.nothing == 1"}]}),
            json!({}),
            None,
        ),
        (
            json!({"validations": [{"expression": "nothing == 1"}]}),
            json!({}),
            Some((
                422,
                "compilation error: compilation failed: \
            ERROR: <input>:1:1: undeclared reference to 'nothing' (in container '')\n | nothing == 1\n | ^",
            )),
        ),
        (json!({"validations": [{"expression": "false"}]}), json!({"validationActions": ["Warn", "Audit"]}), None),
        (
            json!({"validations": [{"expression": "lists.range(1000000).all(x, lists.range(1000000).all(y, x + y >= 0))"}]}),
            json!({}),
            Some((
                422,
                "expression 'lists.range(1000000).all(x, lists.range(1000000).all(y, x + y >= 0))' resulted in error: \
                operation cancelled: actual cost limit exceeded",
            )),
        ),
        (
            json!({"validations": vec![json!({"expression": "lists.range(900000).size() > 0"}); 12]}),
            json!({}),
            Some((422, "validation failed due to running out of cost budget, no further validation rules will be run")),
        ),
        (
            json!({"matchConditions": [{"name": "n", "expression": "request.operation == 'DELETE'"}], "validations": [{"expression": "false"}]}),
            json!({}),
            None,
        ),
        (
            json!({"matchConditions": [{"name": "n", "expression": "object.spec.x == 1"}], "validations": [{"expression": "true"}]}),
            json!({}),
            Some((422, "expression 'object.spec.x == 1' resulted in error: no such key: x")),
        ),
        (
            json!({"auditAnnotations": [{"key": "k", "valueExpression": "object.spec.x"}]}),
            json!({}),
            Some((422, "compilation error: must evaluate to one of [string null_type] but got dyn")),
        ),
        (
            json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [{"expression": "true"}]}),
            json!({"paramRef": {"name": "none", "parameterNotFoundAction": "Deny"}}),
            Some((
                422,
                "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction",
            )),
        ),
        (
            json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [{"expression": "false"}]}),
            json!({"paramRef": {"name": "none", "parameterNotFoundAction": "Allow"}}),
            None,
        ),
        (
            json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [{"expression": "params == null"}]}),
            json!({}),
            None,
        ),
        (
            json!({"validations": [{"expression": "namespaceObject.metadata.name == 'ns' && request.userInfo.username == 'alice'"}]}),
            json!({}),
            None,
        ),
        (
            json!({"validations": [{"expression": "authorizer.group('').resource('signers').name('example.com/*').check('approve').allowed()"}]}),
            json!({}),
            None,
        ),
        (
            json!({"validations": [{"expression": "authorizer.requestResource.check('approve').allowed()"}]}),
            json!({}),
            Some((422, "failed expression: authorizer.requestResource.check('approve').allowed()")),
        ),
    ] {
        let world = World::new().await;
        put(&world, "validatingadmission", "p", policy.clone(), binding).await;
        let mut attributes = deployment(&world);
        let result = Admission::new(world.configured().plugins()).validate(&mut attributes).await;
        let found = result.err().map(|status| (status.code(), status.message().to_owned()));
        let expected = expected.map(|(code, message)| (code, format!("{DENIED}{message}")));
        assert_eq!(found, expected, "{policy}");
    }
}

#[tokio::test]
async fn bindings_warn_and_note() {
    let world = World::new().await;
    for (name, most) in [("a", "1"), ("b", "2")] {
        let map =
            json!({"metadata": {"namespace": "ns", "name": name, "labels": {"for": "p"}}, "data": {"most": most}});
        world.put("", "configmaps", map).await;
    }
    let policy = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "object.spec.replicas <= int(params.data.most)", "messageExpression": "'at most ' + params.data.most"}],
        "auditAnnotations": [{"key": "most", "valueExpression": "'' + params.data.most"}, {"key": "none", "valueExpression": "null"}]});
    let binding = json!({"validationActions": ["Warn", "Audit"],
        "paramRef": {"selector": {"matchLabels": {"for": "p"}}, "parameterNotFoundAction": "Deny"}});
    put(&world, "validatingadmission", "p", policy, binding).await;
    let mut attributes = deployment(&world);
    Admission::new(world.configured().plugins()).validate(&mut attributes).await.unwrap();
    let warning =
        |most: u32| format!("Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p': at most {most}");
    assert_eq!(attributes.warnings, [warning(1), warning(2)]);
    assert_eq!(attributes.audit_annotations["p/most"], "1, 2");
    assert!(!attributes.audit_annotations.contains_key("p/none"));
    let noted = &attributes.audit_annotations["validation.policy.admission.k8s.io/validation_failure"];
    let noted: Value = serde_json::from_str(noted).unwrap();
    assert_eq!(
        noted[0],
        json!({"message": "at most 1", "policy": "p", "binding": "p", "expressionIndex": 0,
        "validationActions": ["Warn", "Audit"]})
    );
}

#[tokio::test]
async fn mutations_change_only_what_they_may() {
    const DENIED: &str = "policy 'p' with binding 'p' denied request: ";
    let apply =
        |expression: &str| json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}});
    let patch = |expression: &str| json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}});
    for (mutation, expected) in [
        (
            apply("Object{metadata: Object.metadata{labels: {'a': 'b'}}}"),
            Ok(json!({"metadata": {"labels": {"app": "x", "a": "b"}}})),
        ),
        (
            apply(
                "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [\
            Object.spec.template.spec.containers{name: 'd', image: 'i'}]}}}}",
            ),
            Ok(
                json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "args": ["a"]}, {"name": "d", "image": "i"}]}}}}),
            ),
        ),
        (
            apply(
                "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [\
            Object.spec.template.spec.containers{name: 'c', args: ['b']}]}}}}",
            ),
            Err("error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
                 .spec.template.spec.containers[0].args"),
        ),
        (
            apply("Object{spec: Object.wrong{replicas: 1}}"),
            Err("type mismatch: unexpected type name \"Object.wrong\", expected \
             \"Object.spec\", which matches field name path from root Object type"),
        ),
        (apply("object"), Err("compilation error: must evaluate to Object but got dyn")),
        (
            patch(
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: string(variables.n)}]",
            ),
            Ok(json!({"metadata": {"labels": {"app": "x", "a/b": "4"}}})),
        ),
        (
            patch("[JSONPatch{op: 'test', path: '/spec/replicas', value: 9}, JSONPatch{op: 'remove', path: '/spec'}]"),
            Ok(json!({})),
        ),
        (
            patch("[JSONPatch{op: 'replace', path: '/spec/replicas', value: object.spec.nope}]"),
            Err(
                "expression '[JSONPatch{op: 'replace', path: '/spec/replicas', value: object.spec.nope}]' resulted in error: no such key: nope",
            ),
        ),
    ] {
        let world = World::new().await;
        let variables = json!([{"name": "n", "expression": "object.spec.replicas + 1"}]);
        let policy = json!({"variables": variables, "reinvocationPolicy": "Never", "mutations": [mutation]});
        put(&world, "mutatingadmission", "p", policy, json!({})).await;
        let mut attributes = deployment(&world);
        let before = attributes.object.clone().unwrap();
        let result = Admission::new(world.configured().plugins()).mutate(&mut attributes).await;
        match expected {
            Ok(change) => {
                result.unwrap();
                assert_eq!(attributes.object.unwrap(), kube1_api::patch::merge_patch(&before, &change), "{mutation}");
            }
            Err(why) => {
                let status = result.unwrap_err();
                assert_eq!((status.code(), status.message()), (403, format!("{DENIED}{why}").as_str()), "{mutation}");
            }
        }
    }
}
