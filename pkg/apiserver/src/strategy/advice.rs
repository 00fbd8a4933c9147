//! Advice about single kinds: what is deprecated, means nothing, or will not work.

use kube1_api::validate::ip_advice;
use serde_json::Value;

use super::core_advice::{deprecated_label, items};
use super::volume_advice;

const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";
/// Completions and parallelism of an indexed job above which its indexes may not be told any more.
const MANY_COMPLETIONS: i64 = 100_000;
const MANY_PODS: i64 = 10_000;

type Advice = fn(&Value, Option<&Value>, &mut Vec<String>);

/// By group and plural.
const ADVICE: &[(&str, &str, Advice)] = &[
    ("", "endpoints", endpoints),
    ("", "nodes", node),
    ("", "persistentvolumes", volume_advice::persistent_volume),
    ("apps", "statefulsets", stateful_set),
    ("batch", "cronjobs", cron_job),
    ("batch", "jobs", job),
    ("discovery.k8s.io", "endpointslices", endpoint_slice),
    ("networking.k8s.io", "ingresses", ingress),
    ("networking.k8s.io", "networkpolicies", network_policy),
    ("node.k8s.io", "runtimeclasses", runtime_class),
    ("storage.k8s.io", "csistoragecapacities", storage_capacity),
    ("storage.k8s.io", "storageclasses", storage_class),
];

/// What to tell the writer of a `new` object of this kind.
pub(super) fn about(group: &str, plural: &str, new: &Value, old: Option<&Value>, warnings: &mut Vec<String>) {
    if let Some((.., advice)) = ADVICE.iter().find(|(g, p, _)| (*g, *p) == (group, plural)) {
        advice(new, old, warnings);
    }
}

fn stateful_set(new: &Value, _: Option<&Value>, warnings: &mut Vec<String>) {
    if new["spec"]["revisionHistoryLimit"].as_i64().is_some_and(|limit| limit < 0) {
        warnings.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .into(),
        );
    }
}

fn job(new: &Value, old: Option<&Value>, warnings: &mut Vec<String>) {
    if old.is_none_or(|old| old["spec"] != new["spec"]) {
        job_spec("spec", &new["spec"], warnings);
    }
}

fn job_spec(path: &str, spec: &Value, warnings: &mut Vec<String>) {
    let above = |field: &str, max: i64| spec[field].as_i64().is_some_and(|n| n > max);
    if spec["completionMode"] == "Indexed" && above("completions", MANY_COMPLETIONS) && above("parallelism", MANY_PODS)
    {
        warnings.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
}

fn cron_job(new: &Value, old: Option<&Value>, warnings: &mut Vec<String>) {
    if old.is_none_or(|old| old["spec"] != new["spec"]) {
        job_spec("spec.jobTemplate.spec", &new["spec"]["jobTemplate"]["spec"], warnings);
    }
    if new["spec"]["schedule"].as_str().is_some_and(|schedule| schedule.contains("TZ")) {
        warnings.push(
            "CRON_TZ or TZ used in spec.spec.schedule is not officially supported, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                .into(),
        );
    }
}

fn endpoint_slice(new: &Value, _: Option<&Value>, warnings: &mut Vec<String>) {
    if new["addressType"] == "FQDN" {
        warnings.push("spec.addressType: FQDN endpoints are deprecated".into());
    }
    for (index, endpoint) in items(&new["endpoints"]) {
        for (place, address) in items(&endpoint["addresses"]).filter(|_| new["addressType"] == "IPv6") {
            let text = address.as_str().unwrap_or_default();
            let normal = text.parse::<std::net::Ipv6Addr>().map(|address| address.to_string());
            if let Ok(normal) = normal.as_deref().map_err(|_| ()).and_then(|n| if n == text { Err(()) } else { Ok(n) })
            {
                warnings.push(format!(
                    "endpoints[{index}].addresses[{place}]: IPv6 address {text:?} should be in RFC 5952 canonical format ({normal:?})"
                ));
            }
        }
    }
}

fn ingress(new: &Value, old: Option<&Value>, warnings: &mut Vec<String>) {
    let annotated = new["metadata"]["annotations"][INGRESS_CLASS].is_string();
    if old.is_none() && annotated && new["spec"]["ingressClassName"].is_null() {
        let words = format!("annotation {INGRESS_CLASS:?} is deprecated, please use 'spec.ingressClassName' instead");
        warnings.push(words);
    }
}

fn network_policy(new: &Value, _: Option<&Value>, warnings: &mut Vec<String>) {
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for (rule_index, rule) in items(&new["spec"][rules]) {
            for (peer_index, peer) in items(&rule[peers]) {
                let (path, block) =
                    (format!("spec.{rules}[{rule_index}].{peers}[{peer_index}].ipBlock"), &peer["ipBlock"]);
                network(&format!("{path}.cidr"), &block["cidr"], warnings);
                for (index, except) in items(&block["except"]) {
                    network(&format!("{path}.except[{index}]"), except, warnings);
                }
            }
        }
    }
}

fn network(path: &str, cidr: &Value, warnings: &mut Vec<String>) {
    let text = cidr.as_str().unwrap_or_default();
    let Some((address, length)) = text.split_once('/') else { return };
    let Ok(address) = address.parse::<std::net::Ipv6Addr>() else { return };
    let normal = format!("{address}/{length}");
    if normal != text {
        warnings.push(format!("{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({normal:?})"));
    }
}

fn endpoints(new: &Value, _: Option<&Value>, warnings: &mut Vec<String>) {
    if new["metadata"]["labels"]["endpoints.kubernetes.io/managed-by"] == "endpoints-controller" {
        return;
    }
    for (subset_index, subset) in items(&new["subsets"]) {
        for list in ["addresses", "notReadyAddresses"] {
            for (index, address) in items(&subset[list]) {
                let at = format!("subsets[{subset_index}].{list}[{index}].ip");
                warnings.extend(ip_advice(&at, address["ip"].as_str().unwrap_or_default()));
            }
        }
    }
}

fn node(new: &Value, _: Option<&Value>, warnings: &mut Vec<String>) {
    if !new["spec"]["configSource"].is_null() {
        warnings.push("spec.configSource: the feature is removed".into());
    }
    if new["spec"]["externalID"].as_str().is_some_and(|id| !id.is_empty()) {
        warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
    }
}

fn runtime_class(new: &Value, _: Option<&Value>, warnings: &mut Vec<String>) {
    let labels = new["scheduling"]["nodeSelector"].as_object().into_iter().flatten();
    let old = labels.filter_map(|(label, _)| deprecated_label(label));
    warnings.extend(old.map(|words| format!("scheduling.nodeSelector: {words}")));
}

fn storage_capacity(new: &Value, _: Option<&Value>, warnings: &mut Vec<String>) {
    let topology = &new["nodeTopology"];
    super::core_advice::expressions("nodeTopology", topology, false, warnings);
    for (label, _) in topology["matchLabels"].as_object().into_iter().flatten() {
        if let Some(words) = deprecated_label(label) {
            warnings.push(format!("nodeTopology.matchLabels.{label}: {words}"));
        }
    }
}

fn storage_class(new: &Value, _: Option<&Value>, warnings: &mut Vec<String>) {
    for (term_index, term) in items(&new["allowedTopologies"]) {
        for (index, requirement) in items(&term["matchLabelExpressions"]) {
            let label = requirement["key"].as_str().unwrap_or_default();
            if let Some(words) = deprecated_label(label) {
                let path = format!("allowedTopologies[{term_index}].matchLabelExpressions[{index}].key");
                warnings.push(format!("{path}: {label} is {words}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn writers_are_told_what_is_out_of_date() {
        let old_zone = "failure-domain.beta.kubernetes.io/zone";
        for (group, plural, object, expected) in [
            (
                "",
                "endpoints",
                json!({"subsets": [{"notReadyAddresses": [{"ip": "010.0.0.1"}]}]}),
                "subsets[0].notReadyAddresses[0].ip: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\"",
            ),
            (
                "",
                "endpoints",
                json!({"metadata": {"labels": {"endpoints.kubernetes.io/managed-by": "endpoints-controller"}},
                    "subsets": [{"addresses": [{"ip": "010.0.0.1"}]}]}),
                "",
            ),
            (
                "",
                "nodes",
                json!({"spec": {"configSource": {}, "externalID": "x"}}),
                "spec.configSource: the feature is removed; spec.externalID: this field is deprecated, and is unused by Kubernetes",
            ),
            (
                "node.k8s.io",
                "runtimeclasses",
                json!({"scheduling": {"nodeSelector": {"beta.kubernetes.io/os": "a"}}}),
                "scheduling.nodeSelector: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            ),
            (
                "storage.k8s.io",
                "csistoragecapacities",
                json!({"nodeTopology": {"matchLabels": {"app.kubernetes.io/created-by": "a"}}}),
                "nodeTopology.matchLabels.app.kubernetes.io/created-by: deprecated since v1.9",
            ),
            (
                "networking.k8s.io",
                "ingresses",
                json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}}}),
                "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead",
            ),
            ("networking.k8s.io", "ingresses", json!({"spec": {"ingressClassName": "a"}}), ""),
            ("apps", "statefulsets", json!({"spec": {"revisionHistoryLimit": 0}}), ""),
            (
                "apps",
                "statefulsets",
                json!({"spec": {"revisionHistoryLimit": -1}}),
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended",
            ),
            (
                "discovery.k8s.io",
                "endpointslices",
                json!({"addressType": "IPv6", "endpoints": [{"addresses": ["FD00::1", "fd00::1"]}]}),
                "endpoints[0].addresses[0]: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
            ),
            (
                "networking.k8s.io",
                "networkpolicies",
                json!({"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "FD00::/8"}}]}]}}),
                "spec.egress[0].to[0].ipBlock.cidr: IPv6 CIDR value \"FD00::/8\" should be in RFC 5952 canonical format (\"fd00::/8\")",
            ),
            (
                "storage.k8s.io",
                "storageclasses",
                json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": old_zone}]}]}),
                "allowedTopologies[0].matchLabelExpressions[0].key: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
            ),
        ] {
            let mut warnings = Vec::new();
            about(group, plural, &object, None, &mut warnings);
            assert_eq!(warnings.join("; "), expected, "{plural}: {object}");
        }
    }
}
