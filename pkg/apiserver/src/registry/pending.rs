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

pub fn track_update(_: &Resource, _: Option<&Value>, _: &mut Value, _: &str, _: &str, _: &str) {}

pub fn apply(_: &Resource, _: Option<&Value>, _: &Value, _: &str, _: bool, _: &str, _: &str) -> Result<Value, Status> {
    Err(Status::internal("server-side apply is not available yet"))
}
