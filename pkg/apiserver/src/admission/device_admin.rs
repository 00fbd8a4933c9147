//! Access to devices that others use is for namespaces that an administrator has marked (KEP-5018).

use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::field::{FieldError, FieldPath};
use kube1_api::name::GroupKind;
use kube1_api::status::Status;
use serde_json::Value;

use super::pod_defaults::items;
use super::{Attributes, Operation, Plugin};
use crate::reader::StorageReader;

const GROUP: &str = "resource.k8s.io";
const LABEL: &str = "resource.kubernetes.io/admin-access";

/// Refuses claims with `adminAccess` elsewhere. Upstream does this where claims are stored.
pub struct DeviceAdminAccess {
    reader: Arc<StorageReader>,
}

impl DeviceAdminAccess {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader }
    }
}

/// The first member that asks for it, of what may be written now.
fn asked(attributes: &Attributes) -> Option<FieldPath> {
    let object = attributes.object.as_ref()?;
    let spec = FieldPath::new("spec").child("devices").child("requests");
    let in_spec =
        |spec_of: &Value| items(&spec_of["devices"]["requests"]).position(|r| r["exactly"]["adminAccess"] == true);
    match (&*attributes.resource.plural, attributes.operation, &*attributes.subresource) {
        ("resourceclaims", Operation::Create, "") => Some(spec.index(in_spec(&object["spec"])?)),
        ("resourceclaimtemplates", Operation::Create, "") => Some(spec.index(in_spec(&object["spec"]["spec"])?)),
        ("resourceclaims", Operation::Update, "status") => {
            let results = |object: &Value| object["status"]["allocation"]["devices"]["results"].clone();
            // What was once allocated stays so, whatever becomes of the label.
            if attributes.old.as_ref().is_some_and(|old| items(&results(old)).any(|r| r["adminAccess"] == true)) {
                return None;
            }
            let index = items(&results(object)).position(|result| result["adminAccess"] == true)?;
            let status = FieldPath::new("status").child("allocation").child("devices").child("results");
            Some(status.index(index))
        }
        _ => None,
    }
}

#[async_trait]
impl Plugin for DeviceAdminAccess {
    fn name(&self) -> &'static str {
        "DeviceAdminAccess"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.resource.group == GROUP && asked(attributes).is_some()
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(path) = asked(attributes) else { return Ok(()) };
        let namespace = self.reader.collection("", "namespaces").and_then(|c| c.get("", &attributes.namespace));
        if namespace.is_some_and(|namespace| namespace.label(LABEL) == Some("true")) {
            return Ok(());
        }
        let why = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
        let errors = vec![FieldError::forbidden(&path.child("adminAccess"), why)];
        Err(Status::invalid(&GroupKind::new(GROUP, &attributes.resource.kind), attributes.object_name(), errors))
    }
}
