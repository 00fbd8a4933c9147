//! The resource metrics API: what nodes and pods use now. Kubelets are asked only when somebody asks for it.

mod sample;

pub use sample::ResourceMetrics;
#[cfg(any(test, fuzzing))]
pub(crate) use sample::hostile;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::StatusCode;
use kube1_api::quantity::Quantity;
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use serde_json::{Value, json};

use crate::call::Call;
use crate::http::respond::Reply;
use crate::options::ListOptions;
use crate::server::Server;
use crate::storage::Object;
use crate::{encode, router};
use sample::{Usage, Window};

/// Kubelets that are asked at the same time.
const AT_ONCE: usize = 16;

/// GET of one node's or pod's metrics, or of a list.
pub async fn answer(server: &Arc<Server>, row: &Arc<Resource>, call: &Call) -> Result<Reply, Status> {
    let single = match call.info.verb.as_str() {
        "get" => true,
        "list" => false,
        verb => return Err(router::not_allowed(row, verb)),
    };
    let mut objects = subjects(server, row, call)?;
    if single {
        objects.retain(|object| object.name() == call.info.name);
    }
    let mut items = measure(server, row, &objects).await;
    let answer = if single {
        let mut item = items.pop().ok_or_else(|| Status::not_found(&call.group_resource(), &call.info.name))?;
        item["apiVersion"] = row.api_version().into();
        item["kind"] = row.kind.as_str().into();
        item
    } else {
        json!({"apiVersion": row.api_version(), "kind": row.list_kind, "metadata": {}, "items": items})
    };
    encode::reply(call, StatusCode::OK, &answer, row.has_protobuf())
}

/// The nodes or pods that are asked for.
fn subjects(server: &Server, row: &Resource, call: &Call) -> Result<Vec<Arc<Object>>, Status> {
    let options = ListOptions::parse(&call.query, false)?;
    let stored = server.table.load().stored("", &row.plural);
    let stored = stored.ok_or_else(|| Status::internal(format!("{} are not served", row.plural)))?;
    let namespace = Some(call.info.namespace.as_str()).filter(|n| row.namespaced && !n.is_empty());
    let mut objects = server.storage.collection(&stored).all(namespace);
    objects.retain(|object| object.matches(&options.labels, &options.fields));
    Ok(objects)
}

/// Metrics of the objects; those that cannot be had are left out.
async fn measure(server: &Arc<Server>, row: &Resource, objects: &[Arc<Object>]) -> Vec<Value> {
    let node_of = |object: &Object| {
        if row.namespaced { object.field("spec.nodeName").into_owned() } else { object.name().to_owned() }
    };
    let mut nodes: Vec<String> = objects.iter().map(|o| node_of(o)).filter(|n| !n.is_empty()).collect();
    nodes.sort();
    nodes.dedup();
    let windows: HashMap<String, Window> = futures::stream::iter(nodes)
        .map(|node| async move {
            match server.resource_metrics.window(server, &node).await {
                Ok(window) => Some((node, window)),
                Err(status) => {
                    tracing::warn!(node, error = status.message(), "no metrics of a node");
                    None
                }
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    let item = |object: &Arc<Object>| {
        let window = windows.get(&node_of(object))?;
        if row.namespaced { pod(object, window) } else { node(object, window) }
    };
    objects.iter().filter_map(item).collect()
}

fn node(object: &Object, window: &Window) -> Option<Value> {
    let mut item = head(object, window);
    item["usage"] = usage(window.node()?);
    Some(item)
}

fn pod(object: &Object, window: &Window) -> Option<Value> {
    let containers = window.pod(object.namespace(), object.name());
    if containers.is_empty() {
        return None;
    }
    let mut item = head(object, window);
    let containers = containers.into_iter().map(|(name, used)| json!({"name": name, "usage": usage(used)}));
    item["metadata"]["namespace"] = object.namespace().into();
    item["containers"] = containers.collect();
    Some(item)
}

fn head(object: &Object, window: &Window) -> Value {
    let time = window.time().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut metadata = json!({"name": object.name(), "creationTimestamp": time});
    let labels: serde_json::Map<String, Value> = object.labels().map(|(k, v)| (k.to_owned(), v.into())).collect();
    if !labels.is_empty() {
        metadata["labels"] = labels.into();
    }
    json!({"metadata": metadata, "timestamp": time, "window": length(window.length())})
}

/// Seconds, as durations are written, to the millisecond.
fn length(length: Duration) -> String {
    let seconds = format!("{:.3}", length.as_secs_f64());
    format!("{}s", seconds.trim_end_matches('0').trim_end_matches('.'))
}

fn usage(usage: Usage) -> Value {
    let amount = |text: String| Quantity::parse(&text).unwrap_or(Quantity::ZERO).to_string();
    json!({
        "cpu": amount(format!("{}n", usage.cpu_nanos)),
        "memory": amount(format!("{}Ki", usage.memory_bytes / 1024)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_clients_expect() {
        let used = usage(Usage { cpu_nanos: 12_345_678, memory_bytes: 5 << 20 });
        assert_eq!(used, json!({"cpu": "12345678n", "memory": "5Mi"}));
        assert_eq!(usage(Usage { cpu_nanos: 0, memory_bytes: 0 }), json!({"cpu": "0", "memory": "0"}));
        assert_eq!(length(Duration::from_millis(15_020)), "15.02s");
        assert_eq!(length(Duration::from_secs(1)), "1s");
    }
}
