//! Parts of the server that follow stored objects.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube1_api::resource::{Resource, ResourceTable};
use kube1_api::status::Status;
use kube1_pki::PkiError;
use serde_json::Value;
use tokio::task::JoinSet;

use super::parts::Parts;
use super::{Server, objects};
use crate::aggregate;
use crate::authn::AuthenticationConfigError;
use crate::flow;
use crate::options::ListOptions;
use crate::reload;
use crate::storage::{Collection, StorageError, WatchEvent, WatchKind};

/// Between looks at what changes rarely, and before trying again.
const PAUSE: Duration = Duration::from_secs(1);
const PUBLISH: Duration = Duration::from_secs(30);
const FLOW_GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// Loads what is stored and follows it from then on.
pub(super) async fn start(server: &Arc<Server>, parts: &Parts, tasks: &mut JoinSet<()>) -> Result<(), Status> {
    load_flow(server)?;
    for plural in ["flowschemas", "prioritylevelconfigurations"] {
        let collection = server.storage.collection(&*row(server, FLOW_GROUP, plural)?);
        let owner = server.clone();
        let following = follow(server.clone(), collection, server.storage.revision(), move |_| {
            if let Err(error) = load_flow(&owner) {
                tracing::error!(%error, "cannot load the flow schemas");
            }
        });
        tasks.spawn(parts.flow_config.run(following));
    }
    run_flow(server, parts, tasks)
}

fn row(server: &Server, group: &str, plural: &str) -> Result<Arc<Resource>, Status> {
    let row = server.table.load().stored(group, plural);
    row.ok_or_else(|| Status::internal(format!("there is no resource {plural}.{group}")))
}

fn load_flow(server: &Server) -> Result<(), Status> {
    let all = |plural: &str| -> Result<Vec<Value>, Status> {
        let collection = server.storage.collection(&*row(server, FLOW_GROUP, plural)?);
        Ok(collection.all(None).iter().map(|o| o.value()).collect())
    };
    server.flow.load(&all("flowschemas")?, &all("prioritylevelconfigurations")?);
    Ok(())
}

/// Runs flow control, and keeps telling FlowSchemas whether their level exists.
fn run_flow(server: &Arc<Server>, parts: &Parts, tasks: &mut JoinSet<()>) -> Result<(), Status> {
    let owner = server.clone();
    tasks.spawn(parts.flow.run(async move { owner.flow.run(owner.shutdown.clone()).await }));
    let schemas = server.storage.collection(&*row(server, FLOW_GROUP, "flowschemas")?);
    let levels = server.storage.collection(&*row(server, FLOW_GROUP, "prioritylevelconfigurations")?);
    let server = server.clone();
    let telling = async move {
        let mut tick = tokio::time::interval(PAUSE);
        let mut seen = (u64::MAX, u64::MAX);
        while server.shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let now = (schemas.revision(), levels.revision());
            if now == seen {
                continue;
            }
            match tell_dangling(&schemas, &levels).await {
                Ok(()) => seen = now,
                Err(error) => tracing::debug!(%error, "the status of a FlowSchema is late"),
            }
        }
    };
    tasks.spawn(parts.flow_status.run(telling));
    Ok(())
}

async fn tell_dangling(schemas: &Arc<Collection>, levels: &Arc<Collection>) -> Result<(), StorageError> {
    let levels: Vec<Value> = levels.all(None).iter().map(|o| o.value()).collect();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for schema in schemas.all(None) {
        let mut value = schema.value();
        let Some(conditions) = flow::dangling(&value, &levels, &now) else { continue };
        value["status"]["conditions"] = conditions;
        schemas.update(value, schema.revision()).await?;
    }
    Ok(())
}

/// Calls `apply` for every change after `revision` until shutdown. When history was missed, the present state is told
/// as additions.
pub async fn follow(
    server: Arc<Server>,
    collection: Arc<Collection>,
    revision: u64,
    apply: impl Fn(&WatchEvent) + Send + 'static,
) {
    let mut since = Some(revision);
    loop {
        let options = ListOptions { resource_version: since, ..ListOptions::default() };
        let mut events = match collection.watch(None, &options).await {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(%error, "following stored objects starts over");
                // Without a revision only a broken storage refuses.
                if since.take().is_none() {
                    server.shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                }
                if server.shutdown.is_cancelled() {
                    return;
                }
                continue;
            }
        };
        loop {
            let event = tokio::select! {
                () = server.shutdown.cancelled() => return,
                event = events.next() => event,
            };
            let Some(event) = event else { break };
            if event.kind != WatchKind::Bookmark {
                apply(&event);
            }
            since = Some(event.object.revision());
        }
    }
}

/// Keeps an APIService for every group version that is served here, as definitions of custom resources come and go.
pub(super) fn keep_api_services(server: &Arc<Server>, parts: &Parts, tasks: &mut JoinSet<()>) {
    let (server, registered) = (server.clone(), parts.registered.clone());
    let keeping = async move {
        let mut known: Option<Arc<ResourceTable>> = None;
        let mut tick = tokio::time::interval(PAUSE);
        loop {
            tokio::select! {
                () = server.shutdown.cancelled() => return,
                _ = tick.tick() => {}
            }
            // Comparing two pointers is all that is done while nothing changes.
            let table = server.table.load_full();
            if known.as_ref().is_some_and(|k| Arc::ptr_eq(k, &table)) {
                continue;
            }
            match aggregate::sync_local(&server.storage, &table).await {
                Ok(()) => {
                    known = Some(table);
                    registered.begun();
                }
                Err(error) => tracing::warn!(%error, "the APIServices of this server are late"),
            }
        }
    };
    tasks.spawn(parts.api_services.run(keeping));
}

/// Makes the objects by which the cluster finds this server again when somebody removed them.
pub(super) fn keep_published(server: &Arc<Server>, parts: &Parts, tasks: &mut JoinSet<()>) {
    let server = server.clone();
    let keeping = async move {
        let mut tick = tokio::time::interval(PUBLISH);
        loop {
            tokio::select! {
                () = server.shutdown.cancelled() => return,
                _ = tick.tick() => {}
                () = server.republish.notified() => {}
            }
            if let Err(error) = objects::publish(&server).await {
                tracing::warn!(%error, "the objects by which the cluster finds this server are not as they should be");
            }
        }
    };
    tasks.spawn(parts.published.run(keeping));
}

/// Takes changed files of configuration over while the server runs.
pub fn follow_files(server: &Arc<Server>, tasks: &mut JoinSet<()>) {
    if let Some(file) = server.authenticator.outside().file() {
        let (owner, metrics) = (server.clone(), server.reloads.authentication.clone());
        let apply = move || {
            owner.authenticator.outside().reload()?;
            owner.authenticator.forget();
            Ok::<(), AuthenticationConfigError>(())
        };
        tasks.spawn(reload::follow(vec![file], metrics, server.shutdown.clone(), apply));
    }
    follow_keys(server, tasks);
    let files = server.authorization.files();
    if !files.is_empty() {
        let (owner, metrics) = (server.authorization.clone(), server.reloads.authorization.clone());
        tasks.spawn(reload::follow(files, metrics, server.shutdown.clone(), move || owner.reload()));
    }
    let options = &server.config.front.encryption;
    if let Some(file) = options.config_file.clone().filter(|_| options.automatic_reload) {
        let (owner, metrics) = (server.encryption.clone(), server.reloads.encryption.clone());
        let apply = move || {
            let owner = owner.clone();
            async move { owner.reload().await }
        };
        tasks.spawn(reload::follow_with(vec![file], metrics, server.shutdown.clone(), apply));
    }
}

/// Keeps the keys of the service that signs tokens new, where there is one.
pub(super) fn keep_token_keys(server: &Arc<Server>, tasks: &mut JoinSet<()>) {
    let Some(signer) = server.reviews.signer.clone() else { return };
    let server = server.clone();
    tasks.spawn(async move { signer.run(&server.shutdown, || server.authenticator.forget()).await });
}

/// Certificate authorities, certificates and keys in files.
fn follow_keys(server: &Arc<Server>, tasks: &mut JoinSet<()>) {
    let (owner, metrics, stop) = (server.clone(), &server.reloads, || server.shutdown.clone());
    let trust = move || owner.reload_trust();
    tasks.spawn(reload::follow(server.authenticator.trust().files(), metrics.client_ca.clone(), stop(), trust));
    let (owner, keys) = (server.clone(), server.config.pki.service_account_keys.clone());
    let files = keys.files();
    let tokens = move || {
        keys.reload()?;
        owner.authenticator.forget();
        Ok::<(), PkiError>(())
    };
    tasks.spawn(reload::follow(files, metrics.service_account_keys.clone(), stop(), tokens));
    let serving = server.serving.clone();
    let (files, metrics) = (serving.files(), metrics.serving.clone());
    tasks.spawn(reload::follow(files, metrics, stop(), move || serving.reload()));
}
