//! Webhooks, policies, flow control, requests for certificates.

use serde_json::json;

use super::*;

fn hooks() -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "webhooks": [hook(json!({}))]})
}

fn hook(patch: Value) -> Value {
    let hook = json!({"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "s", "namespace": "n"}},
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
    merge_patch(&hook, &patch)
}

#[test]
fn webhooks() {
    assert_eq!(create(&hooks()), [""; 0]);
    let with = |patch: Value| json!({"webhooks": [hook(patch)]});
    let rule = |resources: Value| {
        with(
            json!({"rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": resources}]}),
        )
    };
    let place = "webhooks[0].rules[0].resources";
    refused(
        &hooks(),
        &[
            (
                with(json!({"sideEffects": "Some"})),
                &["webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\""],
            ),
            (
                with(json!({"admissionReviewVersions": ["v2", "v2"]})),
                &[
                    "webhooks[0].admissionReviewVersions[1]: Invalid value: \"v2\": duplicate version",
                    "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1",
                ],
            ),
            // Upstream mixes them up.
            (
                with(json!({"clientConfig": {"service": {"name": ""}}})),
                &["webhooks[0].clientConfig.service.namespace: Required value"],
            ),
            (
                with(json!({"clientConfig": {"service": {"path": "x/y"}}})),
                &[
                    "webhooks[0].clientConfig.service.path: Invalid value: \"x/y\": must start with a '/'",
                    "webhooks[0].clientConfig.service.path: Invalid value: \"x/y\": segment[0] may not be empty",
                ],
            ),
            (
                with(json!({"clientConfig": {"service": null, "url": "http://u@/x?q"}})),
                &[
                    "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                    "webhooks[0].clientConfig.url: Invalid value: \"\": host must be specified; desired format: https://host[/path]",
                    "webhooks[0].clientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
                    "webhooks[0].clientConfig.url: Invalid value: \"q\": query parameters are not permitted in the URL",
                ],
            ),
            (
                rule(json!(["*", "pods"])),
                &[&format!(
                    "{place}: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources"
                )],
            ),
            (
                rule(json!(["pods/*", "pods/status"])),
                &[&format!(
                    "{place}[1]: Invalid value: \"pods/status\": if 'pods/*' is present, must not specify pods/status"
                )],
            ),
            (
                json!({"webhooks": [hook(json!({})), hook(json!({}))]}),
                &["webhooks[1].name: Duplicate value: \"a.b.c\""],
            ),
        ],
    );
}

#[test]
fn policies() {
    let rules = json!({"resourceRules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "spec": {"matchConstraints": rules, "validations": [{"expression": "true"}]}});
    assert_eq!(create(&policy), [""; 0]);
    refused(
        &policy,
        &[
            (
                json!({"spec": {"validations": null}}),
                &[
                    "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                    "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
                ],
            ),
            (
                json!({"spec": {"validations": [{"expression": "true", "message": "a\nb", "reason": "Unauthorized"}]}}),
                &[
                    "spec.validations[0].message: Invalid value: \"a\\nb\": message must not contain line breaks",
                    "spec.validations[0].reason: Unsupported value: \"Unauthorized\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
                ],
            ),
            (
                json!({"spec": {"paramKind": {"apiVersion": "a/b/c", "kind": "K k"}}}),
                &[
                    "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                    "spec.paramKind.kind: Invalid value: \"K k\": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
            (
                json!({"spec": {"variables": [{"name": "a-b", "expression": "1"}]}}),
                &["spec.variables[0].name: Invalid value: \"a-b\": name is not a valid CEL identifier"],
            ),
        ],
    );
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    refused(
        &binding,
        &[
            (
                json!({"spec": {"paramRef": {"parameterNotFoundAction": "Skip"}}}),
                &[
                    "spec.paramRef: Required value: one of name or selector must be specified",
                    "spec.paramRef.parameterNotFoundAction: Unsupported value: \"Skip\": supported values: \"Deny\", \"Allow\"",
                ],
            ),
            (
                json!({"spec": {"validationActions": null}}),
                &["spec.validationActions: Required value: at least one validation action is required"],
            ),
            (
                json!({"spec": {"validationActions": ["Deny", "Deny"]}}),
                &["spec.validationActions[1]: Duplicate value: \"Deny\""],
            ),
        ],
    );
}

#[test]
fn flow_control() {
    let subjects = json!([{"kind": "User", "user": {"name": "u"}}]);
    let rule = json!({"subjects": subjects, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]});
    let schema = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "spec": {"priorityLevelConfiguration": {"name": "l"}, "rules": [rule]}});
    assert_eq!(create(&schema), [""; 0]);
    let with = |patch: Value| json!({"spec": {"rules": [merge_patch(&rule, &patch)]}});
    refused(
        &schema,
        &[
            (
                with(json!({"nonResourceRules": [{"verbs": ["see"], "nonResourceURLs": ["x", "/a*b"]}]})),
                &[
                    "spec.rules[0].nonResourceRules[0].verbs: Unsupported value: [\"see\"]: supported values: \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"x\": must start with slash",
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/a*b\": wildcard can only do suffix matching",
                ],
            ),
            (
                with(
                    json!({"subjects": [{"kind": "ServiceAccount", "serviceAccount": {"name": "*"}, "user": {"name": "u"}}]}),
                ),
                &[
                    "spec.rules[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account",
                    "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
                ],
            ),
        ],
    );
    let queuing = |patch: Value| {
        let queuing = merge_patch(&json!({"queues": 64, "handSize": 8, "queueLengthLimit": 50}), &patch);
        json!({"spec": {"limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}}})
    };
    let level = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "spec": {"type": "Limited"}});
    let level = merge_patch(&level, &queuing(json!({})));
    assert_eq!(create(&level), [""; 0]);
    let hand = "spec.limited.limitResponse.queuing.handSize: Invalid value";
    refused(
        &level,
        &[
            (queuing(json!({"handSize": 65})), &[&format!("{hand}: 65: should not be greater than queues (64)")]),
            (
                queuing(json!({"handSize": 12})),
                &[&format!(
                    "{hand}: 12: required entropy bits of deckSize 64 and handSize 12 should not be greater than 60"
                )],
            ),
            (
                json!({"metadata": {"name": "exempt"}}),
                &["spec.type: Invalid value: \"Limited\": type must be 'Exempt' if and only if name is 'exempt'"],
            ),
        ],
    );
}

#[test]
fn signing_requests() {
    use base64::Engine;
    const REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----\n\
MIHGMG4CAQAwDDEKMAgGA1UEAwwBeDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IA\n\
BNIUOLhpP/IUrgkLaerjYNo/e26PHvjCa8Af0UxUH81XQNXETlT4MKDQsibsnFLb\n\
dzs6eK3DdWaFNfpqHA6DbUGgADAKBggqhkjOPQQDAgNIADBFAiBvZ9GBgae7z1d/\n\
x8inKRta3owlLZ46a6aUFER82XyNzgIhALfB5eyZD+qBFXMDOofD9G5CWAE16nfM\n\
H36WCxOhDGNE\n\
-----END CERTIFICATE REQUEST-----\n";
    let with = |pem: &str| {
        let pem = base64::engine::general_purpose::STANDARD.encode(pem);
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "spec": {"request": pem, "signerName": "a.b/c", "usages": ["client auth"]}})
    };
    let request = with(REQUEST);
    assert_eq!(create(&request), [""; 0]);
    for (pem, why) in [
        (REQUEST.replace("CERTIFICATE REQUEST", "CERTIFICATE"), "PEM block type must be CERTIFICATE REQUEST"),
        (REQUEST.replace("CAQAwDDEK", "CAQAwDDEL"), "x509: ECDSA verification failure"),
        (REQUEST.replace("AwwBeDBZ", "AwwBeTBZ"), "x509: ECDSA verification failure"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n".into(), "asn1: "),
    ] {
        let problems = create(&with(&pem));
        assert!(problems.len() == 1 && problems[0].contains(why), "{problems:?}");
    }
    refused(
        &request,
        &[
            (
                json!({"spec": {"signerName": "a/b"}}),
                &[
                    "spec.signerName: Invalid value: \"a\": should be a domain with at least two segments separated by dots",
                ],
            ),
            (json!({"spec": {"signerName": null}}), &["spec.signerName: Required value: signerName must be provided"]),
            (
                json!({"spec": {"usages": ["client auth", "client auth"]}}),
                &["spec.usages[1]: Duplicate value: \"client auth\""],
            ),
        ],
    );
    let decided = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}});
    assert_eq!(
        update_status(&request, &decided),
        ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]
    );
    assert_eq!(
        update_status(&merge_patch(&request, &decided), &json!({"status": {"conditions": []}})),
        ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
    );
    let junk = json!({"status": {"certificate": "AAAA"}});
    assert_eq!(
        update_status(&request, &junk),
        ["status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block"]
    );
}
