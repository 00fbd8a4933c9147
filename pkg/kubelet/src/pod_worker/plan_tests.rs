#![allow(clippy::unwrap_used)]

use kube1_cri::v1::{ContainerState, ContainerStatus, PodSandboxStatus};

use super::plan::*;
use super::*;
use crate::container::spec_hash;
use crate::observed::{Observed, ObservedContainer};
use crate::probe::Findings;

const POD: &str = r#"{"metadata":{"name":"p","namespace":"n","uid":"u"},"spec":{
    "restartPolicy":"POLICY",
    "initContainers":[{"name":"i"},{"name":"s","restartPolicy":"Always"}],
    "containers":[{"name":"a"},{"name":"b"}]}}"#;

/// A script of states such as `i=0 s=run a=1`: exit codes, or running (`up`: running and started).
fn planned(policy: &str, states: &str) -> String {
    let pod: Pod = serde_json::from_str(&POD.replace("POLICY", policy)).unwrap();
    let mut observed = Observed::default();
    let mut findings = HashMap::new();
    if states != "no sandbox" {
        observed.sandbox = Some(PodSandboxStatus { id: "x".into(), ..PodSandboxStatus::default() });
    }
    let hashes: HashMap<String, String> =
        crate::pod::containers(pod.spec()).iter().map(|(_, c)| (c.name.clone(), spec_hash(c))).collect();
    for (name, state) in states.split(' ').filter_map(|s| s.split_once('=')) {
        let mut status = ContainerStatus { id: name.into(), ..ContainerStatus::default() };
        status.annotations.insert(labels::CONTAINER_HASH.into(), hashes[name].clone());
        match state {
            "run" | "up" | "dead" => {
                status.state = ContainerState::ContainerRunning.into();
                let dead = (state == "dead").then_some(crate::probe::ProbeKind::Liveness);
                findings.insert(name.to_owned(), Findings { started: state == "up", ready: true, dead });
            }
            code => {
                status.state = ContainerState::ContainerExited.into();
                status.exit_code = code.parse().unwrap();
            }
        }
        observed.containers.push(ObservedContainer { name: name.into(), attempt: 0, sandbox_id: "x".into(), status });
    }
    let (backoffs, blocked) = (Backoffs::default(), HashMap::new());
    let inputs = PlanInputs {
        pod: &pod,
        observed: &observed,
        findings: &findings,
        backoffs: &backoffs,
        blocked: &blocked,
        now: Timestamp::UNIX_EPOCH,
    };
    let plan = plan(&inputs);
    if plan.done {
        return "done".into();
    }
    if plan.new_sandbox {
        return "sandbox".into();
    }
    let start = plan.start.iter().map(|(_, c)| format!("+{}", c.name));
    let kill = plan.kill.iter().map(|k| format!("-{}", k.name));
    start.chain(kill).collect::<Vec<_>>().join(" ")
}

#[test]
fn containers_start_in_order_and_end_by_policy() {
    let cases = [
        ("Always", "no sandbox", "sandbox"),
        ("Always", "", "+i"),
        ("Always", "i=run", ""),
        ("Always", "i=1", "+i"),
        ("Never", "i=1", "done"),
        ("Always", "i=0", "+s"),
        ("Always", "i=0 s=run", ""),
        ("Always", "i=0 s=up", "+a +b"),
        ("Always", "i=0 s=up a=run b=run", ""),
        ("Always", "i=0 s=0 a=run b=run", "+s"),
        ("Always", "i=0 s=up a=0 b=run", "+a"),
        ("OnFailure", "i=0 s=up a=0 b=run", ""),
        ("OnFailure", "i=0 s=up a=0 b=2", "+b"),
        ("OnFailure", "i=0 s=up a=0 b=0", "done"),
        ("Never", "i=0 s=up a=1 b=run", ""),
        ("Never", "i=0 s=up a=1 b=0", "done"),
        ("Always", "i=0 s=up a=dead b=run", "-a"),
    ];
    for (policy, states, wanted) in cases {
        assert_eq!(planned(policy, states), wanted, "{policy}: {states}");
    }
}

#[test]
fn durations_are_written_as_go_does() {
    let cases = [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3600, "1h0m0s")];
    for (seconds, wanted) in cases {
        assert_eq!(go_duration(Duration::from_secs(seconds)), wanted);
    }
}
