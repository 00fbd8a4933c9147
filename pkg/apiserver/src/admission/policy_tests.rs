//! What admission policies do beyond the plain case.

use kube1_api::default::apply_defaults;
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
        let result =
            Admission::new(world.configured().plugins(&PluginConfig::default())).validate(&mut attributes).await;
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
    Admission::new(world.configured().plugins(&PluginConfig::default())).validate(&mut attributes).await.unwrap();
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
        (apply("object"), Err("must evaluate to Object but got dyn")),
        (
            patch(
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: string(variables.n)}]",
            ),
            Ok(json!({"metadata": {"labels": {"app": "x", "a/b": "4"}}})),
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
        let result = Admission::new(world.configured().plugins(&PluginConfig::default())).mutate(&mut attributes).await;
        match expected {
            Ok(change) => {
                result.unwrap();
                let mut expected = kube1_api::patch::merge_patch(&before, &change);
                apply_defaults(&attributes.resource, &mut expected);
                assert_eq!(attributes.object.unwrap(), expected, "{mutation}");
            }
            Err(why) => {
                let status = result.unwrap_err();
                assert_eq!((status.code(), status.message()), (403, format!("{DENIED}{why}").as_str()), "{mutation}");
            }
        }
    }
}

/// Stores several policies that mutate configmaps.
async fn mutators(world: &World, policies: &[(&str, Value)]) {
    for (name, more) in policies {
        let rules =
            json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]);
        let mut policy = json!({"matchConstraints": {"resourceRules": rules}, "reinvocationPolicy": "Never"});
        policy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        put(world, "mutatingadmission", name, policy, json!({})).await;
    }
}

fn configmap(world: &World, data: Value) -> Attributes {
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "labels": {"a": "b"}}, "data": data});
    world.create("", "configmaps", map)
}

async fn mutated(world: &World, mut attributes: Attributes) -> Result<Value, Status> {
    Admission::new(world.configured().plugins(&PluginConfig::default())).mutate(&mut attributes).await?;
    Ok(attributes.object.unwrap_or_default())
}

fn add(path: &str, value: &str) -> Value {
    let expression = format!("[JSONPatch{{op: 'add', path: '{path}', value: {value}}}]");
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

#[tokio::test]
async fn policies_see_what_later_ones_did_if_they_want() {
    const COUNT: &str = "string(has(object.data.n) ? int(object.data.n) + 1 : 1)";
    for (first, expected) in [("Never", "1"), ("IfNeeded", "2")] {
        let world = World::new().await;
        mutators(
            &world,
            &[
                ("a", json!({"mutations": [add("/data/n", COUNT)], "reinvocationPolicy": first})),
                ("b", json!({"mutations": [add("/data/m", "'x'")]})),
            ],
        )
        .await;
        let object = mutated(&world, configmap(&world, json!({"k": "v"}))).await.unwrap();
        assert_eq!(object["data"], json!({"k": "v", "n": expected, "m": "x"}), "{first}");
    }
}

#[tokio::test]
async fn failing_mutations_say_why_and_leave_the_rest() {
    for (policy, expected) in [
        // What a mutation added is complete before the next one sees it, and conditions are met by the newest object.
        (
            json!({"mutations": [add("/data/n", "'1'"), add("/data/m", "object.data.n + '2'")]}),
            Ok(json!({"k": "v", "n": "1", "m": "12"})),
        ),
        (
            json!({"matchConditions": [{"name": "c", "expression": "namespaceObject != null"}], "mutations": [add("/data/n", "'1'")]}),
            Ok(json!({"k": "v"})),
        ),
        (
            json!({"matchConditions": [{"name": "c", "expression": "object.data.x == 'y'"}], "mutations": [add("/data/n", "'1'")]}),
            Err((
                403,
                "Invalid",
                "policy 'p' with binding 'p' denied request: expression 'object.data.x == 'y'' resulted in error: no such key: x",
            )),
        ),
        (
            json!({"failurePolicy": "Ignore", "mutations": [add("/data/n", "object.data.x"), add("/data/m", "'1'")]}),
            Ok(json!({"k": "v", "m": "1"})),
        ),
        (
            json!({"failurePolicy": "Ignore", "mutations": [add("/nothing", "'1'")]}),
            Err((500, "InternalError", "Internal error occurred: strict decoding error: unknown field \"nothing\"")),
        ),
        (
            json!({"paramKind": {"apiVersion": "v1", "kind": "Nothing"}, "mutations": [add("/data/n", "'1'")]}),
            Err((
                403,
                "Forbidden",
                "policy \"p\" denied request: failed to configure policy: failed to find resource referenced by paramKind: '/v1, Kind=Nothing'",
            )),
        ),
    ] {
        let world = World::new().await;
        mutators(&world, &[("p", policy.clone())]).await;
        let result = mutated(&world, configmap(&world, json!({"k": "v"}))).await;
        match expected {
            Ok(data) => assert_eq!(result.unwrap()["data"], data, "{policy}"),
            Err(expected) => {
                let status = result.unwrap_err();
                assert_eq!((status.code(), status.reason(), status.message()), expected, "{policy}");
            }
        }
    }
}

#[tokio::test]
async fn what_policies_are_not_asked_about() {
    let world = World::new().await;
    let rules = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]);
    let policy = json!({"matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "false"}]});
    put(&world, "validatingadmission", "p", policy, json!({})).await;
    for (group, plural, asked) in [
        ("", "configmaps", true),
        (GROUP, "validatingwebhookconfigurations", true),
        (GROUP, "validatingadmissionpolicies", false),
        (GROUP, "mutatingadmissionpolicybindings", false),
    ] {
        let mut attributes = world.create(group, plural, json!({"metadata": {"name": "x"}}));
        let refused = Admission::new(world.configured().plugins(&PluginConfig::default()))
            .validate(&mut attributes)
            .await
            .is_err();
        assert_eq!(refused, asked, "{plural}");
    }
}
