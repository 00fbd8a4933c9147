//! What every namespace gets: the ServiceAccount `default` and the ConfigMap with the server's certificates.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube1_client::{Event, Informer, Keep, ObjectKey, Outcome, Selection, WorkQueue};
use kube1_supervisor::BoxError;

use crate::controller::{Controller, SyncResult, is_namespace_terminating, namespaced, replace, unless_exists};

const ACCOUNT: &str = "default";
const CONFIG_MAP: &str = "kube-root-ca.crt";
const CERTIFICATES: &str = "ca.crt";

/// Keeps a ServiceAccount `default` in every namespace.
pub async fn run_default_accounts(controller: Controller) -> Result<(), BoxError> {
    let selection = Selection { field_selector: format!("metadata.name={ACCOUNT}"), ..Selection::default() };
    let accounts = controller.informers.select::<ServiceAccount>(selection);
    let (client, known) = (controller.client.clone(), accounts.clone());
    run(controller, accounts, move |namespace| {
        let (client, known) = (client.clone(), known.clone());
        async move {
            if known.get(&ObjectKey::new(namespace.clone(), ACCOUNT)).is_some() {
                return Ok(());
            }
            let account = ServiceAccount { metadata: named(ACCOUNT), ..ServiceAccount::default() };
            created(namespaced(&client, &namespace).create(&PostParams::default(), &account).await)
        }
    })
    .await
}

/// Keeps the certificates by which pods verify the API server in every namespace.
pub async fn run_root_ca_publisher(controller: Controller) -> Result<(), BoxError> {
    let selection = Selection { field_selector: format!("metadata.name={CONFIG_MAP}"), ..Selection::default() };
    let maps = controller.informers.select::<ConfigMap>(selection);
    let (client, known) = (controller.client.clone(), maps.clone());
    let data = Arc::new(BTreeMap::from([(CERTIFICATES.to_owned(), controller.config.root_ca_pem.clone())]));
    run(controller, maps, move |namespace| {
        let (client, known, data) = (client.clone(), known.clone(), Arc::clone(&data));
        async move {
            let api = namespaced::<ConfigMap>(&client, &namespace);
            match known.get(&ObjectKey::new(namespace, CONFIG_MAP)) {
                Some(map) if map.data.as_ref() == Some(&*data) => Ok(()),
                Some(map) => {
                    let data = Some(BTreeMap::clone(&data));
                    replace(&api, ConfigMap { data, ..ConfigMap::clone(&map) }).await.map(drop)
                }
                None => {
                    let mut metadata = named(CONFIG_MAP);
                    let about = "Certificates that verify this cluster's API server under its in-cluster names.";
                    let annotation = ("kubernetes.io/description".to_owned(), about.to_owned());
                    metadata.annotations = Some(BTreeMap::from([annotation]));
                    let data = Some(BTreeMap::clone(&data));
                    let map = ConfigMap { metadata, data, ..ConfigMap::default() };
                    created(api.create(&PostParams::default(), &map).await)
                }
            }
        }
    })
    .await
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

/// An object that exists already, or a namespace that goes away, is fine.
fn created<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match unless_exists(result) {
        Err(error) if is_namespace_terminating(&error) => Ok(()),
        result => result,
    }
}

/// Runs `ensure` for every active namespace, at first and whenever the namespace's object changes.
async fn run<K, F, Fut>(controller: Controller, objects: Informer<K>, ensure: F) -> Result<(), BoxError>
where
    K: Keep,
    F: Fn(String) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), kube::Error>> + Send + 'static,
{
    let namespaces = controller.informers.all::<Namespace>();
    if !controller.synced(&[&namespaces, &objects]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    controller.watch(&namespaces, &queue, |event| match event {
        Event::Deleted(_) => None,
        event => event.object().metadata.name.clone(),
    });
    controller.watch(&objects, &queue, |event| match event {
        Event::Added(_) => None,
        event => Some(event.object().full_name().0.to_owned()),
    });
    let sync = |name: String| {
        let (namespaces, ensure) = (namespaces.clone(), ensure.clone());
        async move {
            let namespace = namespaces.get(&ObjectKey::new("", name.clone()));
            if namespace.is_some_and(|n| n.metadata.deletion_timestamp.is_none()) {
                ensure(name).await?;
            }
            SyncResult::Ok(Outcome::Done)
        }
    };
    controller.work(&queue, 4, sync).await;
    Ok(())
}
