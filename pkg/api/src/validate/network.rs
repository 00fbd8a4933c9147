//! Ingresses, network policies, endpoints and addresses.

use std::collections::HashSet;
use std::net::IpAddr;

use super::at::At;
use super::pod::port_reference;
use super::selector::label_selector;
use super::{Errors, format};
use crate::field::FieldError;

pub(super) fn ingress(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (rules, default) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.is_empty() && !default.is_set() {
        spec.invalid_value(errors, rules.list().to_vec(), "either `defaultBackend` or `rules` must be specified");
    }
    if default.is_set() {
        backend(&default, errors);
    }
    for tls in spec.get("tls").items() {
        for host in tls.get("hosts").items() {
            let wild = host.text().contains('*');
            host.check(
                errors,
                if wild { format::wildcard_subdomain(host.text()) } else { format::dns_subdomain(host.text()) },
            );
        }
    }
    for rule in rules.items() {
        let host = rule.get("host");
        if format::is_ip(host.text()) {
            host.invalid(errors, "must be a DNS name, not an IP address");
        } else if host.text().contains('*') {
            host.check(errors, format::wildcard_subdomain(host.text()));
        } else if !host.is_empty() {
            host.check(errors, format::dns_subdomain(host.text()));
        }
        let http = rule.get("http");
        if http.is_set() {
            http.get("paths").need(errors);
        }
        for path in http.get("paths").items() {
            http_path(&path, errors);
        }
    }
    let class = spec.get("ingressClassName");
    if class.is_set() {
        class.check(errors, format::dns_subdomain(class.text()));
    }
}

fn http_path(path: &At, errors: &mut Errors) {
    let (kind, text) = (path.get("pathType"), path.get("path"));
    if !kind.is_set() {
        kind.required(errors, "pathType must be specified");
    }
    if matches!(kind.text(), "Exact" | "Prefix") {
        if !text.text().starts_with('/') {
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
    } else if !text.is_empty() && !text.text().starts_with('/') {
        text.invalid(errors, "must be an absolute path");
    }
    backend(&path.get("backend"), errors);
}

fn backend(backend: &At, errors: &mut Errors) {
    let (service, resource) = (backend.get("service"), backend.get("resource"));
    match (service.is_set(), resource.is_set()) {
        (true, true) => backend.invalid_value(errors, "", "cannot set both resource and service backends"),
        (false, false) => backend.required(errors, "resource or service backend is required"),
        (false, true) => {
            resource.get("kind").need(errors);
            resource.get("name").need(errors);
        }
        (true, false) => {
            let name = service.get("name");
            if name.need(errors) {
                name.check(errors, format::dns_label(name.text()));
            }
            let (port_name, number) = (service.get("port.name"), service.get("port.number"));
            match (port_name.is_empty(), number.is_empty()) {
                (false, false) => service.invalid_value(errors, "", "cannot set both port name & port number"),
                (true, true) => service.required(errors, "port name or number is required"),
                (false, true) => port_name.check(errors, format::port_name(port_name.text())),
                (true, false) => number.in_range(errors, 1, 65535),
            }
        }
    }
}

pub(super) fn ingress_class(object: &At, old: Option<&At>, errors: &mut Errors) {
    let controller = object.get("spec.controller");
    if controller.text().len() > 250 {
        controller.too_long(errors, 250);
    }
    for problem in format::domain_prefixed_path(controller.text()) {
        controller.invalid_value(errors, controller.text(), problem);
    }
    let parameters = object.get("spec.parameters");
    if parameters.is_set() {
        for field in ["kind", "name"] {
            parameters.get(field).need(errors);
        }
        let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
        scope.need_one_of(errors, &["Cluster", "Namespace"]);
        match (scope.text(), namespace.is_set()) {
            ("Namespace", false) => namespace.required(errors, "`parameters.scope` is set to 'Namespace'"),
            ("Cluster", true) => namespace.forbidden(errors, "`parameters.scope` is set to 'Cluster'"),
            _ => {}
        }
    }
    if let Some(old) = old {
        controller.immutable(&old.get("spec.controller"), errors);
    }
}

pub(super) fn network_policy(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    label_selector(&spec.get("podSelector"), errors);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(rules).items() {
            for port in rule.get("ports").items() {
                policy_port(&port, errors);
            }
            for peer in rule.get(peers).items() {
                policy_peer(&peer, errors);
            }
        }
    }
    let types = spec.get("policyTypes");
    if types.list().len() > 2 {
        types.invalid(errors, "may not specify more than two policyTypes");
    }
}

fn policy_port(port: &At, errors: &mut Errors) {
    let (number, end) = (port.get("port"), port.get("endPort"));
    if number.is_set() {
        port_reference(&number, errors);
    }
    if !end.is_set() {
        return;
    }
    match (number.int(), end.int()) {
        (None, _) if number.is_set() => end.invalid(errors, "may not be specified when `port` is non-numeric"),
        (None, _) => end.invalid(errors, "may not be specified when `port` is not specified"),
        (Some(first), Some(last)) if last < first => end.invalid(errors, "must be greater than or equal to `port`"),
        _ => end.in_range(errors, 1, 65535),
    }
}

fn policy_peer(peer: &At, errors: &mut Errors) {
    let (pods, namespaces, block) = (peer.get("podSelector"), peer.get("namespaceSelector"), peer.get("ipBlock"));
    label_selector(&pods, errors);
    label_selector(&namespaces, errors);
    match (pods.is_set() || namespaces.is_set(), block.is_set()) {
        (false, false) => peer.required(errors, "must specify a peer"),
        (true, true) => peer.forbidden(errors, "may not specify both ipBlock and another peer"),
        (_, true) => ip_block(&block, errors),
        _ => {}
    }
}

fn ip_block(block: &At, errors: &mut Errors) {
    let cidr = block.get("cidr");
    if !cidr.need(errors) {
        return;
    }
    cidr.check(errors, format::cidr(cidr.text()));
    for except in block.get("except").items() {
        let problems = format::cidr(except.text());
        if problems.is_empty() && !is_inside(except.text(), cidr.text()) {
            except.invalid(errors, "must be a strict subset of `cidr`");
        }
        except.check(errors, problems);
    }
}

/// Whether one network is a part of the other, and smaller.
fn is_inside(inner: &str, outer: &str) -> bool {
    fn network(text: &str) -> Option<(u128, u32, u32)> {
        let (address, bits) = text.split_once('/')?;
        let bits: u32 = bits.parse().ok()?;
        Some(match address.parse().ok()? {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), bits, 32),
            IpAddr::V6(v6) => (v6.to_bits(), bits, 128),
        })
    }
    let (Some(inner), Some(outer)) = (network(inner), network(outer)) else { return false };
    let shift = outer.2.saturating_sub(outer.1);
    let prefix = |address: u128| address.checked_shr(shift).unwrap_or(0);
    inner.2 == outer.2 && inner.1 > outer.1 && prefix(inner.0) == prefix(outer.0)
}

pub(super) fn endpoint_slice(object: &At, old: Option<&At>, errors: &mut Errors) {
    let kind = object.get("addressType");
    kind.need(errors);
    let (endpoints, ports) = (object.get("endpoints"), object.get("ports"));
    for (list, max) in [(endpoints, 1000), (ports, 20000)] {
        if list.list().len() > max {
            errors.push(FieldError::too_many(&list.path(), list.list().len(), max));
        }
    }
    for endpoint in endpoints.items() {
        let addresses = endpoint.get("addresses");
        if addresses.is_empty() {
            addresses.required(errors, "must contain at least 1 address");
        }
        if addresses.list().len() > 100 {
            errors.push(FieldError::too_many(&addresses.path(), addresses.list().len(), 100));
        }
        for address in addresses.items() {
            match kind.text() {
                "IPv4" if !format::is_ipv4(address.text()) => address.invalid(errors, "must be an IPv4 address"),
                "IPv6" if !format::is_ipv6(address.text()) => address.invalid(errors, "must be an IPv6 address"),
                "FQDN" => address.check(errors, format::dns_subdomain(address.text())),
                _ => {}
            }
        }
        let (host, node) = (endpoint.get("hostname"), endpoint.get("nodeName"));
        if host.is_set() {
            host.check(errors, format::dns_label(host.text()));
        }
        if node.is_set() {
            node.check(errors, format::dns_subdomain(node.text()));
        }
    }
    let mut names: HashSet<&str> = HashSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if names.contains(&name.text()) {
            name.duplicate(errors);
        }
        names.insert(name.text());
        if !name.is_empty() {
            name.check(errors, format::dns_label(name.text()));
        }
        port.get("protocol").need(errors);
    }
    if let Some(old) = old {
        kind.immutable(&old.get("addressType"), errors);
    }
}

pub(super) fn endpoints(object: &At, _old: Option<&At>, errors: &mut Errors) {
    for subset in object.get("subsets").items() {
        if subset.get("addresses").is_empty() && subset.get("notReadyAddresses").is_empty() {
            subset.required(errors, "must specify `addresses` or `notReadyAddresses`");
        }
        for list in ["addresses", "notReadyAddresses"] {
            for address in subset.get(list).items() {
                let (ip, host) = (address.get("ip"), address.get("hostname"));
                ip.check(errors, format::ip(ip.text()));
                if !host.is_empty() {
                    host.check(errors, format::dns_label(host.text()));
                }
            }
        }
        let ports = subset.get("ports");
        for port in ports.items() {
            let (name, number) = (port.get("name"), port.get("port"));
            if ports.list().len() > 1 && name.is_empty() {
                name.required(errors, "");
            } else if !name.is_empty() {
                name.check(errors, format::dns_label(name.text()));
            }
            for problem in format::port_number(number.int().unwrap_or(0)) {
                number.invalid_value(errors, number.int().unwrap_or(0), problem);
            }
            port.get("protocol").need(errors);
        }
    }
}

pub(super) fn ip_address(object: &At, old: Option<&At>, errors: &mut Errors) {
    let (name, parent) = (object.get("metadata.name"), object.get("spec.parentRef"));
    let canonical = name.text().parse::<IpAddr>().map(|ip| ip.to_string());
    if canonical.as_deref() != Ok(name.text()) {
        name.invalid(errors, "must be a valid IP address in canonical form");
    }
    if parent.need(errors) {
        for field in ["resource", "name"] {
            parent.get(field).need(errors);
        }
    }
    if let Some(old) = old {
        parent.immutable(&old.get("spec.parentRef"), errors);
    }
}

pub(super) fn service_cidr(object: &At, old: Option<&At>, errors: &mut Errors) {
    let cidrs = object.get("spec.cidrs");
    if cidrs.is_empty() {
        cidrs.required(errors, "at least one CIDR required");
    }
    if cidrs.list().len() > 2 {
        cidrs.invalid(errors, "may only hold up to 2 values");
    }
    for cidr in cidrs.items() {
        cidr.check(errors, format::cidr(cidr.text()));
    }
    if let [first, second] = cidrs.list()
        && first.as_str().is_some_and(|a| a.contains(':')) == second.as_str().is_some_and(|b| b.contains(':'))
    {
        cidrs.invalid(
            errors,
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        );
    }
    if let Some(old) = old {
        // One network may become two of different families.
        let before = old.get("spec.cidrs");
        let grown =
            before.list().len() == 1 && cidrs.list().len() == 2 && cidrs.list().first() == before.list().first();
        if !grown {
            cidrs.immutable(&before, errors);
        }
    }
}
