//! Static pods: manifests in a directory, run without an apiserver, and mirrored to it so that people see them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube1_client::{Informer, ObjectKey};
use kube1_supervisor::BoxError;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::dir_watch::DirWatch;
use crate::kubelet::Workers;
use crate::labels;
use crate::pod::PodExt;

/// Looked at this often even if the kernel tells of no change.
const RESYNC: Duration = Duration::from_secs(60);
/// Mirrors that could not be made are tried again after this long.
const RETRY: Duration = Duration::from_secs(1);
/// An editor writes a file in several steps.
const SETTLE: Duration = Duration::from_millis(50);

/// Runs the manifests until `stop`.
pub(crate) async fn run(workers: Arc<Workers>, pods: Informer<Pod>, stop: CancellationToken) -> Result<(), BoxError> {
    let dir = workers.node.config.static_pod_dir.clone();
    let watch = DirWatch::new(&dir, DirWatch::FILES).map_err(|e| format!("cannot watch {}: {e}", dir.display()))?;
    // A mirror that somebody deletes is made again.
    let mirrors = Arc::new(Notify::new());
    let told = Arc::clone(&mirrors);
    pods.add_handler(move |event| {
        if event.object().is_mirror() {
            told.notify_one();
        }
    });
    let mut running: HashMap<ObjectKey, Arc<Pod>> = HashMap::new();
    loop {
        let wanted = read_manifests(&dir, &workers.node.config.node_name);
        for (key, pod) in &running {
            if wanted.get(key).is_none_or(|new| new.uid() != pod.uid())
                && let Some(entry) = workers.node.pods.get(pod.uid())
            {
                workers.remove(&entry);
            }
        }
        for pod in wanted.values() {
            workers.upsert(Arc::clone(pod), pods.get(&ObjectKey::of(pod.as_ref())));
        }
        running = wanted;
        let mirrored = pods.has_synced() && mirror(&workers, &pods, &running).await;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = mirrors.notified() => {}
            // The apiserver may not be there yet, or not know this node.
            () = tokio::time::sleep(if mirrored { RESYNC } else { RETRY }) => {}
            changed = watch.changed() => {
                changed.map_err(|e| format!("cannot watch {}: {e}", dir.display()))?;
                tokio::time::sleep(SETTLE).await;
            }
        }
    }
}

/// Makes the API show exactly the static pods that run. Says whether it does.
async fn mirror(workers: &Workers, pods: &Informer<Pod>, running: &HashMap<ObjectKey, Arc<Pod>>) -> bool {
    let mut all = true;
    let client = workers.node.config.client.clone();
    for mirror in pods.list().iter().filter(|p| p.is_mirror()) {
        let wanted = running.get(&ObjectKey::of(mirror.as_ref()));
        let same =
            wanted.is_some_and(|p| p.annotation(labels::CONFIG_HASH) == mirror.annotation(labels::CONFIG_MIRROR));
        if !same || mirror.metadata.deletion_timestamp.is_some() {
            let api: Api<Pod> = Api::namespaced(client.clone(), mirror.namespace());
            let params = DeleteParams::default().grace_period(0);
            if let Err(error) = api.delete(mirror.name(), &params).await {
                tracing::debug!(pod = mirror.name(), %error, "mirror pod not deleted");
            }
        }
    }
    for (key, pod) in running {
        if pods.get(key).is_some() {
            continue;
        }
        let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
        match api.create(&PostParams::default(), &mirror_of(workers, pod)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => {
                tracing::warn!(pod = key.name, %error, "mirror pod not created");
                all = false;
            }
        }
    }
    all
}

fn mirror_of(workers: &Workers, pod: &Pod) -> Pod {
    let mut mirror = pod.clone();
    mirror.metadata.uid = None;
    mirror.status = None;
    let hash = pod.annotation(labels::CONFIG_HASH).unwrap_or_default().to_owned();
    mirror.metadata.annotations.get_or_insert_default().insert(labels::CONFIG_MIRROR.to_owned(), hash);
    if let Some(node) = workers.node.api_node() {
        mirror.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: workers.node.config.node_name.clone(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            ..OwnerReference::default()
        }]);
    }
    mirror
}

/// The pods of a directory. A bad file is logged and left out; it never stops the others.
fn read_manifests(dir: &Path, node_name: &str) -> HashMap<ObjectKey, Arc<Pod>> {
    let mut files: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    let mut pods = HashMap::new();
    for path in files {
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        let kind = path.extension().map(|e| e.to_string_lossy().into_owned());
        if hidden || !path.is_file() || !matches!(kind.as_deref(), Some("yaml" | "yml" | "json")) {
            continue;
        }
        match std::fs::read_to_string(&path).map_err(|e| e.to_string()).and_then(|text| parse(&text, node_name)) {
            Ok(pod) => {
                pods.insert(ObjectKey::of(&pod), Arc::new(pod));
            }
            Err(error) => tracing::warn!(file = %path.display(), error, "not a pod manifest"),
        }
    }
    pods
}

pub(crate) fn parse(text: &str, node_name: &str) -> Result<Pod, String> {
    // By way of JSON: a decoder of pods from YAML would be one more copy of a large one.
    let manifest: Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let mut pod: Pod = serde_json::from_str(&manifest.to_string()).map_err(|e| e.to_string())?;
    if pod.spec.as_ref().is_none_or(|s| s.containers.is_empty()) || pod.name().is_empty() {
        return Err("a pod needs a name and at least one container".to_owned());
    }
    if let Some(resource) = api_reference(&manifest["spec"]) {
        return Err(format!("static pods may not reference {resource}"));
    }
    let digest = Sha256::digest(format!("{node_name}\n{text}"));
    let hash: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
    let meta = &mut pod.metadata;
    meta.name = Some(format!("{}-{node_name}", meta.name.as_deref().unwrap_or_default()));
    meta.namespace.get_or_insert_with(|| "default".to_owned());
    meta.uid = Some(meta.uid.clone().unwrap_or_else(|| hash.clone()));
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(labels::CONFIG_SOURCE.to_owned(), "file".to_owned());
    annotations.insert(labels::CONFIG_HASH.to_owned(), hash);
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node_name.to_owned());
    // Whatever becomes of the node, its own pods stay.
    spec.tolerations.get_or_insert_default().push(Toleration {
        effect: Some("NoExecute".to_owned()),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    });
    Ok(pod)
}

/// The resource of the API that a specification needs, which a pod of a file cannot have: nobody was asked whether it may
/// (`PreventStaticPodAPIReferences`).
fn api_reference(spec: &Value) -> Option<&'static str> {
    const NAMED: [(&str, &str); 2] =
        [("/serviceAccountName", "serviceaccounts"), ("/serviceAccount", "serviceaccounts")];
    const LISTED: [(&str, &str); 2] = [("/imagePullSecrets/0", "secrets"), ("/resourceClaims/0", "resourceclaims")];
    let named =
        NAMED.iter().find(|(path, _)| spec.pointer(path).and_then(Value::as_str).is_some_and(|n| !n.is_empty()));
    let listed = || LISTED.iter().find(|(path, _)| spec.pointer(path).is_some());
    let inside = || ["containers", "initContainers", "volumes"].iter().find_map(|list| referenced(&spec[*list]));
    named.or_else(listed).map(|(_, resource)| *resource).or_else(inside)
}

/// The resource that a member anywhere inside names.
fn referenced(value: &Value) -> Option<&'static str> {
    const MEMBERS: [(&str, &str); 9] = [
        ("secret", "secrets"),
        ("secretRef", "secrets"),
        ("secretKeyRef", "secrets"),
        ("nodePublishSecretRef", "secrets"),
        ("configMap", "configmaps"),
        ("configMapRef", "configmaps"),
        ("configMapKeyRef", "configmaps"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
    ];
    match value {
        Value::Array(items) => items.iter().find_map(referenced),
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            let known = MEMBERS.iter().find(|(member, _)| member == name && value.is_object());
            known.map(|(_, resource)| *resource).or_else(|| referenced(value))
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let text = "metadata:\n  name: web\nspec:\n  containers: [{name: c, image: x}]\n";
        let pod = parse(text, "n1").expect("a pod");
        assert_eq!((pod.name(), pod.namespace()), ("web-n1", "default"));
        assert!(pod.is_static() && !pod.uid().is_empty());
        assert_eq!(parse(text, "n1").map(|p| p.uid().to_owned()), Ok(pod.uid().to_owned()));
        assert_ne!(parse(text, "n2").map(|p| p.uid().to_owned()), Ok(pod.uid().to_owned()));
        assert!(parse("spec: {containers: []}", "n1").is_err());
    }

    #[test]
    fn a_manifest_needs_nothing_of_the_api() {
        let parse = |rest: &str, container: &str| {
            parse(
                &format!("{{metadata: {{name: web}}, spec: {{containers: [{{name: c, image: x{container}}}]{rest}}}}}"),
                "n1",
            )
        };
        for (rest, container, resource) in [
            (", serviceAccountName: a", "", "serviceaccounts"),
            (", imagePullSecrets: [{name: a}]", "", "secrets"),
            (", volumes: [{name: v, secret: {secretName: a}}]", "", "secrets"),
            (", volumes: [{name: v, projected: {sources: [{configMap: {name: a}}]}}]", "", "configmaps"),
            (", volumes: [{name: v, persistentVolumeClaim: {claimName: a}}]", "", "persistentvolumeclaims"),
            ("", ", env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: b}}}]", "secrets"),
            ("", ", envFrom: [{configMapRef: {name: a}}]", "configmaps"),
        ] {
            let why = parse(rest, container).map(drop);
            assert_eq!(why, Err(format!("static pods may not reference {resource}")));
        }
        let plain = parse(
            ", volumes: [{name: secret, hostPath: {path: /x}}], imagePullSecrets: []",
            ", env: [{name: configMap}]",
        );
        assert!(plain.is_ok(), "{plain:?}");
    }
}
