//! What extension API servers offer, for the discovery documents of this one.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::header::{ACCEPT, HOST};
use http::{HeaderMap, HeaderName, Request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kube1_api::discovery::compare_versions;
use kube1_api::resource::ResourceTable;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::RemoteService;
use super::route::{all, identity_headers, is_available};
use crate::dial::{self, Resolver};
use crate::http::body::BoxError;
use crate::server::Server;
use crate::user::{MASTERS, UserInfo};

/// How long an answer is used before it is asked for again.
const FRESH: Duration = Duration::from_secs(30);
/// How long nobody waits again for a server that did not answer.
const FAILED: Duration = Duration::from_secs(5);
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_MAX: usize = 16 << 20;

/// Resource lists of extension servers, by group version.
#[derive(Default)]
pub struct RemoteDiscovery {
    known: Mutex<HashMap<String, Known>>,
}

struct Known {
    at: Instant,
    /// None if it could not be had.
    resources: Option<Value>,
}

/// A group version that is served elsewhere.
pub struct RemoteVersion {
    pub group: String,
    pub version: String,
    /// APIResourceList's resources; none when the server did not answer.
    pub resources: Option<Value>,
    group_priority: i64,
    version_priority: i64,
}

impl RemoteDiscovery {
    /// All group versions that are served elsewhere, most important first.
    pub async fn versions(&self, server: &Arc<Server>) -> Vec<RemoteVersion> {
        let services = all(server);
        let keys: HashSet<String> = services.iter().map(|(service, _)| key(service)).collect();
        self.known.lock().retain(|known, _| keys.contains(known));
        let asked = services.into_iter().map(|(service, object)| async move {
            let resources = if is_available(&object) {
                self.resources(server, &service).await
            } else {
                // Once it is back it may have others.
                self.known.lock().remove(&key(&service));
                None
            };
            let number = |key: &str| object["spec"][key].as_i64().unwrap_or(0);
            RemoteVersion {
                resources,
                group_priority: number("groupPriorityMinimum"),
                version_priority: number("versionPriority"),
                group: service.group,
                version: service.version,
            }
        });
        let mut versions = join_all(asked).await;
        versions.sort_by_key(|v| (-v.group_priority, v.group.clone(), -v.version_priority));
        versions
    }

    async fn resources(&self, server: &Arc<Server>, service: &RemoteService) -> Option<Value> {
        let key = key(service);
        let lasts = |known: &&Known| known.at.elapsed() < if known.resources.is_some() { FRESH } else { FAILED };
        if let Some(known) = self.known.lock().get(&key).filter(lasts) {
            return known.resources.clone();
        }
        let resources = match tokio::time::timeout(TIMEOUT, fetch(server, service)).await {
            Ok(Ok(list)) => Some(list["resources"].clone()),
            Ok(Err(error)) => {
                tracing::debug!(%error, key, "an extension server's discovery failed");
                None
            }
            Err(_) => None,
        };
        self.known.lock().insert(key, Known { at: Instant::now(), resources: resources.clone() });
        resources
    }
}

fn key(service: &RemoteService) -> String {
    format!("{}/{}", service.group, service.version)
}

async fn fetch(server: &Arc<Server>, service: &RemoteService) -> Result<Value, BoxError> {
    let path = format!("/apis/{}/{}", service.group, service.version);
    let answer = ask(server, service, &path, "system:kube-aggregator", None).await?;
    Ok(serde_json::from_slice(answer.body())?)
}

/// Asks an extension server for JSON in the name of `user`.
pub(super) async fn ask(
    server: &Arc<Server>,
    service: &RemoteService,
    path: &str,
    user: &str,
    header: Option<(HeaderName, &str)>,
) -> Result<http::Response<bytes::Bytes>, BoxError> {
    let resolver = Resolver::new(&server.storage, &server.table.load()).ok_or("no services")?;
    let target = service.target(&resolver, Some(server.config.pki.proxy_client.clone()))?;
    let stream = dial::connect(&target).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get(path)
        .header(HOST, &target.server_name)
        .header(ACCEPT, "application/json")
        .body(Empty::<bytes::Bytes>::new())?;
    if let Some((name, value)) = header {
        request.headers_mut().insert(name, value.parse()?);
    }
    let user = UserInfo::authenticated(user, &[MASTERS]);
    let identity: HeaderMap = identity_headers(&user)?;
    request.headers_mut().extend(identity);
    let answer = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
        Ok(http::Response::from_parts(parts, body))
    };
    tokio::pin!(answer);
    // The connection is driven right here, so it ends with the answer.
    tokio::select! {
        answer = &mut answer => answer,
        driven = connection => match driven {
            Ok(()) => answer.await,
            Err(error) => Err(error.into()),
        },
    }
}

/// Puts the most important groups first, as their APIServices say; clients ask the first that has what they look for.
fn arrange(groups: &mut [Value], name: &str, versions: &[RemoteVersion], table: &ResourceTable) {
    if versions.is_empty() {
        return;
    }
    let local = table.iter().map(|row| (row.group.as_str(), row.group_priority));
    let remote = versions.iter().map(|v| (v.group.as_str(), v.group_priority));
    let mut priorities: HashMap<&str, i64> = HashMap::new();
    for (group, priority) in local.chain(remote) {
        let known = priorities.entry(group).or_insert(priority);
        *known = priority.max(*known);
    }
    for group in groups.iter_mut() {
        let own = group.pointer(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        if versions.iter().any(|v| v.group == own) {
            arrange_versions(group, &own, versions, table);
        }
    }
    let priority = |group: &Value| group.pointer(name).and_then(Value::as_str).and_then(|name| priorities.get(name));
    groups.sort_by_key(|group| Reverse(priority(group).copied()));
}

/// Puts the versions of a group in the order that their APIServices say, wherever they are served.
fn arrange_versions(group: &mut Value, name: &str, remote: &[RemoteVersion], table: &ResourceTable) {
    let priority = |version: &str| {
        let elsewhere = remote.iter().find(|v| v.group == name && v.version == version).map(|v| v.version_priority);
        let here = || table.iter().filter(|row| row.group == name && row.version == version);
        elsewhere.or_else(|| here().map(|row| row.version_priority).max())
    };
    let Some(versions) = group["versions"].as_array_mut() else { return };
    versions.sort_by(|left, right| {
        let [left, right] = [left, right].map(|v| v["version"].as_str().unwrap_or_default());
        priority(right).cmp(&priority(left)).then_with(|| compare_versions(left, right))
    });
    let first = versions.first().cloned();
    if let Some(preferred) = group.get_mut("preferredVersion") {
        *preferred = first.unwrap_or_default();
    }
}

/// Adds groups that are served elsewhere to `/apis`.
pub fn extend_groups(list: &mut Value, versions: &[RemoteVersion], table: &ResourceTable) {
    let Some(groups) = list["groups"].as_array_mut() else { return };
    for remote in versions {
        let version =
            json!({"groupVersion": format!("{}/{}", remote.group, remote.version), "version": remote.version});
        match groups.iter_mut().find(|g| g["name"] == remote.group) {
            Some(group) => {
                if let Some(versions) = group["versions"].as_array_mut()
                    && !versions.contains(&version)
                {
                    versions.push(version);
                }
            }
            None => {
                groups.push(json!({"name": remote.group, "versions": [version], "preferredVersion": version}));
            }
        }
    }
    arrange(groups, "/name", versions, table);
}

/// Adds groups that are served elsewhere to the aggregated form of `/apis`.
pub fn extend_aggregated(list: &mut Value, versions: &[RemoteVersion], table: &ResourceTable) {
    let Some(items) = list["items"].as_array_mut() else { return };
    for remote in versions {
        let resources: Vec<Value> = remote.resources.as_ref().map(|r| aggregated(remote, r)).unwrap_or_default();
        let freshness = if remote.resources.is_some() { "Current" } else { "Stale" };
        let version = json!({"version": remote.version, "resources": resources, "freshness": freshness});
        match items.iter_mut().find(|g| g["metadata"]["name"] == remote.group) {
            Some(group) => {
                if let Some(list) = group["versions"].as_array_mut() {
                    // What is served elsewhere replaces what would be served here.
                    list.retain(|v| v["version"] != version["version"]);
                    list.push(version);
                }
            }
            None => {
                items.push(
                    json!({"metadata": {"name": remote.group, "creationTimestamp": null}, "versions": [version]}),
                );
            }
        }
    }
    arrange(items, "/metadata/name", versions, table);
}

/// An APIResourceList's resources in the form of aggregated discovery.
fn aggregated(remote: &RemoteVersion, resources: &Value) -> Vec<Value> {
    let all = resources.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let kind = |resource: &Value| {
        let or = |key: &str, default: &str| match text(resource, key).as_str() {
            "" => default.to_owned(),
            given => given.to_owned(),
        };
        json!({"group": or("group", &remote.group), "version": or("version", &remote.version), "kind": resource["kind"]})
    };
    let mut found = Vec::new();
    for resource in all.iter().filter(|r| !text(r, "name").contains('/')) {
        let name = text(resource, "name");
        let mut entry = json!({
            "resource": name, "responseKind": kind(resource), "singularResource": resource["singularName"],
            "scope": if resource["namespaced"] == true { "Namespaced" } else { "Cluster" }, "verbs": resource["verbs"],
        });
        for key in ["shortNames", "categories"] {
            if resource[key].is_array() {
                entry[key] = resource[key].clone();
            }
        }
        let prefix = format!("{name}/");
        let subresources: Vec<Value> = all
            .iter()
            .filter_map(|r| {
                let name = text(r, "name").strip_prefix(&prefix)?.to_owned();
                Some(json!({"subresource": name, "responseKind": kind(r), "verbs": r["verbs"]}))
            })
            .collect();
        if !subresources.is_empty() {
            entry["subresources"] = subresources.into();
        }
        found.push(entry);
    }
    found
}

/// What hostile input is tried on: the resources that an extension server tells of.
#[cfg(any(test, fuzzing))]
pub(crate) fn hostile(answer: &Value) {
    let resources = answer.get("resources").cloned();
    let (group, version) = ("g".to_owned(), "v1".to_owned());
    let remote = [RemoteVersion { group, version, resources, group_priority: 1, version_priority: 1 }];
    let table = &ResourceTable::default();
    extend_groups(&mut json!({"groups": [{"name": "g", "versions": []}]}), &remote, table);
    extend_aggregated(&mut json!({"items": []}), &remote, table);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_in_the_order_of_their_api_services() {
        let remote = |version: &str, group_priority, version_priority| RemoteVersion {
            group: "g".to_owned(),
            version: version.to_owned(),
            resources: Some(json!([])),
            group_priority,
            version_priority,
        };
        for (versions, order) in [
            (vec![remote("v1", 10, 5), remote("v2", 10, 5), remote("v1beta1", 10, 5)], ["v2", "v1", "v1beta1"]),
            (vec![remote("v1", 10, 15), remote("v2", 99, 5), remote("v1beta1", 10, 20)], ["v1beta1", "v1", "v2"]),
        ] {
            let table = ResourceTable::default();
            let (mut plain, mut aggregated) = (json!({"groups": []}), json!({"items": []}));
            extend_groups(&mut plain, &versions, &table);
            extend_aggregated(&mut aggregated, &versions, &table);
            for group in [&plain["groups"][0], &aggregated["items"][0]] {
                let told = group["versions"].as_array().into_iter().flatten();
                assert!(told.map(|v| v["version"].as_str().unwrap_or_default()).eq(order), "{group}");
            }
            assert_eq!(plain["groups"][0]["preferredVersion"]["version"], order[0]);
        }
    }
}
