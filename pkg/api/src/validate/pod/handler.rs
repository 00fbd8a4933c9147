//! Probes and lifecycle handlers.

use super::Pod;
use crate::validate::at::At;
use crate::validate::{Errors, format};

const PROBE_ACTIONS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK_ACTIONS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];

pub(super) fn probe(probe: &At, kind: &str, pod: &Pod, errors: &mut Errors) {
    if !probe.is_set() {
        return;
    }
    handler(probe, &PROBE_ACTIONS, pod, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        probe.get(field).not_negative(errors);
    }
    let grace = probe.get("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds <= 0) {
        grace.invalid(errors, "must be greater than 0");
    }
    let successes = probe.get("successThreshold");
    if kind == "readinessProbe" {
        if grace.is_set() {
            grace.invalid(errors, "must not be set for readinessProbes");
        }
    } else if successes.int() != Some(1) {
        successes.invalid_value(errors, successes.int().unwrap_or(0), "must be 1");
    }
}

pub(super) fn lifecycle(lifecycle: &At, pod: &Pod, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        let hook = lifecycle.get(hook);
        if hook.is_set() {
            handler(&hook, &HOOK_ACTIONS, pod, errors);
        }
    }
    let signal = lifecycle.get("stopSignal");
    if signal.is_set() {
        match pod.os {
            "" => signal.forbidden(errors, "may not be set for containers with empty `spec.os.name`"),
            "windows" => signal.exactly_one_of(errors, &["SIGKILL", "SIGTERM"]),
            "linux" => signal.exactly_one_of(errors, &SIGNALS),
            _ => {}
        }
    }
}

/// Exactly one action, and that one well formed.
fn handler(handler: &At, actions: &[&'static str], pod: &Pod, errors: &mut Errors) {
    let set = handler.set_members(actions);
    for (index, name) in set.iter().enumerate() {
        let action = handler.get(name);
        if index > 0 {
            action.forbidden(errors, "may not specify more than 1 handler type");
            continue;
        }
        match *name {
            "exec" => {
                action.get("command").need(errors);
            }
            "httpGet" => http_get(&action, errors),
            "sleep" => sleep(&action, pod, errors),
            _ => port(&action.get("port"), errors),
        }
    }
    if set.is_empty() {
        handler.required(errors, "must specify a handler type");
    }
}

fn sleep(action: &At, pod: &Pod, errors: &mut Errors) {
    let seconds = action.number("seconds");
    if let Some(grace) = pod.grace.filter(|grace| seconds < 0 || seconds > *grace) {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        action.invalid_value(errors, seconds, detail);
    }
}

fn http_get(action: &At, errors: &mut Errors) {
    action.get("path").need(errors);
    port(&action.get("port"), errors);
    action.get("scheme").exactly_one_of(errors, &["HTTP", "HTTPS"]);
    let headers = action.get("httpHeaders");
    for header in headers.items() {
        for problem in format::http_header_name(header.str("name")) {
            headers.invalid_value(errors, header.str("name"), problem);
        }
    }
}

/// A port by number or by name.
pub(in crate::validate) fn port(port: &At, errors: &mut Errors) {
    match port.value.as_str() {
        Some(name) => port.check(errors, format::port_name(name)),
        None => {
            let number = port.int().unwrap_or(0);
            for problem in format::port_number(number) {
                port.invalid_value(errors, number, problem);
            }
        }
    }
}

/// In the order of their names.
const SIGNALS: [&str; 65] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];
