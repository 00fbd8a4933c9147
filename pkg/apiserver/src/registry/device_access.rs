//! Access to devices that are in use by others: only for claims of namespaces that an administrator labelled.

use kube1_api::field::{FieldError, FieldPath};
use serde_json::Value;

use super::Endpoint;

const LABEL: &str = "resource.kubernetes.io/admin-access";

impl Endpoint {
    /// What is wrong with asking for such access, or with granting it, in this namespace.
    pub(super) fn admin_access(&self, subresource: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        if self.row.group != "resource.k8s.io" {
            return Vec::new();
        }
        let asked = match (self.row.plural.as_str(), subresource, old) {
            ("resourceclaims", "", None) => asked(&new["spec"]),
            ("resourceclaimtemplates", "", None) => asked(&new["spec"]["spec"]),
            ("resourceclaims", "status", Some(old)) if granted(old).is_none() => granted(new),
            _ => None,
        };
        let Some(path) = asked.filter(|_| !self.is_labelled()) else { return Vec::new() };
        let detail = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
        vec![FieldError::forbidden(&path, detail)]
    }

    fn is_labelled(&self) -> bool {
        let row = self.server.table.load().stored("", "namespaces");
        let namespace = row.and_then(|row| self.server.storage.collection(&row).get("", &self.namespace));
        namespace.is_some_and(|namespace| namespace.label(LABEL) == Some("true"))
    }
}

/// The first request that asks for it. Upstream names it so in templates, too.
fn asked(spec: &Value) -> Option<FieldPath> {
    let requests = spec["devices"]["requests"].as_array()?;
    let index = requests.iter().position(|request| request["exactly"]["adminAccess"] == true)?;
    let path = FieldPath::new("spec").child("devices").child("requests");
    Some(path.index(index).child("adminAccess"))
}

/// The first device given so.
fn granted(claim: &Value) -> Option<FieldPath> {
    let results = claim["status"]["allocation"]["devices"]["results"].as_array()?;
    let index = results.iter().position(|result| result["adminAccess"] == true)?;
    let path = FieldPath::new("status").child("allocation").child("devices").child("results");
    Some(path.index(index).child("adminAccess"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_one_is_named() {
        let spec = json!({"devices": {"requests": [{"exactly": {}}, {"firstAvailable": [{}]}, {"exactly": {"adminAccess": true}}]}});
        assert_eq!(asked(&spec).map(|path| path.to_string()).as_deref(), Some("spec.devices.requests[2].adminAccess"));
        assert!(asked(&json!({"devices": {"requests": [{"exactly": {"adminAccess": false}}]}})).is_none());
        let claim = json!({"status": {"allocation": {"devices": {"results": [{"adminAccess": true}]}}}});
        let path = granted(&claim).map(|path| path.to_string());
        assert_eq!(path.as_deref(), Some("status.allocation.devices.results[0].adminAccess"));
        assert!(granted(&json!({"status": {}})).is_none());
    }
}
