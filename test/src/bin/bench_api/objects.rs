//! What is stored for the measurements.

/// A pod of the size that real ones have, about 2.7 KB as stored.
pub fn pod(number: usize) -> String {
    let environment: Vec<String> = (0..12)
        .map(|i| format!(r#"{{"name":"SETTING_{i}","value":"a value of ordinary length, number {i}"}}"#))
        .collect();
    // Without a token of its account a pod can be made where no controller runs.
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"pod-{number}","labels":{{"app":"bench","shard":"{}"}},"annotations":{{"bench/note":"{}"}}}},"spec":{{"schedulerName":"none","automountServiceAccountToken":false,"containers":[{{"name":"main","image":"registry.example/bench/application:1.2.3","command":["/app","--verbose"],"env":[{}],"resources":{{"requests":{{"cpu":"100m","memory":"64Mi"}},"limits":{{"cpu":"1","memory":"128Mi"}}}},"ports":[{{"containerPort":8080,"name":"http"}}]}}]}}}}"#,
        number % 16,
        "n".repeat(200),
        environment.join(",")
    )
}

pub fn config_map(name: &str, label: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","labels":{{"bench":"{label}"}}}},"data":{{"key":"value"}}}}"#
    )
}

pub fn namespace(name: &str) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#)
}

/// Pods are only admitted once the namespace has it, where no controller makes it.
pub const SERVICE_ACCOUNT: &str = r#"{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}"#;
