//! Rules of pods that are no constants.

use serde_json::{Map, Value, json};

use super::rule::{each, fill, is_empty, is_unset, set};
use crate::quantity::Quantity;

/// Rules of pods that do not hold for pod templates.
pub(super) fn pod(pod: &mut Value) {
    let host_network = pod["spec"]["hostNetwork"] == true;
    for list in ["/spec/initContainers", "/spec/containers"] {
        each(pod, list, |container| {
            requests_from_limits(container);
            if host_network {
                each(container, "/ports", host_port);
            }
        });
    }
    if !is_empty(&pod["spec"]["resources"]["limits"])
        && let Some(spec) = pod.get_mut("spec")
    {
        pod_level_requests(spec);
    }
    if let Some(status) = pod.get_mut("status") {
        first_of(status, "podIP", "podIPs");
        first_of(status, "hostIP", "hostIPs");
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(resources) = container.get_mut("resources") else { return };
    let limits = resources["limits"].as_object().cloned().unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    fill(resources, "requests", || Map::new().into());
    if let Some(requests) = resources.get_mut("requests") {
        limits.into_iter().for_each(|(name, limit)| fill(requests, &name, || limit));
    }
}

fn host_port(port: &mut Value) {
    let number = |port: &Value, member: &str| port[member].as_i64().unwrap_or(0);
    if number(port, "hostPort") == 0 && number(port, "containerPort") != 0 {
        set(port, "hostPort", port["containerPort"].clone());
    }
}

/// Requests of the pod as a whole: the sum of its containers', else its limit.
fn pod_level_requests(spec: &mut Value) {
    let sums = container_requests(spec);
    let Some(resources) = spec.get_mut("resources") else { return };
    let limits = resources["limits"].as_object().cloned().unwrap_or_default();
    let mut requests = resources["requests"].as_object().cloned().unwrap_or_default();
    for (name, sum) in sums.iter().filter(|(_, sum)| !sum.is_zero()) {
        requests.entry(name).or_insert_with(|| sum.to_string().into());
    }
    for (name, limit) in limits {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            requests.entry(name).or_insert(limit);
        }
    }
    if !requests.is_empty() {
        set(resources, "requests", requests.into());
    }
}

/// What containers and restartable init containers request together, or one init container before them if that is more.
fn container_requests(spec: &Value) -> Vec<(String, Quantity)> {
    ["cpu", "memory"]
        .into_iter()
        .map(|name| {
            let of = |container: &Value| {
                container["resources"]["requests"][name]
                    .as_str()
                    .and_then(|text| Quantity::parse(text).ok())
                    .unwrap_or(Quantity::ZERO)
            };
            let items = |list: &str| spec[list].as_array().map(Vec::as_slice).unwrap_or_default();
            let mut sidecars = Quantity::ZERO;
            let mut peak = Quantity::ZERO;
            for container in items("initContainers") {
                if container["restartPolicy"] == "Always" {
                    sidecars = sidecars.plus(of(container));
                    peak = if sidecars > peak { sidecars } else { peak };
                } else {
                    let during = sidecars.plus(of(container));
                    peak = if during > peak { during } else { peak };
                }
            }
            let running = items("containers").iter().fold(sidecars, |sum, container| sum.plus(of(container)));
            (name.to_owned(), if running > peak { running } else { peak })
        })
        .collect()
}

/// Keeps an address and the list that it heads alike; the single one wins.
pub(super) fn first_of(status: &mut Value, single: &str, plural: &str) {
    let first = status[plural][0]["ip"].as_str().unwrap_or_default().to_owned();
    let address = status[single].as_str().unwrap_or_default().to_owned();
    if address.is_empty() && !first.is_empty() {
        set(status, single, first.into());
    } else if address != first {
        set(status, plural, json!([{"ip": address}]));
    }
}

/// The old name of the service account's field follows the new one.
pub(super) fn spec(spec: &mut Value) {
    let name = |key: &str| spec.get(key).filter(|v| !is_unset(Some(v))).cloned();
    if let Some(account) = name("serviceAccountName").or_else(|| name("serviceAccount")) {
        set(spec, "serviceAccountName", account.clone());
        set(spec, "serviceAccount", account);
    }
}

pub(super) fn volume(volume: &mut Value) {
    let Some(members) = volume.as_object_mut() else { return };
    if members.iter().all(|(name, value)| name == "name" || value.is_null()) {
        members.insert("emptyDir".into(), Map::new().into());
    }
    if let Some(image) = members.get_mut("image").filter(|image| image.is_object()) {
        let policy = pull_policy(image["reference"].as_str().unwrap_or_default());
        fill(image, "pullPolicy", || policy.into());
    }
}

pub(super) fn container(container: &mut Value) {
    let policy = pull_policy(container.get("image").and_then(Value::as_str).unwrap_or_default());
    fill(container, "imagePullPolicy", || policy.into());
}

/// Images that may change under their name are pulled each time.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.split_once(':'), digest) {
        (Some((_, "latest")), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

pub(super) fn resource_list(list: &mut Value) {
    for amount in list.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(quantity) = amount.as_str().and_then(|text| Quantity::parse(text).ok()) {
            *amount = quantity.rounded_to_millis().to_string().into();
        }
    }
}
