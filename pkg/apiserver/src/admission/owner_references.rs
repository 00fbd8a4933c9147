//! OwnerReferencesPermissionEnforcement: who makes an object somebody's must be allowed to delete it, and who keeps an owner
//! from going must be allowed to.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use kube1_api::resource::ResourceTable;
use kube1_api::status::Status;
use serde_json::Value;

use super::pod_defaults::items;
use super::{Attributes, Operation, Plugin};
use crate::authz::{Authorizer, Decision};
use crate::request_info::RequestInfo;

pub struct OwnerReferencesPermissionEnforcement {
    authorizer: Arc<dyn Authorizer>,
    table: Arc<ArcSwap<ResourceTable>>,
}

impl OwnerReferencesPermissionEnforcement {
    pub fn new(authorizer: Arc<dyn Authorizer>, table: Arc<ArcSwap<ResourceTable>>) -> Self {
        Self { authorizer, table }
    }

    /// Whether the user may, or what is said about it.
    async fn permits(&self, attributes: &Attributes, request: RequestInfo) -> Result<(), String> {
        match self.authorizer.authorize(&attributes.user, &request).await {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(format!("{reason}, <nil>")),
        }
    }

    /// The request that stands for keeping the owner from going.
    fn keeping(&self, attributes: &Attributes, owner: &Value) -> Result<RequestInfo, String> {
        let text = |key: &str| owner[key].as_str().unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let row = self.table.load().by_kind(group, version, kind).ok_or_else(|| {
            let why = format!("no matches for kind {kind:?} in version {api_version:?}");
            format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} \
                 Kind {kind}: {why}"
            )
        })?;
        Ok(RequestInfo {
            is_resource: true,
            verb: "update".into(),
            group: row.group.clone(),
            version: row.version.clone(),
            resource: row.plural.clone(),
            subresource: "finalizers".into(),
            namespace: if row.namespaced { attributes.namespace.clone() } else { String::new() },
            name: text("name").to_owned(),
            ..RequestInfo::default()
        })
    }
}

/// Owners that would now wait for the object, which they did not before.
fn newly_blocked<'a>(new: &'a Value, old: &'a Value) -> Vec<&'a Value> {
    let blocks = |owner: &Value| owner["blockOwnerDeletion"] == true;
    let before: Vec<&Value> = items(old).filter(|owner| blocks(owner)).map(|owner| &owner["uid"]).collect();
    items(new).filter(|owner| blocks(owner) && !before.contains(&&owner["uid"])).collect()
}

#[async_trait]
impl Plugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        let ignored = attributes.is("", "pods") && attributes.subresource == "status";
        !ignored && matches!(attributes.operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let owners = |object: &Option<Value>| match object {
            Some(object) => object["metadata"]["ownerReferences"].clone(),
            None => Value::Null,
        };
        let (new, old) = (owners(&attributes.object), owners(&attributes.old));
        if items(&new).eq(items(&old)) {
            return Ok(());
        }
        // Who creates an object could as well not create it.
        if attributes.operation != Operation::Create {
            let request = RequestInfo {
                is_resource: true,
                verb: "delete".into(),
                group: attributes.resource.group.clone(),
                version: attributes.resource.version.clone(),
                resource: attributes.resource.plural.clone(),
                subresource: attributes.subresource.clone(),
                namespace: attributes.namespace.clone(),
                name: attributes.name.clone(),
                ..RequestInfo::default()
            };
            if let Err(reason) = self.permits(attributes, request).await {
                let why = format!("cannot set an ownerRef on a resource you can't delete: {reason}");
                return Err(attributes.forbidden(why));
            }
        }
        for owner in newly_blocked(&new, &old) {
            let request = self.keeping(attributes, owner).map_err(|why| attributes.forbidden(why))?;
            if let Err(reason) = self.permits(attributes, request).await {
                let why = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on";
                return Err(attributes.forbidden(format!("{why}: {reason}")));
            }
        }
        Ok(())
    }
}
