//! ServiceAccount: every pod runs as an account of its namespace, and gets a token for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use kube1_api::selector::FieldSelector;
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::options::ListOptions;
use crate::reader::StorageReader;
use crate::storage::Object;
use crate::strategy::generate_name;

const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
const DEFAULT: &str = "default";
const VOLUME: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Asked for by every pod; the server knows this odd number and then issues tokens that outlive it.
const EXPIRATION: u32 = 3607;
/// A namespace's default account is made soon after it: a pod waits for it this long.
const PATIENCE: Duration = Duration::from_secs(1);

pub struct ServiceAccount {
    reader: Arc<StorageReader>,
}

impl ServiceAccount {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader }
    }

    async fn account(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let accounts = self.reader.collection("", "serviceaccounts")?;
        if let Some(found) = accounts.get(namespace, name) {
            return Some(found);
        }
        if name != DEFAULT {
            return None;
        }
        let fields = FieldSelector::parse(&format!("metadata.name={name}")).unwrap_or_default();
        let options = ListOptions { fields, ..ListOptions::default() };
        let mut events = accounts.watch(Some(namespace), &options).await.ok()?;
        let made = async {
            while events.next().await.is_some() {
                if let Some(found) = accounts.get(namespace, name) {
                    return Some(found);
                }
            }
            None
        };
        tokio::time::timeout(PATIENCE, made).await.ok().flatten()
    }
}

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.creates("", "pods")
            || (attributes.is("", "pods")
                && attributes.subresource == "ephemeralcontainers"
                && attributes.operation == Operation::Update)
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(pod) = attributes.object.as_mut().filter(|_| attributes.subresource.is_empty()) else {
            return Ok(());
        };
        if pod["metadata"]["annotations"].get(MIRROR).is_some() {
            return Ok(());
        }
        let name = match pod["spec"]["serviceAccountName"].as_str() {
            None | Some("") => DEFAULT.to_owned(),
            Some(name) => name.to_owned(),
        };
        pod["spec"]["serviceAccountName"] = name.clone().into();
        pod["spec"]["serviceAccount"] = name.clone().into();
        let Some(account) = self.account(&attributes.namespace, &name).await else {
            let namespace = &attributes.namespace;
            let why =
                format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
            return Err(attributes.forbidden(why));
        };
        let account = account.value();
        let Some(pod) = attributes.object.as_mut() else { return Ok(()) };
        let own = pod["spec"].get("automountServiceAccountToken").and_then(Value::as_bool);
        if own.or(account["automountServiceAccountToken"].as_bool()).unwrap_or(true) {
            mount_token(&mut pod["spec"]);
        }
        let has_pull_secrets =
            pod["spec"].get("imagePullSecrets").and_then(Value::as_array).is_some_and(|s| !s.is_empty());
        if let Some(secrets) = account["imagePullSecrets"].as_array().filter(|s| !s.is_empty() && !has_pull_secrets) {
            pod["spec"]["imagePullSecrets"] = secrets.clone().into();
        }
        Ok(())
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(pod) = &attributes.object else { return Ok(()) };
        if !pod["metadata"]["annotations"][MIRROR].is_null() {
            return check_mirror(&pod["spec"]).map_err(|why| attributes.forbidden(why));
        }
        let name = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
        let account = self.reader.collection("", "serviceaccounts").and_then(|c| c.get(&attributes.namespace, name));
        let Some(account) = account.map(|a| a.value()) else { return Ok(()) };
        if account["metadata"]["annotations"][ENFORCE_MOUNTABLE] != "true" {
            return Ok(());
        }
        let listed = |list: &str| -> Vec<&str> {
            account[list].as_array().into_iter().flatten().filter_map(|s| s["name"].as_str()).collect()
        };
        let (mountable, pullable) = (listed("secrets"), listed("imagePullSecrets"));
        let ephemeral = attributes.subresource == "ephemeralcontainers";
        let lists: &[(&str, &str)] =
            if ephemeral { &[("ephemeralContainers", "ephemeral container")] } else { &CONTAINERS };
        let unknown = |(_, secret): &(String, String)| !mountable.contains(&secret.as_str());
        let mounted = secrets_of(&pod["spec"], !ephemeral, lists).into_iter().find(unknown);
        if let Some((what, secret)) = mounted {
            let why = format!(
                "{what} secret.secretName=\"{secret}\" is not allowed because service account {name} does not reference that secret"
            );
            return Err(attributes.forbidden(why));
        }
        let pulls = pod["spec"]["imagePullSecrets"].as_array().into_iter().flatten().filter(|_| !ephemeral);
        for (index, secret) in pulls.filter_map(|s| s["name"].as_str()).enumerate() {
            if !pullable.contains(&secret) {
                let why = format!(
                    "imagePullSecrets[{index}].name=\"{secret}\" is not allowed because service account {name} does not reference that imagePullSecret"
                );
                return Err(attributes.forbidden(why));
            }
        }
        Ok(())
    }
}

/// Adds the token's volume to every container that has nothing in its place.
fn mount_token(spec: &mut Value) {
    let volumes = spec.get("volumes").and_then(Value::as_array);
    let names = volumes.into_iter().flatten().filter_map(|v| v["name"].as_str());
    let existing = names.into_iter().find(|n| n.starts_with(VOLUME)).map(str::to_owned);
    let name = existing.clone().unwrap_or_else(|| generate_name(VOLUME));
    let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            match container["volumeMounts"].as_array_mut() {
                Some(mounts) if mounts.iter().any(|m| m["mountPath"] == MOUNT_PATH) => continue,
                Some(mounts) => mounts.push(mount.clone()),
                None => container["volumeMounts"] = json!([mount]),
            }
            mounted = true;
        }
    }
    if !mounted || existing.is_some() {
        return;
    }
    let volume = json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": EXPIRATION, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}});
    match spec["volumes"].as_array_mut() {
        Some(volumes) => volumes.push(volume),
        None => spec["volumes"] = json!([volume]),
    }
}

/// Pods from a kubelet's own manifests stand outside the API's permissions.
fn check_mirror(spec: &Value) -> Result<(), &'static str> {
    if spec["serviceAccountName"].as_str().is_some_and(|n| !n.is_empty()) {
        return Err("a mirror pod may not reference service accounts");
    }
    let all = [CONTAINERS[0], CONTAINERS[1], ("ephemeralContainers", "")];
    if !secrets_of(spec, true, &all).is_empty() || refers_to_secrets(spec) {
        return Err("a mirror pod may not reference secrets");
    }
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let mut sources = volumes.flat_map(|v| v["projected"]["sources"].as_array().into_iter().flatten());
    if sources.any(|s| !s["serviceAccountToken"].is_null()) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// Lists of containers, and what one of them is called.
const CONTAINERS: [(&str, &str); 2] = [("initContainers", "init container"), ("containers", "container")];

/// Secrets that a pod mounts or reads, with how.
fn secrets_of(spec: &Value, volumes: bool, lists: &[(&str, &str)]) -> Vec<(String, String)> {
    let items = |list: &'_ Value| list.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    let mut found = Vec::new();
    for volume in items(&spec["volumes"]).iter().filter(|_| volumes) {
        found.extend(text(&volume["secret"]["secretName"]).map(|secret| ("volume with".to_owned(), secret)));
    }
    for (list, word) in lists {
        for container in items(&spec[*list]) {
            let what = format!("{word} {} with", container["name"].as_str().unwrap_or_default());
            for env in items(&container["env"]) {
                let named = env["name"].as_str().unwrap_or_default();
                let secret = text(&env["valueFrom"]["secretKeyRef"]["name"]);
                found.extend(secret.map(|secret| (format!("{what} envVar {named} referencing"), secret)));
            }
            for from in items(&container["envFrom"]) {
                let secret = text(&from["secretRef"]["name"]);
                found.extend(secret.map(|secret| (format!("{what} envFrom referencing"), secret)));
            }
        }
    }
    found
}

/// Whether the pod needs secrets in other ways.
fn refers_to_secrets(spec: &Value) -> bool {
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let projected = |v: &Value| items(&v["projected"]["sources"]).iter().any(|s| !s["secret"].is_null());
    let by_driver = |v: &Value| {
        let sources = v.as_object().into_iter().flatten().map(|(_, source)| source);
        sources.into_iter().any(|s| !s["secretRef"].is_null() || !s["nodePublishSecretRef"].is_null())
            || !v["azureFile"].is_null()
    };
    !items(&spec["imagePullSecrets"]).is_empty() || items(&spec["volumes"]).iter().any(|v| projected(v) || by_driver(v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_wherever_they_are_read() {
        let env = json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s1"}}}]);
        let from = json!([{"secretRef": {"name": "s2"}}]);
        let spec = json!({"volumes": [{"name": "v", "secret": {"secretName": "s0"}}],
            "initContainers": [{"name": "i", "env": env}], "containers": [{"name": "c", "envFrom": from}]});
        let found: Vec<String> =
            secrets_of(&spec, true, &CONTAINERS).iter().map(|(what, secret)| format!("{what} {secret}")).collect();
        let expected = [
            "volume with s0",
            "init container i with envVar E referencing s1",
            "container c with envFrom referencing s2",
        ];
        assert_eq!(found, expected);
        for (spec, expected) in [
            (json!({"volumes": [{"name": "v", "emptyDir": {}}]}), Ok(())),
            (json!({"serviceAccountName": "a"}), Err("a mirror pod may not reference service accounts")),
            (spec, Err("a mirror pod may not reference secrets")),
            (json!({"imagePullSecrets": [{"name": "x"}]}), Err("a mirror pod may not reference secrets")),
            (
                json!({"volumes": [{"name": "v", "csi": {"nodePublishSecretRef": {"name": "x"}}}]}),
                Err("a mirror pod may not reference secrets"),
            ),
            (
                json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
                Err("a mirror pod may not use ServiceAccountToken volume projections"),
            ),
        ] {
            assert_eq!(check_mirror(&spec), expected, "{spec}");
        }
    }
}
