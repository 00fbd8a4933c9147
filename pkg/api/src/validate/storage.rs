//! Volumes, claims and storage classes.

use super::at::At;
use super::selector::label_selector;
use super::{Errors, format};

pub(super) fn driver_name(driver: &At, errors: &mut Errors) {
    if driver.need(errors) {
        if driver.text().len() > 63 {
            driver.too_long(errors, 63);
        }
        driver.check(errors, format::dns_subdomain(&driver.text().to_lowercase()));
    }
}

/// Spec of a claim, also of a claim template.
pub(super) fn claim_spec(spec: &At, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        modes.required(errors, "at least 1 access mode is required");
    }
    if modes.list().len() > 1 && modes.list().iter().any(|m| m == "ReadWriteOncePod") {
        modes.forbidden(errors, "may not use ReadWriteOncePod with other access modes");
    }
    label_selector(&spec.get("selector"), errors);
    let requests = spec.get("resources.requests");
    let storage = requests.key("storage");
    match storage.quantity() {
        None => storage.required(errors, ""),
        Some(amount) if amount.is_zero() || amount.is_negative() => {
            storage.invalid(errors, "must be greater than zero")
        }
        Some(_) => {}
    }
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        class.check(errors, format::dns_subdomain(class.text()));
    }
    for source in ["dataSource", "dataSourceRef"] {
        let source = spec.get(source);
        if source.is_set() {
            source.get("name").need(errors);
            source.get("kind").need(errors);
            if source.get("apiGroup").is_empty() && source.str("kind") != "PersistentVolumeClaim" {
                source.invalid(errors, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
            }
        }
    }
}
