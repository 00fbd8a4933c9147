//! What every controller works with.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::future::BoxFuture;
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use kube1_client::{Event, EventRecorder, Informer, Informers, Keep, ObjectKey, Outcome, WorkQueue, reconcile_all};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::manager::ControllerManagerConfig;
use crate::metrics;

/// Why an object could not be brought to its desired state; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("request failed")]
    Api(#[from] kube::Error),
    #[error("{0}")]
    Invalid(String),
    #[error("certificate cannot be issued")]
    Pki(#[from] kube1_pki::PkiError),
    /// The cache is behind the server, which has deleted the object; nothing may be done for it as the cache shows it.
    #[error("the object was deleted in the meantime")]
    Superseded,
}

pub type SyncResult = Result<Outcome, SyncError>;

/// One run of a controller.
#[derive(Clone)]
pub struct Controller {
    pub name: &'static str,
    /// Acts as the controller's service account.
    pub client: Client,
    /// Shared by all controllers.
    pub informers: Informers,
    pub recorder: EventRecorder,
    pub config: Arc<ControllerManagerConfig>,
    pub stop: CancellationToken,
}

impl Controller {
    /// Adds the keys that `keys` derives from each change to the queue.
    pub fn watch<K, T, I>(
        &self,
        informer: &Informer<K>,
        queue: &WorkQueue<T>,
        keys: impl Fn(&Event<K>) -> I + Send + Sync + 'static,
    ) where
        K: Keep,
        T: Clone + Eq + Hash + Send + Sync + 'static,
        I: IntoIterator<Item = T>,
    {
        let queue = queue.clone();
        // Informers outlive a failed run of the controller.
        informer.add_handler_until(self.stop.clone(), move |event| {
            keys(event).into_iter().for_each(|key| queue.add(key));
        });
    }

    /// Adds the key of each changed object to the queue.
    pub fn watch_own<K: Keep>(&self, informer: &Informer<K>, queue: &WorkQueue<ObjectKey>) {
        self.watch(informer, queue, |event| [event.object().key()]);
    }

    /// Works on the queue until the controller is stopped.
    pub async fn work<T, F, Fut>(&self, queue: &WorkQueue<T>, workers: usize, sync: F)
    where
        T: Clone + Eq + Hash + Debug + Send + Sync + 'static,
        F: Fn(T) -> Fut,
        Fut: Future<Output = SyncResult> + Send + 'static,
    {
        let sync = |key| {
            let synced = sync(key);
            async move {
                match synced.await {
                    // The deletion itself is on its way to the queue.
                    Err(SyncError::Superseded) => Ok(Outcome::Done),
                    synced => synced,
                }
            }
        };
        queue.metered(metrics::queue_name(self.name));
        reconcile_all(self.name, queue, workers, &self.stop, sync).await;
    }

    /// Lets `keeper` work on the queue until the controller is stopped.
    pub async fn keep<T, S>(&self, queue: &WorkQueue<T>, workers: usize, keeper: S)
    where
        T: Clone + Eq + Hash + Debug + Send + Sync + 'static,
        S: Reconcile<T> + Send + Sync + 'static,
    {
        let keeper = Arc::new(keeper);
        let sync = |key| {
            let keeper = Arc::clone(&keeper);
            async move { keeper.sync(key).await }
        };
        self.work(queue, workers, sync).await;
    }

    /// Waits for the first lists of informers; false if the controller is stopped first.
    pub async fn synced(&self, informers: &[&dyn Cache]) -> bool {
        let all = async {
            for informer in informers {
                informer.synced().await;
            }
        };
        self.stop.run_until_cancelled(all).await.is_some()
    }
}

/// Brings what a key of a queue names to its desired state.
pub trait Reconcile<T> {
    /// Acts on what the caches show; never for two equal keys at once.
    fn sync(&self, key: T) -> impl Future<Output = SyncResult> + Send;
}

/// An informer of any kind.
pub trait Cache: Sync {
    /// Waits for the first complete list. Cancel-safe.
    fn synced(&self) -> BoxFuture<'_, ()>;
}

impl<K: Keep> Cache for Informer<K> {
    fn synced(&self) -> BoxFuture<'_, ()> {
        Box::pin(Informer::synced(self))
    }
}

/// The API of a namespaced kind.
pub fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

/// The API of a cluster-scoped kind.
pub fn cluster<K: Resource<DynamicType = ()>>(client: &Client) -> Api<K> {
    Api::all(client.clone())
}

/// Replaces the status of an object that was read from a cache.
pub async fn replace_status<K>(api: &Api<K>, mut object: K) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = object.meta().name.clone().unwrap_or_default();
    object.meta_mut().managed_fields = None;
    api.replace_status(&name, &PostParams::default(), &object).await
}

/// Replaces an object that was read from a cache.
pub async fn replace<K>(api: &Api<K>, mut object: K) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = object.meta().name.clone().unwrap_or_default();
    object.meta_mut().managed_fields = None;
    api.replace(&name, &PostParams::default(), &object).await
}

/// Whether the server answered with this status code.
pub fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Takes "not found" as success.
pub fn unless_gone<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if !is_code(&error, 404) => Err(error),
        _ => Ok(()),
    }
}

/// Takes "already exists" as success.
pub fn unless_exists<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if !(is_code(&error, 409) && is_already_exists(&error)) => Err(error),
        _ => Ok(()),
    }
}

/// Whether a creation failed because the name is taken.
pub fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == "AlreadyExists")
}

/// Whether the namespace goes away, so that nothing can be created in it any more.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.as_ref().map(|d| d.causes.as_slice()).unwrap_or_default();
    status.code == 403 && causes.iter().any(|c| c.reason == "NamespaceTerminating")
}
