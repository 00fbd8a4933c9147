//! Stands in for modules that are on their way.

use std::sync::Arc;

use kube1_api::resource::Resource;
use kube1_api::status::Status;
use serde_json::Value;

use crate::request_info::RequestInfo;
use crate::user::UserInfo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

pub struct Attributes {
    pub user: UserInfo,
    pub request: RequestInfo,
    pub resource: Arc<Resource>,
    pub operation: Operation,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub object: Option<Value>,
    pub old: Option<Value>,
    pub options: Value,
    pub dry_run: bool,
    pub warnings: Vec<String>,
}

#[derive(Default)]
pub struct Admission;

impl Admission {
    pub async fn mutate(&self, _: &mut Attributes) -> Result<(), Status> {
        Ok(())
    }

    pub async fn validate(&self, _: &mut Attributes) -> Result<(), Status> {
        Ok(())
    }
}

pub mod strategy {
    use kube1_api::resource::Resource;
    use serde_json::Value;

    pub fn prepare_create(row: &Resource, object: &mut Value) {
        if let (true, Some(members)) = (row.has_status() && row.plural != "namespaces", object.as_object_mut()) {
            members.remove("status");
        }
        if row.plural == "namespaces" {
            object["status"] = serde_json::json!({"phase": "Active"});
            object["spec"] = serde_json::json!({"finalizers": ["kubernetes"]});
        }
        if row.plural == "pods" {
            object["status"] = serde_json::json!({"phase": "Pending"});
        }
        object["metadata"]["generation"] = 1.into();
    }

    pub fn prepare_update(row: &Resource, subresource: &str, new: &mut Value, old: &Value) {
        let (from, to) = (old.clone(), new.clone());
        match subresource {
            "status" => {
                *new = from;
                new["status"] = to["status"].clone();
            }
            "" if row.has_status() => new["status"] = from["status"].clone(),
            _ => {}
        }
        if new["status"].is_null() {
            new.as_object_mut().and_then(|m| m.remove("status"));
        }
        if new["spec"] != old["spec"] {
            new["metadata"]["generation"] = (old["metadata"]["generation"].as_i64().unwrap_or(0) + 1).into();
        }
    }

    pub fn warnings(_: &Resource, _: &Value, _: Option<&Value>) -> Vec<String> {
        Vec::new()
    }
}

pub fn track_update(_: &Resource, _: Option<&Value>, _: &mut Value, _: &str, _: &str, _: &str) {}

pub fn apply(_: &Resource, _: Option<&Value>, _: &Value, _: &str, _: bool, _: &str, _: &str) -> Result<Value, Status> {
    Err(Status::internal("server-side apply is not available yet"))
}
