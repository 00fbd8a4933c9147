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

/// A script of states such as `i=0 s=run a=1`: exit codes, or running (`up`: running and started); `1@2` is of round 2.
fn planned(policy: &str, states: &str) -> String {
    planned_for(&POD.replace("POLICY", policy), states)
}

fn planned_for(pod: &str, states: &str) -> String {
    let pod: Pod = serde_json::from_str(pod).unwrap();
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
        let (state, round) = state.split_once('@').unwrap_or((state, "0"));
        status.annotations.insert(labels::RESTART_ROUND.into(), round.into());
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
fn a_rule_restarts_all_containers_in_their_order() {
    let rule = r#""restartPolicyRules":[
        {"action":"Restart","exitCodes":{"operator":"In","values":[41]}},
        {"action":"RestartAllContainers","exitCodes":{"operator":"In","values":[41,42]}}]"#;
    let on = |name: &str, policy: &str| {
        let plain = format!(r#""name":"{name}""#);
        let ruled = format!(r#""name":"{name}","restartPolicy":"{policy}",{rule}"#);
        POD.replace("POLICY", "Never").replace(r#","restartPolicy":"Always""#, "").replace(&plain, &ruled)
    };
    let of_regular = on("b", "Never");
    let cases = [
        ("i=0 s=0 a=run b=1", ""),
        ("i=0 s=0 a=0 b=1", "done"),
        // The first rule that matches is taken.
        ("i=0 s=0 a=run b=41", "+b"),
        ("i=0 s=0 a=run b=42", "-a"),
        ("i=0 s=0 a=137 b=42", "+i"),
        ("i=run@1 s=0 a=137 b=42", ""),
        ("i=0@1 s=0 a=137 b=42", "+s"),
        ("i=0@1 s=0@1 a=137 b=42", "+a +b"),
        ("i=0@1 s=0@1 a=run@1 b=42", "+b"),
        ("i=0@1 s=0@1 a=0@1 b=run@1", ""),
        ("i=0@1 s=0@1 a=0@1 b=0@1", "done"),
        ("i=1@1 s=0 a=137 b=42", "done"),
        ("i=0@1 s=0@1 a=run@1 b=42@1", "-a"),
        ("i=0@1 s=0@1 a=137@1 b=42@1", "+i"),
        // The node agent died while it stopped the others, and while it started them again.
        ("i=0 s=0 a=137 b=run", ""),
        ("i=run@1 s=0 a=run b=42", "-a"),
    ];
    for (states, wanted) in cases {
        assert_eq!(planned_for(&of_regular, states), wanted, "{states}");
    }
    for (states, wanted) in [("i=42", "+i"), ("i=0@1", "+s"), ("i=1", "done"), ("i=42@1", "+i")] {
        assert_eq!(planned_for(&on("i", "Never"), states), wanted, "init container: {states}");
    }
}

#[test]
fn durations_are_written_as_go_does() {
    let cases = [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3600, "1h0m0s")];
    for (seconds, wanted) in cases {
        assert_eq!(go_duration(Duration::from_secs(seconds)), wanted);
    }
}
