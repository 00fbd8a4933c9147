//! Ingresses, policies, endpoints, addresses.

use serde_json::json;

use super::*;

#[test]
fn ingresses() {
    let path = |path: Value| json!({"spec": {"rules": [{"http": {"paths": [path]}}]}});
    let service = json!({"service": {"name": "s", "port": {"number": 80}}});
    let place = "spec.rules[0].http.paths[0]";
    refused(
        &ingress(),
        &[
            (
                path(json!({"backend": service})),
                &[&format!("{place}.pathType: Required value: pathType must be specified")],
            ),
            (
                path(json!({"backend": service, "pathType": "Some"})),
                &[&format!(
                    "{place}.pathType: Unsupported value: \"Some\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\""
                )],
            ),
            (
                path(json!({"pathType": "Prefix", "path": "/"})),
                &[&format!("{place}.backend: Invalid value: \"\": resource or service backend is required")],
            ),
            (
                path(json!({"pathType": "Prefix", "path": "/", "backend": {"service": {"name": "1s"}}})),
                &[&format!("{place}.backend: Required value: port name or number is required")],
            ),
            (
                path(json!({"pathType": "Prefix", "path": "/", "backend": {"resource": {"kind": "a/b"}}})),
                &[
                    &format!("{place}.backend.resource.kind: Invalid value: \"a/b\": may not contain '/'"),
                    &format!("{place}.backend.resource.name: Required value: name is required"),
                ],
            ),
            (
                json!({"spec": {"tls": [{"secretName": "A"}]}}),
                &[
                    "spec.tls[0].secretName: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                ],
            ),
            (
                json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}}, "spec": {"ingressClassName": "b"}}),
                &[
                    "annotations.kubernetes.io/ingress.class: Invalid value: \"a\": must match `ingressClassName` when both are specified",
                ],
            ),
        ],
    );
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3"}, {"hostname": "1.2.3.4"}]}}});
    assert_eq!(update_status(&ingress(), &status).len(), 2);
    let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "spec": {"controller": "a.b/c"}});
    refused(
        &class,
        &[
            (json!({"spec": {"controller": null}}), &["spec.controller: Required value"]),
            (
                json!({"spec": {"parameters": {"kind": "K", "name": "n", "scope": "Some"}}}),
                &["spec.parameters.scope: Unsupported value: \"Some\": supported values: \"Cluster\", \"Namespace\""],
            ),
        ],
    );
}

#[test]
fn network_policies() {
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": {"podSelector": {}}});
    let port = |port: Value| json!({"spec": {"ingress": [{"ports": [port]}]}});
    let block = |block: Value| json!({"spec": {"egress": [{"to": [{"ipBlock": block}]}]}});
    refused(
        &policy,
        &[
            (
                port(json!({"port": 80, "endPort": 70})),
                &["spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`"],
            ),
            (
                port(json!({"protocol": "IP", "port": 80})),
                &[
                    "spec.ingress[0].ports[0].protocol: Unsupported value: \"IP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                ],
            ),
            (
                block(json!({"cidr": "10.0.0.1/8"})),
                &[
                    "spec.egress[0].to[0].ipBlock.cidr: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length",
                ],
            ),
            (
                block(json!({"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]})),
                &[
                    "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                ],
            ),
            (
                json!({"spec": {"policyTypes": ["Both"]}}),
                &["spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Ingress\", \"Egress\""],
            ),
        ],
    );
}

#[test]
fn slices_and_addresses() {
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"name": "a", "port": 80}]});
    assert_eq!(create(&slice), [""; 0]);
    refused(
        &slice,
        &[
            (
                json!({"endpoints": [{"addresses": ["127.0.0.1", "fd00::1"]}]}),
                &[
                    "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                    "endpoints[0].addresses: Invalid value: \"fd00::1\": must be an IPv4 address",
                ],
            ),
            (
                json!({"endpoints": [{"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": "a"}, {"name": "a"}]}}]}),
                &["endpoints[0].hints.forZones[1].name: Duplicate value: \"a\""],
            ),
            (
                json!({"ports": [{"name": "a"}, {"name": "a", "protocol": "IP"}]}),
                &[
                    "ports[1].name: Duplicate value: \"a\"",
                    "ports[1].protocol: Unsupported value: \"IP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
        ],
    );
    let cidrs =
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "spec": {"cidrs": ["10.0.0.0/24"]}});
    refused(
        &cidrs,
        &[
            (
                json!({"spec": {"cidrs": ["10.0.0.0/24", "10.1.0.0/24"]}}),
                &[
                    "spec.cidrs: Invalid value: {\"cidrs\":[\"10.0.0.0/24\",\"10.1.0.0/24\"]}: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
                ],
            ),
            (
                json!({"spec": {"cidrs": ["FD00::/112"]}}),
                &["spec.cidrs[0]: Invalid value: \"FD00::/112\": must be in canonical form (\"fd00::/112\")"],
            ),
        ],
    );
    let address = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": "10.0.0.1"},
        "spec": {"parentRef": {"resource": "services", "name": "s"}}});
    refused(
        &address,
        &[
            (json!({"spec": {"parentRef": {"resource": null}}}), &["spec.parentRef.resource: Required value"]),
            (
                json!({"metadata": {"name": "FD00::1"}}),
                &["metadata.name: Invalid value: \"FD00::1\": must be in canonical form (\"fd00::1\")"],
            ),
        ],
    );
}
