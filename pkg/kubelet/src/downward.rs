//! What a pod may learn of itself: its fields and its containers' resources.

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use kube1_api::quantity::Quantity;

use crate::pod::{self, PodExt};

/// Why a reference has no value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DownwardError {
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("unsupported container resource: {0}")]
    Resource(String),
    #[error("container \"{0}\" not found")]
    Container(String),
}

/// What only the node knows of a pod.
#[derive(Clone, Debug, Default)]
pub struct PodFacts {
    pub pod_ips: Vec<String>,
    pub host_ips: Vec<String>,
    pub node_name: String,
    /// What limits default to.
    pub allocatable_cpu_millis: i64,
    pub allocatable_memory: i64,
}

/// The value of a `fieldRef`.
pub fn field(pod: &Pod, facts: &PodFacts, selector: &ObjectFieldSelector) -> Result<String, DownwardError> {
    let path = selector.field_path.as_str();
    let meta = &pod.metadata;
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(meta.labels.as_ref().and_then(|l| l.get(key)).cloned().unwrap_or_default());
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(meta.annotations.as_ref().and_then(|a| a.get(key)).cloned().unwrap_or_default());
    }
    let value = match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => key_values(meta.labels.iter().flatten()),
        "metadata.annotations" => key_values(meta.annotations.iter().flatten()),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => pod.spec().service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => facts.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(DownwardError::Field(path.to_owned())),
    };
    Ok(value)
}

fn subscript<'a>(path: &'a str, field: &str) -> Option<&'a str> {
    path.strip_prefix(field)?.strip_prefix("['")?.strip_suffix("']")
}

/// One `key="value"` line for each, the value with Go's escapes.
fn key_values<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let lines: Vec<String> = pairs.map(|(k, v)| format!("{k}={}", quote(v))).collect();
    lines.join("\n")
}

fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a `resourceFieldRef`; `own` is the container that asks where the reference names none.
pub fn resource(
    pod: &Pod,
    facts: &PodFacts,
    selector: &ResourceFieldSelector,
    own: Option<&Container>,
) -> Result<String, DownwardError> {
    let name = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let found = match name {
        Some(name) => pod::containers(pod.spec()).into_iter().map(|(_, c)| c).find(|c| c.name == name),
        None => own.cloned(),
    };
    let container = found.ok_or_else(|| DownwardError::Container(name.unwrap_or_default().to_owned()))?;
    let unknown = || DownwardError::Resource(selector.resource.clone());
    let (list, resource) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let set = match list {
        "limits" => pod::limit(&container, resource).filter(|q| !q.is_zero()).or(match resource {
            "cpu" => Some(Quantity::from_millis(facts.allocatable_cpu_millis)),
            "memory" => Some(Quantity::from_units(facts.allocatable_memory)),
            _ => None,
        }),
        "requests" => pod::request(&container, resource).or_else(|| pod::limit(&container, resource)),
        _ => return Err(unknown()),
    };
    let value = set.unwrap_or_else(|| Quantity::from_units(0));
    let divisor = selector.divisor.as_ref().and_then(|d| Quantity::parse(&d.0).ok()).filter(|d| !d.is_zero());
    let divisor = divisor.unwrap_or_else(|| Quantity::from_units(1));
    let result = if resource == "cpu" {
        round_up(value.millis(), divisor.millis())
    } else {
        round_up(value.units(), divisor.units())
    };
    Ok(result.to_string())
}

fn round_up(value: i64, divisor: i64) -> i64 {
    let divisor = divisor.max(1);
    value / divisor + i64::from(value % divisor > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_resources_have_upstreams_form() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"p","namespace":"n","uid":"u","labels":{"a":"x\"y","b":"2"}},
            "spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"1500m"},"requests":{"memory":"100Mi"}}}]}}"#,
        )
        .expect("a pod");
        let facts = PodFacts { allocatable_memory: 4096, ..PodFacts::default() };
        let get = |path: &str| {
            let selector = ObjectFieldSelector { field_path: path.into(), ..Default::default() };
            field(&pod, &facts, &selector)
        };
        assert_eq!(get("metadata.labels").as_deref(), Ok("a=\"x\\\"y\"\nb=\"2\""));
        assert_eq!(get("metadata.labels['b']").as_deref(), Ok("2"));
        assert!(get("spec.containers").is_err());
        let own = &pod.spec().containers[0];
        let cases = [
            ("limits.cpu", "", "2"),
            ("limits.cpu", "1m", "1500"),
            ("requests.memory", "1Mi", "100"),
            ("limits.memory", "1", "4096"),
        ];
        for (name, divisor, wanted) in cases {
            let divisor = (!divisor.is_empty()).then(|| serde_json::from_value(divisor.into()).expect("a quantity"));
            let selector = ResourceFieldSelector { resource: name.into(), divisor, ..Default::default() };
            assert_eq!(resource(&pod, &facts, &selector, Some(own)).as_deref(), Ok(wanted), "{name}");
        }
    }
}
