//! What a whole server tells of itself: its metrics after some traffic, against the names, types and labels that dashboards
//! and alerts for upstream 1.36 ask for; its health, version and flags; and what is audited of requests.

use kube1_test::{Cluster, eventually};

const POLICY: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: short}
spec:
  failurePolicy: Fail
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]}
  validations: [{expression: "object.metadata.name.size() < 40"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: short}
spec: {policyName: short, validationActions: [Deny]}
"#;
const JOB: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: done, namespace: default}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}
"#;

/// Name, type and labels, of what upstream calls stable or beta; then what else dashboards ask for.
const METRICS: &[(&str, &str, &str)] = &[
    // The API server, stable.
    ("apiserver_admission_controller_admission_duration_seconds", "histogram", "name operation rejected type"),
    ("apiserver_admission_step_admission_duration_seconds", "histogram", "operation rejected type"),
    ("apiserver_current_inflight_requests", "gauge", "request_kind"),
    ("apiserver_longrunning_requests", "gauge", "component group resource scope subresource verb version"),
    (
        "apiserver_request_duration_seconds",
        "histogram",
        "component dry_run group resource scope subresource verb version",
    ),
    ("apiserver_request_total", "counter", "code component dry_run group resource scope subresource verb version"),
    ("apiserver_requested_deprecated_apis", "gauge", "group removed_release resource subresource version"),
    ("apiserver_response_sizes", "histogram", "component group resource scope subresource verb version"),
    ("apiserver_storage_objects", "gauge", "resource"),
    ("apiserver_storage_size_bytes", "gauge", "storage_cluster_id"),
    ("kubernetes_healthcheck", "gauge", "name type"),
    ("kubernetes_healthchecks_total", "counter", "name status type"),
    // Beta.
    ("apiserver_cel_compilation_duration_seconds", "histogram", ""),
    ("apiserver_cel_evaluation_duration_seconds", "histogram", ""),
    ("apiserver_flowcontrol_current_executing_requests", "gauge", "flow_schema priority_level"),
    ("apiserver_flowcontrol_current_executing_seats", "gauge", "flow_schema priority_level"),
    ("apiserver_flowcontrol_current_inqueue_requests", "gauge", "flow_schema priority_level"),
    ("apiserver_flowcontrol_dispatched_requests_total", "counter", "flow_schema priority_level"),
    ("apiserver_flowcontrol_nominal_limit_seats", "gauge", "priority_level"),
    ("apiserver_flowcontrol_request_wait_duration_seconds", "histogram", "execute flow_schema priority_level"),
    ("apiserver_storage_events_received_total", "counter", "group resource"),
    (
        "apiserver_validating_admission_policy_check_duration_seconds",
        "histogram",
        "enforcement_action error_type policy policy_binding",
    ),
    (
        "apiserver_validating_admission_policy_check_total",
        "counter",
        "enforcement_action error_type policy policy_binding",
    ),
    ("apiserver_watch_list_duration_seconds", "histogram", "group resource scope version"),
    ("disabled_metrics_total", "counter", ""),
    ("hidden_metrics_total", "counter", ""),
    (
        "kubernetes_build_info",
        "gauge",
        "build_date compiler git_commit git_tree_state git_version go_version major minor platform",
    ),
    ("running_managed_controllers", "gauge", "manager name"),
    ("workqueue_adds_total", "counter", "name"),
    ("workqueue_depth", "gauge", "name"),
    ("workqueue_longest_running_processor_seconds", "gauge", "name"),
    ("workqueue_queue_duration_seconds", "histogram", "name"),
    ("workqueue_retries_total", "counter", "name"),
    ("workqueue_unfinished_work_seconds", "gauge", "name"),
    ("workqueue_work_duration_seconds", "histogram", "name"),
    // The scheduler and the controllers, stable and beta.
    ("cronjob_controller_job_creation_skew_duration_seconds", "histogram", ""),
    ("job_controller_job_sync_duration_seconds", "histogram", "action completion_mode result"),
    ("job_controller_job_syncs_total", "counter", "action completion_mode result"),
    ("scheduler_framework_extension_point_duration_seconds", "histogram", "extension_point profile status"),
    ("scheduler_pending_pods", "gauge", "queue"),
    ("scheduler_pod_scheduling_attempts", "histogram", ""),
    ("scheduler_pod_scheduling_sli_duration_seconds", "histogram", "attempts"),
    ("scheduler_preemption_attempts_total", "counter", ""),
    ("scheduler_preemption_victims", "histogram", ""),
    ("scheduler_queue_incoming_pods_total", "counter", "event queue"),
    ("scheduler_schedule_attempts_total", "counter", "profile result"),
    ("scheduler_scheduling_attempt_duration_seconds", "histogram", "profile result"),
    // Not promised by upstream, but asked for by the usual rules and dashboards.
    ("aggregator_unavailable_apiservice", "gauge", "name"),
    ("aggregator_unavailable_apiservice_total", "counter", "name reason"),
    ("apiserver_admission_webhook_rejection_count", "counter", "error_type name operation rejection_code type"),
    ("apiserver_audit_event_total", "counter", ""),
    ("apiserver_audit_requests_rejected_total", "counter", ""),
    ("apiserver_authorization_decisions_total", "counter", "decision name type"),
    ("apiserver_cache_list_total", "counter", "group index resource"),
    ("apiserver_client_certificate_expiration_seconds", "histogram", ""),
    ("apiserver_flowcontrol_current_limit_seats", "gauge", "priority_level"),
    ("apiserver_flowcontrol_request_execution_seconds", "histogram", "flow_schema priority_level type"),
    ("apiserver_init_events_total", "counter", "group resource"),
    ("apiserver_request_sli_duration_seconds", "histogram", "component group resource scope subresource verb version"),
    ("apiserver_resource_objects", "gauge", "group resource"),
    ("apiserver_resource_size_estimate_bytes", "gauge", "group resource"),
    ("apiserver_tls_handshake_errors_total", "counter", ""),
    ("apiserver_watch_cache_events_dispatched_total", "counter", "group resource"),
    ("apiserver_watch_events_sizes", "histogram", "group resource version"),
    ("apiserver_watch_events_total", "counter", "group resource version"),
    ("authenticated_user_requests", "counter", "username"),
    ("authentication_attempts", "counter", "result"),
    ("authentication_duration_seconds", "histogram", "result"),
    ("authorization_attempts_total", "counter", "result"),
    ("etcd_request_duration_seconds", "histogram", "group operation resource"),
    ("etcd_requests_total", "counter", "group operation resource"),
    ("process_cpu_seconds_total", "counter", ""),
    ("process_max_fds", "gauge", ""),
    ("process_open_fds", "gauge", ""),
    ("process_resident_memory_bytes", "gauge", ""),
    ("process_start_time_seconds", "gauge", ""),
    ("rest_client_request_duration_seconds", "histogram", "host verb"),
    ("rest_client_requests_total", "counter", "code host method"),
    ("scheduler_scheduling_algorithm_duration_seconds", "histogram", ""),
    ("version_info", "gauge", "binary component emulation min_compat"),
];

/// The names of a line's labels in order, without the bound of a bucket; none if the line is of another metric.
fn labels<'a>(line: &'a str, metric: &str) -> Option<Vec<&'a str>> {
    let rest = line.strip_prefix(metric)?;
    let Some(inside) = rest.strip_prefix('{') else { return rest.starts_with(' ').then(Vec::new) };
    let inside = inside.rsplit_once('}')?.0;
    let mut names: Vec<&str> =
        inside.split("\",").filter_map(|pair| pair.split_once("=\"")).map(|(name, _)| name).collect();
    names.retain(|name| *name != "le");
    names.sort_unstable();
    Some(names)
}

fn problems(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, kind, expected) in METRICS {
        if !text.lines().any(|line| line == format!("# TYPE {name} {kind}")) {
            problems.push(format!("{name} is no {kind}, or not there"));
            continue;
        }
        let of = if *kind == "histogram" { format!("{name}_bucket") } else { (*name).to_owned() };
        let found = text.lines().find_map(|line| labels(line, &of)).map(|names| names.join(" "));
        if found.as_deref() != Some(expected) {
            problems.push(format!("{name} has the labels {found:?}, not {expected:?}"));
        }
    }
    problems
}

#[test]
fn dashboards_for_upstream_find_their_metrics() {
    let cluster = Cluster::start(&["--disable-agent"]);
    cluster.apply(POLICY);
    cluster.apply(JOB);
    cluster.apply("{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {name: v1.nobody.io}, spec: {group: nobody.io, \
        version: v1, groupPriorityMinimum: 10, versionPriority: 10, service: {name: none, namespace: default}}}");
    cluster.k(&["get", "endpoints"]);
    cluster.k(&["get", "--raw", "/readyz"]);
    cluster.k(&["get", "--raw", "/api/v1/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"]);
    // A webhook that nobody answers for, and a pod that finds its node.
    cluster.apply("{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: w}, webhooks: [{name: w.x.io, \
        admissionReviewVersions: [v1], sideEffects: None, failurePolicy: Fail, clientConfig: {url: 'https://127.0.0.1:1/'}, \
        rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [secrets]}]}]}");
    eventually("the webhook", || {
        let refused = cluster.kubectl(&["create", "secret", "generic", "s", "--dry-run=server"]);
        if refused.success { Err(refused) } else { Ok(()) }
    });
    cluster.apply("{apiVersion: v1, kind: Node, metadata: {name: node-x}}");
    cluster.k(&[
        "patch",
        "node",
        "node-x",
        "--subresource=status",
        "-p",
        r#"{"status":{"allocatable":{"cpu":"4","memory":"4Gi","pods":"10"},
        "conditions":[{"type":"Ready","status":"True"}]}}"#,
    ]);
    cluster.kubectl(&["taint", "node", "node-x", "node.kubernetes.io/not-ready-"]);
    cluster.apply("{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: default}, spec: {containers: [{name: c, image: i}], \
        tolerations: [{operator: Exists}]}}");
    cluster.k(&["create", "configmap", "short"]);
    eventually("all metrics", || {
        let text = cluster.k(&["get", "--raw", "/metrics"]);
        let problems = problems(&text);
        if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
    });
    let text = cluster.k(&["get", "--raw", "/metrics"]);
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.sort_unstable();
    let twice =
        lines.windows(2).find(|pair| pair[0].rsplit_once(' ').map(|p| p.0) == pair[1].rsplit_once(' ').map(|p| p.0));
    assert_eq!(twice, None, "no series is told twice");
    let slis = cluster.k(&["get", "--raw", "/metrics/slis"]);
    assert!(slis.contains(r#"kubernetes_healthcheck{name="etcd",type="readyz"} 1"#), "{slis}");
}

/// Checks that monitoring of upstream asks for by name.
const CHECKS: [&str; 20] = [
    "ping",
    "log",
    "etcd",
    "etcd-readiness",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/storage-readiness",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "autoregister-completion",
    "shutdown",
];

#[test]
fn health_version_and_flags_are_told_as_upstream_tells_them() {
    let cluster = Cluster::start(&["--disable-agent", "--request-timeout", "59s"]);
    let ready = cluster.k(&["get", "--raw", "/readyz?verbose"]);
    for check in CHECKS {
        assert!(ready.lines().any(|line| line == format!("[+]{check} ok")), "{check}\n{ready}");
        assert_eq!(cluster.k(&["get", "--raw", &format!("/readyz/{check}")]), "ok", "{check}");
    }
    assert!(ready.ends_with("readyz check passed\n"), "{ready}");
    let live = cluster.k(&["get", "--raw", "/livez?verbose"]);
    assert!(!live.contains("shutdown") && !live.contains("etcd-readiness") && live.contains("[+]etcd ok"), "{live}");
    let version = cluster.k(&["get", "--raw", "/version"]);
    for field in ["gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform", "emulationMinor"] {
        assert!(version.contains(&format!("\"{field}\": \"")), "{field}\n{version}");
    }
    assert!(!version.contains("1970-01-01") && version.contains("\"goVersion\": \"rustc1"), "{version}");
    let shown = cluster.k(&["version"]);
    assert!(shown.contains("Server Version: v1.36.2+kube1"), "{shown}");
    let flags = cluster.k(&["get", "--raw", "/flagz"]);
    for flag in ["request-timeout=59s", "disable-agent=true", "service-cidr=10.43.0.0/16", "audit-log-batch-max-size=1"]
    {
        assert!(flags.lines().any(|line| line == flag), "{flag}\n{flags}");
    }
    assert!(cluster.k(&["get", "--raw", "/statusz"]).contains("Go version: rustc1"));
}

#[test]
fn what_was_acknowledged_is_in_the_audit_log_after_a_kill() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (policy, log) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    let text = "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata, resources: [{group: '', resources: [configmaps]}]}]}";
    std::fs::write(&policy, text).expect("the policy is written");
    let [policy, path] = [&policy, &log].map(|path| path.display().to_string());
    let args =
        ["--disable-agent", "--audit-policy-file", &policy, "--audit-log-path", &path, "--audit-log-format", "legacy"];
    let mut cluster = Cluster::start(&args);
    for number in 0..5 {
        cluster.k(&["create", "configmap", &format!("kept-{number}")]);
    }
    cluster.node_mut(1).kill();
    let text = std::fs::read_to_string(&log).expect("the log is there");
    let of = |method: &str, stage: &str| {
        let (method, stage) = (format!("method=\"{method}\""), format!("stage=\"{stage}\""));
        // Controllers make their own.
        let agent = "user-agent=\"kubectl";
        text.lines().filter(|line| [&method, &stage, agent].iter().all(|part| line.contains(*part))).count()
    };
    assert_eq!((of("create", "RequestReceived"), of("create", "ResponseComplete")), (5, 5), "{text}");
}
