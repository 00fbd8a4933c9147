//! Ingresses and their classes.

use super::at::At;
use super::{Errors, format};

const ANNOTATION: &str = "kubernetes.io/ingress.class";

pub(super) fn ingress(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (rules, default) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.is_empty() && !default.is_set() {
        spec.invalid_value(errors, rules.value.clone(), "either `defaultBackend` or `rules` must be specified");
    }
    if default.is_set() {
        backend(&default, errors);
    }
    for rule in rules.items() {
        self::rule(&rule, errors);
    }
    for tls in spec.get("tls").items() {
        for host in tls.get("hosts").items() {
            let wild = host.text().contains('*');
            let problems =
                if wild { format::wildcard_subdomain(host.text()) } else { format::dns_subdomain(host.text()) };
            host.check(errors, problems);
        }
        let secret = tls.get("secretName");
        if !secret.is_empty() {
            secret.check(errors, format::dns_subdomain(secret.text()));
        }
    }
    let class = spec.get("ingressClassName");
    if class.is_set() {
        class.check(errors, format::dns_subdomain(class.text()));
    }
    let annotation = object.value["metadata"]["annotations"][ANNOTATION].as_str();
    if let Some(annotation) = annotation.filter(|a| old.is_none() && class.is_set() && *a != class.text()) {
        let path = crate::field::FieldPath::new("annotations").child(ANNOTATION);
        let detail = "must match `ingressClassName` when both are specified";
        errors.push(crate::field::FieldError::invalid(&path, annotation, detail));
    }
}

fn rule(rule: &At, errors: &mut Errors) {
    let (host, http) = (rule.get("host"), rule.get("http"));
    if format::is_ip(host.text()) {
        host.invalid(errors, "must be a DNS name, not an IP address");
    }
    if host.text().contains('*') {
        host.check(errors, format::wildcard_subdomain(host.text()));
    } else if !host.is_empty() {
        host.check(errors, format::dns_subdomain(host.text()));
    }
    if http.is_set() {
        http.get("paths").need(errors);
    }
    for path in http.get("paths").items() {
        http_path(&path, errors);
    }
}

fn http_path(path: &At, errors: &mut Errors) {
    let (kind, text) = (path.get("pathType"), path.get("path"));
    if !kind.is_set() {
        kind.required(errors, "pathType must be specified");
        return;
    }
    let relative = !text.text().starts_with('/');
    match kind.text() {
        "Exact" | "Prefix" => {
            if relative {
                text.invalid_value(errors, text.text(), "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.text().contains(part) {
                    text.invalid(errors, format!("must not contain '{part}'"));
                }
            }
            for end in ["/..", "/."] {
                if text.text().ends_with(end) {
                    text.invalid(errors, format!("cannot end with '{end}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && relative {
                text.invalid(errors, "must be an absolute path");
            }
        }
        _ => kind.not_supported(errors, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    backend(&path.get("backend"), errors);
}

fn backend(backend: &At, errors: &mut Errors) {
    let (service, resource) = (backend.get("service"), backend.get("resource"));
    match (service.is_set(), resource.is_set()) {
        (true, true) => backend.invalid_value(errors, "", "cannot set both resource and service backends"),
        (false, false) => backend.invalid_value(errors, "", "resource or service backend is required"),
        (false, true) => reference(&resource, errors),
        (true, false) => {
            let name = service.get("name");
            if name.need(errors) {
                name.check(errors, format::dns_label(name.text()));
            }
            let (port_name, number) = (service.get("port.name"), service.get("port.number"));
            match (port_name.is_empty(), number.is_empty()) {
                (false, false) => backend.invalid_value(errors, "", "cannot set both port name & port number"),
                (true, true) => backend.required(errors, "port name or number is required"),
                (false, true) => port_name.check(errors, format::port_name(port_name.text())),
                (true, false) => number.in_range(errors, 1, 65535),
            }
        }
    }
}

/// A reference to an object of whichever kind.
fn reference(reference: &At, errors: &mut Errors) {
    let group = reference.get("apiGroup");
    if group.is_set() {
        group.check(errors, format::dns_subdomain(group.text()));
    }
    for (field, words) in [("kind", "kind is required"), ("name", "name is required")] {
        let field = reference.get(field);
        match field.text() {
            "" => field.required(errors, words),
            text => field.check(errors, format::path_segment(text)),
        }
    }
}

/// What a load balancer tells of an ingress.
pub(super) fn ingress_status(object: &At, _old: &At, errors: &mut Errors) {
    for point in object.get("status.loadBalancer.ingress").items() {
        let (ip, host) = (point.get("ip"), point.get("hostname"));
        if !ip.is_empty() {
            ip.check(errors, format::ip(ip.text()));
        }
        if !host.is_empty() {
            host.check(errors, format::dns_subdomain(host.text()));
            if format::is_ip(host.text()) {
                host.invalid(errors, "must be a DNS name, not an IP address");
            }
        }
    }
}

pub(super) fn ingress_class(object: &At, old: Option<&At>, errors: &mut Errors) {
    let controller = object.get("spec.controller");
    if let Some(old) = old {
        controller.immutable(&old.get("spec.controller"), errors);
    }
    controller.no_longer(errors, 250);
    if controller.need(errors) {
        for (part, problem) in format::domain_prefixed_path(controller.text()) {
            controller.invalid_value(errors, part, problem);
        }
    }
    let parameters = object.get("spec.parameters");
    if !parameters.is_set() {
        return;
    }
    reference(&parameters, errors);
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    match scope.text() {
        _ if !scope.is_set() => scope.required(errors, ""),
        "Namespace" if !namespace.is_set() => namespace.required(errors, "`parameters.scope` is set to 'Namespace'"),
        "Namespace" => namespace.check(errors, format::dns_label(namespace.text())),
        "Cluster" if namespace.is_set() => namespace.forbidden(errors, "`parameters.scope` is set to 'Cluster'"),
        "Cluster" => {}
        _ => scope.not_supported(errors, &["Cluster", "Namespace"]),
    }
}
