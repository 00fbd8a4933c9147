//! IP families of Services.

use ipnet::IpNet;
use kube1_api::field::{FieldError, FieldPath};
use kube1_api::validate::service_addresses;
use serde_json::{Value, json};

use super::AllocationError;
use super::claims::{addresses_of, is_external, is_headless};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

pub(super) fn of_range(range: &IpNet) -> Family {
    if range.addr().is_ipv4() { Family::V4 } else { Family::V6 }
}

pub(super) fn of_service(service: &Value) -> Vec<Family> {
    let listed = service["spec"]["ipFamilies"].as_array().into_iter().flatten();
    listed.map(|f| if f == "IPv6" { Family::V6 } else { Family::V4 }).collect()
}

/// Fills in ipFamilies and ipFamilyPolicy, and brings clusterIP and clusterIPs together. `configured` are the cluster's
/// families, the default one first.
pub(super) fn fill(service: &mut Value, old: Option<&Value>, configured: &[Family]) -> Result<(), AllocationError> {
    if is_external(service) {
        return Ok(());
    }
    let spec = &mut service["spec"];
    if spec["clusterIPs"].as_array().is_none_or(Vec::is_empty)
        && spec["clusterIP"].as_str().is_some_and(|ip| !ip.is_empty())
    {
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
    }
    if old.is_some_and(|old| keeps_preference(service, old)) {
        return Ok(());
    }
    let headless = is_headless(service);
    let selectorless = service["spec"]["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    let default = configured.first().copied().unwrap_or(Family::V4);
    let mut families = of_service(service);
    let path = FieldPath::new("spec");
    if service["spec"]["ipFamilyPolicy"].is_null() {
        let before = old.map(|old| old["spec"]["ipFamilyPolicy"].clone()).filter(|policy| !policy.is_null());
        let policy = if headless && selectorless { "RequireDualStack" } else { "SingleStack" };
        service["spec"]["ipFamilyPolicy"] = before.unwrap_or_else(|| policy.into());
    }
    let wrong = service_addresses(service, old);
    if !wrong.is_empty() {
        return Err(AllocationError::Fields(wrong));
    }
    let mut errors = Vec::new();
    if service["spec"]["ipFamilyPolicy"] == "SingleStack" {
        narrow(service, old, &mut families);
    } else {
        for (list, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
            if old.is_some_and(|old| (1..count(old, list)).contains(&count(service, list))) {
                let why = format!("must be 'SingleStack' to release the secondary {what}");
                let policy = service["spec"]["ipFamilyPolicy"].clone();
                errors.push(FieldError::invalid(&path.child("ipFamilyPolicy"), policy, why));
            }
        }
    }
    let addresses = if headless { Vec::new() } else { addresses_of(service) };
    let policy = service["spec"]["ipFamilyPolicy"].as_str().unwrap_or_default();
    let mut wrong_policy = |why: &str| errors.push(FieldError::invalid(&path.child("ipFamilyPolicy"), policy, why));
    if policy == "SingleStack" {
        for (count, what) in [(addresses.len(), "cluster IPs"), (families.len(), "IP families")] {
            if count == 2 {
                let ask = "must be 'RequireDualStack' or 'PreferDualStack' when multiple";
                wrong_policy(&format!("{ask} {what} are specified"));
            }
        }
    }
    for (index, address) in addresses.iter().enumerate().skip(families.len()) {
        let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
        if configured.contains(&family) {
            families.push(family);
        } else {
            let why = format!("{} is not configured on this cluster", family.as_str());
            let at = path.child("clusterIPs").index(index);
            errors.push(FieldError::invalid(&at, service["spec"]["clusterIPs"].clone(), why));
        }
    }
    if !errors.is_empty() {
        return Err(AllocationError::Fields(errors));
    }
    let free = headless && selectorless;
    let dual_possible = configured.len() > 1 || free;
    if policy == "RequireDualStack" && !dual_possible {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(&path.child("ipFamilyPolicy"), policy, why));
    }
    for (index, family) in families.iter().enumerate().filter(|(_, f)| !free && !configured.contains(f)) {
        let at = path.child("ipFamilies").index(index);
        errors.push(FieldError::invalid(&at, family.as_str(), "not configured on this cluster"));
    }
    if !errors.is_empty() {
        return Err(AllocationError::Fields(errors));
    }
    if families.is_empty() {
        families.push(default);
    }
    if policy != "SingleStack" && dual_possible && families.len() == 1 {
        families.push(families[0].other());
    }
    service["spec"]["ipFamilies"] = families.iter().map(|f| Value::from(f.as_str())).collect();
    if headless {
        service["spec"]["clusterIP"] = "None".into();
        service["spec"]["clusterIPs"] = json!(["None"]);
    }
    Ok(())
}

fn count(service: &Value, list: &str) -> usize {
    service["spec"][list].as_array().map_or(0, Vec::len)
}

/// Whether a Service that prefers two families is left as it is: it gets or loses one only when that is asked for, not by
/// a change of the cluster.
fn keeps_preference(service: &Value, old: &Value) -> bool {
    let kept = |member: &str| service["spec"][member] == old["spec"][member];
    service["spec"]["ipFamilyPolicy"] == "PreferDualStack"
        && ["ipFamilyPolicy", "clusterIPs", "ipFamilies"].into_iter().all(kept)
}

/// Asking for one family, with all else left as it was, drops the second one and its address.
fn narrow(service: &mut Value, old: Option<&Value>, families: &mut Vec<Family>) {
    let Some(old) = old else { return };
    for list in ["clusterIPs", "ipFamilies"] {
        if service["spec"][list] == old["spec"][list]
            && let Some(items) = service["spec"][list].as_array_mut()
        {
            items.truncate(1);
        }
    }
    *families = of_service(service);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_change_when_that_is_asked_for() {
        let both = json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack"});
        let one = json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "PreferDualStack"});
        let single = json!({"ipFamilyPolicy": "SingleStack"});
        let fewer = json!({"clusterIPs": ["10.0.0.1"], "ipFamilies": null});
        let refused = "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the \
                       secondary cluster IP";
        for (old, patch, expected) in [
            (&both, json!({}), Ok(["IPv4", "IPv6"].as_slice())),
            (&both, json!({"ipFamilies": null, "ipFamilyPolicy": null}), Ok(&["IPv4", "IPv6"])),
            (&both, single, Ok(&["IPv4"])),
            (&both, fewer, Err(refused)),
            // The cluster has got a second family since.
            (&one, json!({}), Ok(&["IPv4"])),
            (&one, json!({"ipFamilies": ["IPv4", "IPv6"]}), Ok(&["IPv4", "IPv6"])),
            (&one, json!({"ipFamilyPolicy": "RequireDualStack"}), Ok(&["IPv4", "IPv6"])),
        ] {
            let old = json!({"spec": old});
            let mut new = kube1_api::patch::merge_patch(&old, &json!({"spec": patch}));
            let found = fill(&mut new, Some(&old), &[Family::V4, Family::V6]);
            let found = found.map(|()| new["spec"]["ipFamilies"].clone()).map_err(|error| match error {
                AllocationError::Fields(errors) => errors.iter().map(ToString::to_string).collect::<String>(),
                other => format!("{other:?}"),
            });
            assert_eq!(found, expected.map(|list| json!(list)).map_err(str::to_owned), "{patch}");
        }
    }
}
