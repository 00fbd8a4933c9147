//! IP families of Services.

use ipnet::IpNet;
use kube1_api::field::{FieldError, FieldPath};
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
    let addresses = if headless { Vec::new() } else { addresses_of(service) };
    let path = FieldPath::new("spec");
    if service["spec"]["ipFamilyPolicy"].is_null() {
        let both = families.len() == 2 || addresses.len() == 2;
        if both && !(headless && selectorless) {
            let why =
                "must be RequireDualStack or PreferDualStack when multiple values are provided for `spec.ipFamilies`";
            return Err(AllocationError::Field(FieldError::required(&path.child("ipFamilyPolicy"), why)));
        }
        let policy = if headless && selectorless && old.is_none() { "RequireDualStack" } else { "SingleStack" };
        service["spec"]["ipFamilyPolicy"] = policy.into();
    }
    for address in addresses.iter().skip(families.len()) {
        families.push(if address.is_ipv4() { Family::V4 } else { Family::V6 });
    }
    if families.is_empty() {
        families.push(default);
    }
    let policy = service["spec"]["ipFamilyPolicy"].as_str().unwrap_or_default();
    let dual_possible = configured.len() > 1 || (headless && selectorless);
    match policy {
        "RequireDualStack" if !dual_possible => {
            let why = "this cluster is not configured for dual-stack services";
            let error = FieldError::invalid(&path.child("ipFamilyPolicy"), policy, why);
            return Err(AllocationError::Field(error));
        }
        "RequireDualStack" | "PreferDualStack" if dual_possible && families.len() == 1 => {
            families.push(families[0].other())
        }
        _ => {}
    }
    if !(headless && selectorless) {
        let unknown = families.iter().enumerate().find(|(_, f)| !configured.contains(f));
        if let Some((index, family)) = unknown {
            let error = FieldError::invalid(
                &path.child("ipFamilies").index(index),
                family.as_str(),
                "not configured on this cluster",
            );
            return Err(AllocationError::Field(error));
        }
    }
    if policy == "SingleStack" {
        families.truncate(1);
        trim_second_address(service, old);
    }
    service["spec"]["ipFamilies"] = families.iter().map(|f| Value::from(f.as_str())).collect();
    if headless {
        service["spec"]["clusterIP"] = "None".into();
        service["spec"]["clusterIPs"] = json!(["None"]);
    }
    Ok(())
}

/// Going back to one family drops the second address.
fn trim_second_address(service: &mut Value, old: Option<&Value>) {
    let was_dual = old.is_some_and(|o| o["spec"]["ipFamilies"].as_array().is_some_and(|f| f.len() == 2));
    if was_dual && let Some(addresses) = service["spec"]["clusterIPs"].as_array_mut() {
        addresses.truncate(1);
    }
}
