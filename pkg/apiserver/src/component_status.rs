//! ComponentStatus: whether the parts of the control plane are well. Asked for at each request, and not stored.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use kube1_store::Range;
use parking_lot::RwLock;
use serde_json::{Value, json};

use crate::call::Call;
use crate::encode::{Encoder, ListHead};
use crate::http::respond::Reply;
use crate::negotiate::Answer;
use crate::options::ListOptions;
use crate::router;
use crate::server::Server;

/// How long the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Under this name clients know the first store.
const STORE: &str = "etcd-0";

type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The parts of the control plane beside the server itself.
#[derive(Default)]
pub struct Components {
    checks: RwLock<Vec<(&'static str, Check)>>,
}

impl Components {
    /// Adds a part under the name that upstream shows, such as `scheduler`.
    pub fn add(&self, name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.checks.write().push((name, Arc::new(check)));
    }
}

/// GET of one component or of all.
pub async fn answer(server: &Arc<Server>, row: &Arc<Resource>, call: &Call) -> Result<Reply, Status> {
    let single = match call.info.verb.as_str() {
        "get" => true,
        "list" => false,
        verb => return Err(router::not_allowed(row, verb)),
    };
    let encoder = Encoder::new(row, call, if single { Answer::Object } else { Answer::List })?;
    let mut checks = server.components.checks.read().clone();
    checks.sort_by_key(|(name, _)| *name);
    let mut items: Vec<Value> = checks.iter().map(|(name, check)| component(name, check())).collect();
    items.push(component(STORE, store(server).await));
    if single {
        let found = items.into_iter().find(|item| item["metadata"]["name"] == call.info.name.as_str());
        let found = found.ok_or_else(|| Status::not_found(&call.group_resource(), &call.info.name))?;
        return encoder.object(StatusCode::OK, found);
    }
    let options = ListOptions::parse(&call.query, false)?;
    items.retain(|item| {
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        let field = |field: &str| if field == "metadata.name" { name.to_owned() } else { String::new() };
        options.labels.matches(|_| None) && options.fields.matches(field)
    });
    encoder.list_of(&ListHead::default(), items)
}

async fn store(server: &Server) -> Result<(), String> {
    let read = server.config.store.range(Range::key("health"));
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

fn component(name: &str, health: Result<(), String>) -> Value {
    let condition = match health {
        Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(why) => json!({"type": "Healthy", "status": "False", "message": why}),
    };
    json!({"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name, "creationTimestamp": null},
        "conditions": [condition]})
}
