//! Jobs and cron jobs.

use serde_json::json;

use super::*;

fn job() -> Value {
    let labels = json!({"controller-uid": "u", "job-name": "n", "batch.kubernetes.io/controller-uid": "u",
        "batch.kubernetes.io/job-name": "n"});
    json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"completionMode": "Indexed", "completions": 5, "parallelism": 2,
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
        "template": {"metadata": {"labels": labels},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}})
}

#[test]
fn jobs() {
    assert_eq!(create(&job()), [""; 0]);
    refused(
        &job(),
        &[
            (
                json!({"spec": {"completionMode": "Some"}}),
                &["spec.completionMode: Unsupported value: \"Some\": supported values: \"NonIndexed\", \"Indexed\""],
            ),
            (
                json!({"spec": {"completionMode": null, "backoffLimitPerIndex": 1}}),
                &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
            ),
            (
                json!({"spec": {"backoffLimitPerIndex": 1, "maxFailedIndexes": 6}}),
                &["spec.maxFailedIndexes: Invalid value: 6: must be less than or equal to completions"],
            ),
            (
                json!({"spec": {"completions": 100_001, "backoffLimitPerIndex": 1}}),
                &["spec.maxFailedIndexes: Required value: must be specified when completions is above 100000"],
            ),
            (
                json!({"spec": {"managedBy": "a.b"}}),
                &["spec.managedBy: Invalid value: \"a.b\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
            ),
            (
                json!({"spec": {"template": {"spec": {"restartPolicy": "Always"}}}}),
                &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
            ),
            (
                json!({"spec": {"podFailurePolicy": {"rules": [{"action": "Count"}]}}}),
                &[
                    "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
                ],
            ),
            (
                json!({"spec": {"podFailurePolicy": {"rules": [{"action": "Count", "onExitCodes": {"operator": "In", "values": [2, 1, 2, 0]}}]}}}),
                &[
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 2",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[3]: Invalid value: 0: must not be 0 for the In operator",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1,2,0]: must be ordered",
                ],
            ),
            (
                json!({"spec": {"successPolicy": {"rules": [{"succeededIndexes": "1-9"}]}}}),
                &[
                    "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"1-9\": error parsing succeededIndexes: too large index: \"9\"",
                ],
            ),
            (
                json!({"spec": {"successPolicy": {"rules": [{"succeededIndexes": "1,3", "succeededCount": 3}]}}}),
                &[
                    "spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)",
                ],
            ),
            (
                json!({"spec": {"template": {"metadata": {"labels": {"job-name": "other"}}}}}),
                &["spec.template.metadata.labels[job-name]: Invalid value: \"other\": must be 'n'"],
            ),
        ],
    );
    change_refused(
        &job(),
        &[
            (
                json!({"spec": {"completions": 6}}),
                &["spec.completions: Invalid value: 6: can only be modified in tandem with spec.parallelism"],
            ),
            (json!({"spec": {"completions": 6, "parallelism": 6}}), &[]),
            (
                json!({"spec": {"managedBy": "a.b/c"}}),
                &["spec.managedBy: Invalid value: \"a.b/c\": field is immutable"],
            ),
        ],
    );
    let elsewhere = json!({"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}});
    assert_eq!(update(&job(), &elsewhere).len(), 1);
    let suspended = merge_patch(&job(), &json!({"spec": {"suspend": true}}));
    assert_eq!(update(&suspended, &elsewhere), [""; 0]);
    let ran = merge_patch(&suspended, &json!({"status": {"startTime": "2026-01-01T00:00:00Z", "active": 1}}));
    assert_eq!(update(&ran, &elsewhere).len(), 1);
}

#[test]
fn status_of_jobs() {
    let time = "2026-01-01T00:00:00Z";
    let done = json!({"startTime": time, "completionTime": time, "conditions": [
        {"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}]});
    let running = merge_patch(&job(), &json!({"status": {"startTime": time, "succeeded": 2}}));
    assert_eq!(update_status(&running, &json!({"status": done})), [""; 0]);
    for (patch, expected) in [
        (
            json!({"completionTime": null}),
            "status.completionTime: Required value: completionTime is required for Complete jobs",
        ),
        (json!({"active": 1}), "status.active: Invalid value: 1: active>0 is invalid for finished job"),
        (json!({"succeeded": 1}), "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter"),
        (
            json!({"completedIndexes": "4-3"}),
            "status.completedIndexes: Invalid value: \"4-3\": error parsing completedIndexes: non-increasing order, previous: 4, current: 3",
        ),
        (
            json!({"failedIndexes": "1"}),
            "status.failedIndexes: Invalid value: \"1\": cannot set non-null failedIndexes when backoffLimitPerIndex is null",
        ),
        (
            json!({"conditions": [{"type": "Complete", "status": "True"}]}),
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (
            json!({"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a"]}}),
            "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
        ),
    ] {
        let status = merge_patch(&done, &patch);
        let found = update_status(&running, &json!({"status": status}));
        assert!(found.iter().any(|e| e == expected), "{expected}\nnot in {found:#?}");
    }
    let finished = merge_patch(&job(), &json!({"status": done}));
    let reopened = update_status(&finished, &json!({"status": {"conditions": []}}));
    assert!(
        reopened.contains(
            &"status.conditions: Invalid value: cannot disable the terminal Complete=True condition".to_owned()
        )
    );
}

#[test]
fn cron_jobs() {
    refused(
        &cron_job(),
        &[
            (
                json!({"spec": {"schedule": "TZ=UTC 0 0 * * *"}}),
                &[
                    "spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                ],
            ),
            (
                json!({"spec": {"timeZone": "../etc"}}),
                &["spec.timeZone: Invalid value: \"../etc\": unknown time zone ../etc"],
            ),
            (
                json!({"spec": {"timeZone": ""}}),
                &["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"],
            ),
            (
                json!({"spec": {"jobTemplate": {"spec": {"manualSelector": true, "selector": {}}}}}),
                &[
                    "spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated",
                    "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
                ],
            ),
        ],
    );
}
