//! Secrets of type `kubernetes.io/service-account-token`: each gets a token of its ServiceAccount and goes with it.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, Preconditions};
use kube1_client::{Event, Informer, ObjectKey, Outcome, Selection, WorkQueue};
use kube1_supervisor::BoxError;
use serde_json::json;

use crate::controller::{Controller, SyncError, SyncResult, namespaced, replace, unless_gone};

const KIND: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const ISSUER: &str = "kubernetes/serviceaccount";

/// Runs the controller of token Secrets.
pub async fn run(mut controller: Controller) -> Result<(), BoxError> {
    // Tokens are the manager's own business; no service account may write them.
    controller.client = controller.config.client.clone();
    let selection = Selection { field_selector: format!("type={KIND}"), ..Selection::default() };
    let secrets = controller.informers.select::<Secret>(selection);
    let accounts = controller.informers.all::<ServiceAccount>();
    if !controller.synced(&[&secrets, &accounts]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    controller.watch_own(&secrets, &queue);
    let known = secrets.clone();
    controller.watch(&accounts, &queue, move |event| {
        let account = event.object();
        let of_account = |s: &&Arc<Secret>| account_name(s) == account.metadata.name.as_deref();
        let changed = !matches!(event, Event::Updated { .. });
        let namespace = account.metadata.namespace.as_deref().filter(|_| changed);
        let all = namespace.map(|n| known.list_namespace(n)).unwrap_or_default();
        all.iter().filter(of_account).map(|s| ObjectKey::of(&**s)).collect::<Vec<_>>()
    });
    let sync = |key| {
        let (controller, secrets, accounts) = (controller.clone(), secrets.clone(), accounts.clone());
        async move { fill(&controller, &secrets, &accounts, key).await }
    };
    controller.work(&queue, 2, sync).await;
    Ok(())
}

fn account_name(secret: &Secret) -> Option<&str> {
    secret.metadata.annotations.as_ref()?.get(ACCOUNT_NAME).map(String::as_str)
}

async fn fill(
    controller: &Controller,
    secrets: &Informer<Secret>,
    accounts: &Informer<ServiceAccount>,
    key: ObjectKey,
) -> SyncResult {
    let Some(secret) = secrets.get(&key).filter(|s| s.metadata.deletion_timestamp.is_none()) else {
        return Ok(Outcome::Done);
    };
    let Some(name) = account_name(&secret) else { return Ok(Outcome::Done) };
    let account = match accounts.get(&ObjectKey::new(key.namespace.clone(), name)) {
        Some(account) => Some(account),
        // The cache may be late.
        None => {
            let api = namespaced::<ServiceAccount>(&controller.client, &key.namespace);
            api.get_opt(name).await?.map(Arc::new)
        }
    };
    let wanted_uid = secret.metadata.annotations.as_ref().and_then(|a| a.get(ACCOUNT_UID)).filter(|u| !u.is_empty());
    let account = account.filter(|a| wanted_uid.is_none_or(|uid| a.metadata.uid.as_ref() == Some(uid)));
    match account {
        Some(account) => complete(controller, &secret, &account).await?,
        None => {
            let same = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
            let api = namespaced::<Secret>(&controller.client, &key.namespace);
            unless_gone(api.delete(&key.name, &DeleteParams::default().preconditions(same)).await)?;
        }
    }
    Ok(Outcome::Done)
}

async fn complete(controller: &Controller, secret: &Secret, account: &ServiceAccount) -> Result<(), SyncError> {
    let namespace = secret.metadata.namespace.clone().unwrap_or_default();
    let mut changed = secret.clone();
    let data = changed.data.get_or_insert_default();
    data.insert("ca.crt".into(), ByteString(controller.config.root_ca_pem.clone().into_bytes()));
    data.insert("namespace".into(), ByteString(namespace.clone().into_bytes()));
    if data.get("token").is_none_or(|t| t.0.is_empty()) {
        let name = account.metadata.name.as_deref().unwrap_or_default();
        let claims = json!({
            "iss": ISSUER,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": secret.metadata.name,
            "kubernetes.io/serviceaccount/service-account.name": name,
            "kubernetes.io/serviceaccount/service-account.uid": account.metadata.uid,
        });
        let token = controller.config.service_account_keys.sign(&claims)?;
        data.insert("token".into(), ByteString(token.into_bytes()));
    }
    let annotations = changed.metadata.annotations.get_or_insert_default();
    annotations.insert(ACCOUNT_UID.into(), account.metadata.uid.clone().unwrap_or_default());
    if changed != *secret {
        replace(&namespaced(&controller.client, &namespace), changed).await?;
    }
    Ok(())
}
