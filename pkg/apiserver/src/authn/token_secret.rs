//! Tokens in Secrets of type `kubernetes.io/service-account-token`: filled in here, since here the signing key is.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use kube1_api::resource::ResourceTable;
use kube1_api::selector::FieldSelector;
use kube1_api::status::Status;
use kube1_pki::ServiceAccountKeys;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::service_account::LEGACY_ISSUER;
use crate::options::ListOptions;
use crate::storage::{Collection, Object, Storage, StorageError, WatchKind};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const RETRY: Duration = Duration::from_secs(5);

/// Fills in token Secrets, and deletes those whose account is gone.
pub struct TokenSecrets {
    secrets: Arc<Collection>,
    accounts: Arc<Collection>,
    keys: Arc<ServiceAccountKeys>,
    ca_pem: String,
}

impl TokenSecrets {
    /// `ca_pem` goes into each Secret beside its token.
    pub fn new(storage: &Storage, table: &ResourceTable, keys: Arc<ServiceAccountKeys>, ca_pem: &str) -> Self {
        let collection = |plural| storage.collection(&table.stored("", plural).expect("a built-in resource"));
        Self {
            secrets: collection("secrets"),
            accounts: collection("serviceaccounts"),
            keys,
            ca_pem: ca_pem.to_owned(),
        }
    }

    /// Works until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            if let Some(Err(error)) = cancel.run_until_cancelled(self.follow()).await {
                tracing::warn!(%error, "service-account tokens were not kept up; trying again");
                cancel.run_until_cancelled(tokio::time::sleep(RETRY)).await;
            }
        }
    }

    /// Returns when a watch ends.
    async fn follow(&self) -> Result<(), Status> {
        let fields = FieldSelector::parse(&format!("type={TYPE}")).unwrap_or_default();
        let of_type = ListOptions { fields, ..ListOptions::default() };
        let mut secrets = self.secrets.watch(None, &of_type).await?;
        let mut accounts = self.accounts.watch(None, &ListOptions::default()).await?;
        loop {
            tokio::select! {
                event = secrets.next() => match event {
                    Some(event) if matches!(event.kind, WatchKind::Added | WatchKind::Modified) => {
                        self.reconcile(&event.object).await?;
                    }
                    Some(_) => {}
                    None => return Ok(()),
                },
                event = accounts.next() => match event {
                    Some(event) if matches!(event.kind, WatchKind::Added | WatchKind::Deleted) => {
                        self.account_changed(&event.object, &of_type).await?;
                    }
                    Some(_) => {}
                    None => return Ok(()),
                },
            }
        }
    }

    async fn account_changed(&self, account: &Object, of_type: &ListOptions) -> Result<(), Status> {
        for secret in self.secrets.list(Some(account.namespace()), of_type).await?.items {
            if secret.value()["metadata"]["annotations"][ACCOUNT_NAME] == account.name() {
                self.reconcile(&secret).await?;
            }
        }
        Ok(())
    }

    async fn reconcile(&self, secret: &Object) -> Result<(), Status> {
        let (namespace, name) = (secret.namespace(), secret.name());
        let mut value = secret.value();
        let annotation = |key: &str| value["metadata"]["annotations"][key].as_str().unwrap_or_default();
        let (account_name, bound_uid) = (annotation(ACCOUNT_NAME).to_owned(), annotation(ACCOUNT_UID).to_owned());
        let account = self.accounts.get(namespace, &account_name);
        let account = account.filter(|a| bound_uid.is_empty() || a.uid() == bound_uid);
        let result = match account {
            Some(account) => {
                if !self.fill(&mut value, namespace, name, &account)? {
                    return Ok(());
                }
                self.secrets.update(value, secret.revision()).await
            }
            // One that never had an account may just be earlier than it.
            None if bound_uid.is_empty() || secret.is_deleting() => return Ok(()),
            None => self.secrets.delete(namespace, name, secret.revision()).await,
        };
        match result {
            // Whoever was faster has caused another event.
            Ok(_) | Err(StorageError::Conflict { .. } | StorageError::NotFound) => Ok(()),
            Err(error) => Err(Status::internal(error)),
        }
    }

    /// Puts token, CA and namespace into the Secret; false when they were there.
    fn fill(&self, secret: &mut Value, namespace: &str, name: &str, account: &Object) -> Result<bool, Status> {
        let before = secret.clone();
        secret["metadata"]["annotations"][ACCOUNT_UID] = account.uid().into();
        if !secret["data"].is_object() {
            secret["data"] = json!({});
        }
        let ca = STANDARD.encode(&self.ca_pem);
        if secret["data"]["ca.crt"] != ca {
            secret["data"]["ca.crt"] = ca.into();
        }
        if secret["data"].get("namespace").is_none() {
            secret["data"]["namespace"] = STANDARD.encode(namespace).into();
        }
        if secret["data"]["token"].as_str().unwrap_or_default().is_empty() {
            let claims = json!({
                "iss": LEGACY_ISSUER,
                "sub": format!("system:serviceaccount:{namespace}:{}", account.name()),
                "kubernetes.io/serviceaccount/namespace": namespace,
                "kubernetes.io/serviceaccount/secret.name": name,
                "kubernetes.io/serviceaccount/service-account.name": account.name(),
                "kubernetes.io/serviceaccount/service-account.uid": account.uid(),
            });
            let token = self.keys.sign(&claims).map_err(Status::internal)?;
            secret["data"]["token"] = STANDARD.encode(token).into();
        }
        Ok(*secret != before)
    }
}
