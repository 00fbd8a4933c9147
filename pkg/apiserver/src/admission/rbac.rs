//! RBACEscalation: nobody may hand out permissions that they do not have.

use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::status::Status;

use super::{Attributes, Operation, Plugin};
use crate::authz::{Authorizer, RBAC_GROUP, Rbac, RoleWrite, check_escalation};

/// Checks writes of roles and bindings, see [`check_escalation`]. Upstream does this in the storage of these resources.
pub struct RbacEscalation {
    rbac: Arc<Rbac>,
    authorizer: Arc<dyn Authorizer>,
}

impl RbacEscalation {
    pub fn new(rbac: Arc<Rbac>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { rbac, authorizer }
    }
}

#[async_trait]
impl Plugin for RbacEscalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.resource.group == RBAC_GROUP
            && attributes.subresource.is_empty()
            && matches!(attributes.operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(object) = attributes.object.as_ref() else { return Ok(()) };
        let write = RoleWrite {
            plural: &attributes.resource.plural,
            namespace: &attributes.namespace,
            name: attributes.object_name(),
            object,
            old: attributes.old.as_ref(),
        };
        check_escalation(&self.rbac, &*self.authorizer, &attributes.user, write).await
    }
}
