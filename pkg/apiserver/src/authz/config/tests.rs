#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn mistakes_are_named() {
    let text = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- {type: RBAC, name: rbac}
- {type: RBAC, name: again}
- {type: Some, name: x}
- {type: Node, name: "A B", webhook: {}}
- type: Webhook
  name: w
  webhook:
    timeout: 31s
    subjectAccessReviewVersion: v2
    failurePolicy: Allow
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: relative}
    matchConditions: [{expression: "request.("}, {expression: ""}]
"#;
    let config: AuthorizationConfiguration = serde_saphyr::from_str(text).unwrap();
    let problems = config.problems();
    for (problem, expected) in problems.iter().zip([
        "authorizers[1].type: Duplicate value: \"RBAC\"",
        "authorizers[2].type: Unsupported value: \"Some\"",
        "authorizers[3].name: Invalid value",
        "authorizers[3].webhook: Invalid value: \"non-null\"",
        "authorizers[4].timeout: Invalid value: \"31s\": must be > 0s and <= 30s",
        "authorizers[4].subjectAccessReviewVersion: Unsupported value: \"v2\"",
        "authorizers[4].matchConditionSubjectAccessReviewVersion: Required value",
        "authorizers[4].failurePolicy: Unsupported value: \"Allow\"",
        "authorizers[4].connectionInfo.kubeConfigFile: Invalid value: \"relative\": must be an absolute path",
        "authorizers[4].matchConditions[0].expression: Invalid value",
        "authorizers[4].matchConditions[1].expression: Required value",
    ]) {
        assert!(problem.starts_with(expected), "{problem}");
    }
    assert_eq!(problems.len(), 11, "{problems:#?}");
    let flags = |modes: &[&str]| {
        AuthorizationConfiguration::of_flags(&AuthorizationOptions {
            modes: modes.iter().map(|m| (*m).to_owned()).collect(),
            ..AuthorizationOptions::default()
        })
    };
    assert!(flags(&["Node", "RBAC"]).is_ok());
    assert!(flags(&["RBAC", "RBAC"]).is_err() && flags(&["Webhook"]).is_err());
}
