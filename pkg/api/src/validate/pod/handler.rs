//! Probes and lifecycle handlers.

use crate::validate::at::At;
use crate::validate::{Errors, format};

const ACTIONS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

pub(super) fn probe(probe: &At, kind: &str, errors: &mut Errors) {
    if !probe.is_set() {
        return;
    }
    handler(probe, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        probe.get(field).not_negative(errors);
    }
    let grace = probe.get("terminationGracePeriodSeconds");
    grace.positive(errors);
    let successes = probe.get("successThreshold");
    if kind == "readinessProbe" {
        if grace.is_set() {
            grace.invalid(errors, "must not be set for readinessProbes");
        }
    } else if successes.int().is_some_and(|n| n != 1) {
        successes.invalid(errors, "must be 1");
    }
}

pub(super) fn lifecycle(lifecycle: &At, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        let hook = lifecycle.get(hook);
        if hook.is_set() {
            handler(&hook, errors);
        }
    }
}

/// Exactly one action, and that one well formed.
fn handler(handler: &At, errors: &mut Errors) {
    let set = handler.set_members(&ACTIONS);
    if set.is_empty() {
        handler.required(errors, "must specify a handler type");
    }
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
            "tcpSocket" => port(&action.get("port"), errors),
            "grpc" => port(&action.get("port"), errors),
            _ => action.get("seconds").not_negative(errors),
        }
    }
}

fn http_get(action: &At, errors: &mut Errors) {
    action.get("path").need(errors);
    port(&action.get("port"), errors);
    action.get("scheme").need(errors);
    for header in action.get("httpHeaders").items() {
        let name = header.get("name");
        name.check(errors, format::http_header_name(name.text()));
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
