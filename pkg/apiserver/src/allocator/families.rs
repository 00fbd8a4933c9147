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
    if service["spec"]["ipFamilyPolicy"] == "SingleStack" {
        narrow(service, old, &mut families);
    }
    let mut errors = Vec::new();
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
