//! Network policies, endpoints and addresses.

use std::collections::HashSet;
use std::net::IpAddr;

use super::at::At;
use super::selector::label_selector;
use super::{Errors, format, metadata};

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
        return;
    }
    for kind in types.items().filter(|kind| !["Ingress", "Egress"].contains(&kind.text())) {
        kind.not_supported(errors, &["Ingress", "Egress"]);
    }
}

fn policy_port(port: &At, errors: &mut Errors) {
    let (number, end) = (port.get("port"), port.get("endPort"));
    port.get("protocol").listed(errors, &["TCP", "UDP", "SCTP"]);
    match number.int() {
        Some(first) => {
            number.in_range(errors, 1, 65535);
            if end.int().is_some_and(|last| last < first) {
                // Upstream shows the port here.
                end.invalid_value(errors, first, "must be greater than or equal to `port`");
            }
            end.in_range(errors, 1, 65535);
        }
        None if number.is_set() => {
            if end.is_set() {
                end.invalid(errors, "may not be specified when `port` is non-numeric");
            }
            number.check(errors, format::port_name(number.text()));
        }
        None if end.is_set() => end.invalid(errors, "may not be specified when `port` is not specified"),
        None => {}
    }
}

fn policy_peer(peer: &At, errors: &mut Errors) {
    let (pods, namespaces, block) = (peer.get("podSelector"), peer.get("namespaceSelector"), peer.get("ipBlock"));
    label_selector(&pods, errors);
    label_selector(&namespaces, errors);
    if block.is_set() {
        ip_block(&block, errors);
    }
    match (pods.is_set() || namespaces.is_set(), block.is_set()) {
        (false, false) => peer.required(errors, "must specify a peer"),
        (true, true) => peer.forbidden(errors, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn ip_block(block: &At, errors: &mut Errors) {
    let cidr = block.get("cidr");
    if !cidr.need(errors) {
        return;
    }
    cidr.check(errors, format::cidr(cidr.text()));
    if format::is_invalid_cidr(cidr.text()) {
        return;
    }
    for except in block.get("except").items() {
        except.check(errors, format::cidr(except.text()));
        if !format::is_invalid_cidr(except.text()) && !format::is_inside(except.text(), cidr.text()) {
            except.invalid(errors, "must be a strict subset of `cidr`");
        }
    }
}

const MAX_SLICE_ADDRESSES: usize = 100;
const MAX_HINTS: usize = 8;

pub(super) fn endpoint_slice(object: &At, old: Option<&At>, errors: &mut Errors) {
    let kind = object.get("addressType");
    kind.need_one_of(errors, &["FQDN", "IPv4", "IPv6"]);
    let (endpoints, ports) = (object.get("endpoints"), object.get("ports"));
    if endpoints.at_most(errors, 1000) {
        for endpoint in endpoints.items() {
            slice_endpoint(&endpoint, kind.text(), errors);
        }
    }
    if ports.at_most(errors, 20000) {
        slice_ports(&ports, errors);
    }
    if let Some(old) = old {
        kind.immutable(&old.get("addressType"), errors);
    }
}

fn slice_endpoint(endpoint: &At, kind: &str, errors: &mut Errors) {
    let addresses = endpoint.get("addresses");
    if addresses.is_empty() {
        addresses.required(errors, "must contain at least 1 address");
    }
    addresses.at_most(errors, MAX_SLICE_ADDRESSES);
    for address in addresses.items() {
        slice_address(&address, &addresses, kind, errors);
    }
    let (host, node) = (endpoint.get("hostname"), endpoint.get("nodeName"));
    if node.is_set() {
        node.check(errors, format::dns_subdomain(node.text()));
    }
    let topology = endpoint.get("deprecatedTopology");
    topology.at_most(errors, 16);
    metadata::labels(&topology, errors);
    if host.is_set() {
        host.check(errors, format::dns_label(host.text()));
    }
    for (list, valid) in [("forZones", format::label_value as fn(&str) -> _), ("forNodes", format::dns_subdomain)] {
        let hints = endpoint.get("hints");
        let hints = hints.get(list);
        let mut seen = HashSet::new();
        for hint in hints.items().filter(|_| hints.list().len() <= MAX_HINTS) {
            let name = hint.get("name");
            name.unique(&mut seen, errors);
            name.check(errors, valid(name.text()));
        }
        hints.at_most(errors, MAX_HINTS);
    }
}

fn slice_address(address: &At, list: &At, kind: &str, errors: &mut Errors) {
    match kind {
        "IPv4" | "IPv6" => {
            let problems = format::ip(address.text());
            let fits = if kind == "IPv4" { format::is_ipv4(address.text()) } else { format::is_ipv6(address.text()) };
            if problems.is_empty() {
                if !fits {
                    list.invalid_value(errors, address.text(), format!("must be an {kind} address"));
                }
                endpoint_address(address, errors);
            }
            address.check(errors, problems);
        }
        "FQDN" if address.is_empty() => address.required(errors, ""),
        "FQDN" => {
            let name = address.text().strip_suffix('.').unwrap_or(address.text());
            for problem in format::domain(name, 2) {
                address.invalid_value(errors, name, problem);
            }
        }
        _ => {}
    }
}

/// An address that traffic can be sent to.
fn endpoint_address(address: &At, errors: &mut Errors) {
    let Ok(ip) = address.text().parse::<IpAddr>() else { return };
    let local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.is_unicast_link_local() || (v6.segments()[0] & 0xff0f) == 0xff02,
    };
    if ip.is_unspecified() {
        address.invalid(errors, format!("may not be unspecified ({})", address.text()));
    }
    if ip.is_loopback() {
        address.invalid(errors, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if local && !ip.is_multicast() {
        address.invalid(errors, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if local && ip.is_multicast() {
        address.invalid(errors, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn slice_ports(ports: &At, errors: &mut Errors) {
    let mut names = HashSet::new();
    for port in ports.items() {
        let (name, protocol) = (port.get("name"), port.get("protocol"));
        if !name.is_empty() {
            name.check(errors, format::dns_label(name.text()));
        }
        if !names.insert(name.text()) {
            name.duplicate(errors);
        }
        if !protocol.is_set() {
            protocol.required(errors, "");
        }
        protocol.listed(errors, &["SCTP", "TCP", "UDP"]);
        let application = port.get("appProtocol");
        if application.is_set() {
            application.check(errors, format::qualified_name(application.text()));
        }
    }
}

pub(super) fn endpoints(object: &At, old: Option<&At>, errors: &mut Errors) {
    let all = object.get("subsets");
    if old.is_some_and(|old| super::at::same(old.get("subsets").value, all.value)) {
        return;
    }
    for subset in all.items() {
        if subset.get("addresses").is_empty() && subset.get("notReadyAddresses").is_empty() {
            subset.required(errors, "must specify `addresses` or `notReadyAddresses`");
        }
        for list in ["addresses", "notReadyAddresses"] {
            for address in subset.get(list).items() {
                let (ip, host, node) = (address.get("ip"), address.get("hostname"), address.get("nodeName"));
                for problem in format::ip(ip.text()) {
                    ip.invalid_value(errors, ip.text(), problem);
                }
                if !host.is_empty() {
                    host.check(errors, format::dns_label(host.text()));
                }
                if node.is_set() {
                    node.check(errors, format::dns_subdomain(node.text()));
                }
                for problem in format::endpoint_ip(ip.text()) {
                    ip.invalid_value(errors, ip.text(), problem);
                }
            }
        }
        let ports = subset.get("ports");
        for port in ports.items() {
            let (name, number) = (port.get("name"), port.number("port"));
            if ports.list().len() > 1 && name.is_empty() {
                name.required(errors, "");
            } else if !name.is_empty() {
                name.check(errors, format::dns_label(name.text()));
            }
            for problem in format::port_number(number) {
                port.get("port").invalid_value(errors, number, problem);
            }
            port.get("protocol").need_one_of(errors, &["SCTP", "TCP", "UDP"]);
            let application = port.get("appProtocol");
            if application.is_set() {
                application.check(errors, format::qualified_name(application.text()));
            }
        }
    }
}

pub(super) fn ip_address(object: &At, old: Option<&At>, errors: &mut Errors) {
    let (name, parent) = (object.get("metadata.name"), object.get("spec.parentRef"));
    if let Some(old) = old {
        return parent.immutable(&old.get("spec.parentRef"), errors);
    }
    name.check(errors, format::canonical_ip(name.text()));
    if !parent.is_set() {
        return parent.required(errors, "");
    }
    let group = parent.get("group");
    if !group.is_empty() {
        group.check(errors, format::dns_subdomain(group.text()));
    }
    for (field, needed) in [("resource", true), ("name", true), ("namespace", false)] {
        let field = parent.get(field);
        if needed {
            field.need(errors);
        }
        field.check(errors, format::path_segment(field.text()));
    }
}

pub(super) fn service_cidr(object: &At, old: Option<&At>, errors: &mut Errors) {
    let (spec, cidrs) = (object.get("spec"), object.get("spec.cidrs"));
    if let Some(old) = old {
        return cidrs.immutable(&old.get("spec.cidrs"), errors);
    }
    let family = |cidr: &serde_json::Value| {
        let text = cidr.as_str().unwrap_or_default();
        (!format::is_invalid_cidr(text)).then(|| text.contains(':'))
    };
    match cidrs.list() {
        [] => return cidrs.required(errors, "at least one CIDR required"),
        [_] => {}
        [one, other] if family(one).zip(family(other)).is_some_and(|(one, other)| one != other) => {}
        [_, _] => {
            let words = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            return cidrs.invalid_value(errors, spec.value.clone(), words);
        }
        _ => return cidrs.invalid_value(errors, spec.value.clone(), "may only hold up to 2 values"),
    }
    for cidr in cidrs.items() {
        cidr.check(errors, format::canonical_cidr(cidr.text()));
    }
}
