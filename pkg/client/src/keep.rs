//! What informers keep of the objects they follow.

use kube::Resource;
use serde::de::DeserializeOwned;

use crate::informer::ObjectKey;

/// What an informer keeps of each object of a kind: the object as the API has it, or the little of it that is read.
///
/// Caches hold thousands of pods, whose form in the API is many times larger than what any one component reads.
pub trait Keep: Send + Sync + Sized + 'static {
    /// The kind as the API has it.
    type Object: Resource<DynamicType = ()> + DeserializeOwned;

    fn keep(object: Self::Object) -> Self;

    /// Namespace, empty for cluster-scoped objects, and name.
    fn full_name(&self) -> (&str, &str);

    /// The resourceVersion; 0 if it is not known, and the object counts as changed each time it is seen.
    fn version(&self) -> u64;

    fn key(&self) -> ObjectKey {
        let (namespace, name) = self.full_name();
        ObjectKey::new(namespace, name)
    }
}

impl<K> Keep for K
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static,
{
    type Object = Self;

    fn keep(object: Self) -> Self {
        object
    }

    fn full_name(&self) -> (&str, &str) {
        let meta = self.meta();
        (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }

    fn version(&self) -> u64 {
        self.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
    }
}
