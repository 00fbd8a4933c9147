//! Watches of any kind whose objects stay JSON text until their consumer's type is known.
//!
//! A watch of typed objects is compiled again for every kind, its decoder several times; those copies were a tenth of
//! the program. Here one copy follows every kind, and a kind adds only the decoder that its requests have anyway.

use std::borrow::Cow;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde_json::value::RawValue;

use crate::informer::{ObjectKey, Selection};

/// An object's JSON text, and of its metadata what a watch needs.
#[derive(Clone, Debug)]
pub(crate) struct RawObject {
    meta: ObjectMeta,
    json: Box<RawValue>,
}

impl RawObject {
    /// The object as its own type, without `managedFields`: no component reads them, and they are often its larger half.
    pub(crate) fn decode<K: Resource + DeserializeOwned>(&self) -> serde_json::Result<K> {
        let mut object: K = serde_json::from_str(self.json.get())?;
        object.meta_mut().managed_fields = None;
        Ok(object)
    }

    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey::new(
            self.meta.namespace.as_deref().unwrap_or_default(),
            self.meta.name.as_deref().unwrap_or_default(),
        )
    }
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    metadata: HeadMeta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HeadMeta {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let Head { metadata } = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        let HeadMeta { name, namespace, resource_version } = metadata;
        Ok(Self { meta: ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() }, json })
    }
}

impl Resource for RawObject {
    type DynamicType = ApiResource;
    type Scope = <DynamicObject as Resource>::Scope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(kind)
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(kind)
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(kind)
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// What the metadata of an object says about who owns it, and whether it stays.
///
/// Of metadata most is `managedFields`, which nobody who follows objects for their owners needs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ownership {
    pub name: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub uid: String,
    pub owner_references: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub deletion_timestamp: Option<Time>,
}

#[derive(Default, Deserialize)]
struct Owned {
    #[serde(default)]
    metadata: Ownership,
}

/// Follows the ownership of all objects of any kind and tells `observe`, resuming after every interruption. Ends only
/// when dropped.
pub async fn follow_ownership(client: Client, kind: &ApiResource, observe: impl Fn(watcher::Event<Ownership>) + Send) {
    let read = |raw: RawObject| {
        let refused = |error| tracing::warn!(object = %raw.key(), %error, "metadata cannot be read");
        serde_json::from_str::<Owned>(raw.json.get()).map_err(refused).unwrap_or_default().metadata
    };
    let tell = move |event| {
        observe(match event {
            watcher::Event::Init => watcher::Event::Init,
            watcher::Event::InitApply(raw) => watcher::Event::InitApply(read(raw)),
            watcher::Event::InitDone => watcher::Event::InitDone,
            watcher::Event::Apply(raw) => watcher::Event::Apply(read(raw)),
            watcher::Event::Delete(raw) => watcher::Event::Delete(read(raw)),
        });
    };
    follow(Api::all_with(client, kind), kind.kind.clone(), Selection::default(), tell).await;
}

/// Follows what `selection` names of `api` and tells `observe`, resuming after every interruption. Ends only when dropped.
pub(crate) async fn follow(
    api: Api<RawObject>,
    kind: String,
    selection: Selection,
    observe: impl Fn(watcher::Event<RawObject>) + Send,
) {
    let mut config = watcher::Config::default();
    if !selection.field_selector.is_empty() {
        config = config.fields(&selection.field_selector);
    }
    if !selection.label_selector.is_empty() {
        config = config.labels(&selection.label_selector);
    }
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => observe(event),
            Err(error) => tracing::debug!(kind, ?error, "watch interrupted, will be resumed"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::{ObjectList, WatchEvent};

    use super::*;

    #[test]
    fn objects_of_watches_and_lists_are_decoded_by_their_consumer() {
        let object = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"n","resourceVersion":"7",
            "managedFields":[{"manager":"m"}]},"data":{"k":"\u00fc"}}"#;
        let event: WatchEvent<RawObject> =
            serde_json::from_str(&format!(r#"{{"type":"ADDED","object":{object}}}"#)).unwrap();
        let list: ObjectList<RawObject> = serde_json::from_str(&format!(
            r#"{{"kind":"ConfigMapList","apiVersion":"v1","metadata":{{"resourceVersion":"9"}},"items":[{object}]}}"#
        ))
        .unwrap();
        let WatchEvent::Added(added) = event else { panic!("{event:?}") };
        for raw in [&added, &list.items[0]] {
            assert_eq!((raw.key().name.as_str(), raw.meta.resource_version.as_deref()), ("a", Some("7")));
            let decoded: ConfigMap = raw.decode().unwrap();
            assert_eq!(decoded.data.unwrap()["k"], "ü");
            assert_eq!(decoded.metadata.managed_fields, None);
        }
    }

    #[test]
    fn an_object_that_does_not_fit_its_type_is_refused_by_its_consumer_only() {
        let raw: RawObject = serde_json::from_str(r#"{"metadata":{"name":"a"},"data":[1]}"#).unwrap();
        assert!(raw.decode::<ConfigMap>().is_err());
    }
}
