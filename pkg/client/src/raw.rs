//! Watches of any kind whose objects stay JSON text until their consumer's type is known.
//!
//! A watch of typed objects is compiled again for every kind, its decoder several times; those copies were a tenth of
//! the program. Here one copy follows every kind, and a kind adds only the decoder that its requests have anyway.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};

use tokio::time::Instant;

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

/// The name under which serde_json knows that a value is wanted as it is written. Where it means nothing, as in a reader
/// with another name for it, the value is read and written anew.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// Takes a value as JSON text, be it read from text or from what has been read already: an event that has its object before
/// its type, as servers that sort members send it, is kept aside until its type is known.
struct Text;

impl<'de> Visitor<'de> for Text {
    type Value = Box<RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Box::<RawValue>::deserialize(MapAccessDeserializer::new(map))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        to_raw_value(&value).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = deserializer.deserialize_newtype_struct(RAW_VALUE, Text)?;
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
    let mut pause = RELIST_PAUSE;
    loop {
        let started = Instant::now();
        let mut events = std::pin::pin!(watcher(api.clone(), config.clone()).default_backoff());
        loop {
            match events.next().await {
                Some(Ok(event)) => observe(event),
                Some(Err(error)) if is_unreadable(&error) => {
                    tracing::warn!(kind, %error, "an event cannot be read, so all is listed anew");
                    break;
                }
                Some(Err(error)) => tracing::debug!(kind, ?error, "watch interrupted, will be resumed"),
                None => return,
            }
        }
        // Whoever sends what cannot be read may do so again and again.
        pause = if started.elapsed() > RELIST_PAUSE_MAX { RELIST_PAUSE } else { (pause * 2).min(RELIST_PAUSE_MAX) };
        tokio::time::sleep(pause).await;
    }
}

/// Time before all is listed because an event could not be read; doubled while that goes on.
const RELIST_PAUSE: Duration = Duration::from_millis(400);
const RELIST_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Whether an event is lost: the watch itself would go on after it in silence. Most lines that are no event are taken for a
/// Status without anything in it.
fn is_unreadable(error: &watcher::Error) -> bool {
    use kube::Error::{Api, LinesCodecMaxLineLengthExceeded, SerdeError};
    matches!(error, watcher::Error::WatchFailed(Api(_) | SerdeError(_) | LinesCodecMaxLineLengthExceeded))
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
    fn an_event_may_have_its_object_before_its_type() {
        let event = r#"{"object":{"metadata":{"name":"a","namespace":"n","resourceVersion":"7"},"data":{"k":"\u00fc"},
            "count":18446744073709551615},"type":"MODIFIED"}"#;
        let WatchEvent::Modified(raw) = serde_json::from_str::<WatchEvent<RawObject>>(event).unwrap() else { panic!() };
        assert_eq!((raw.key().name.as_str(), raw.meta.resource_version.as_deref()), ("a", Some("7")));
        assert_eq!(raw.decode::<ConfigMap>().unwrap().data.unwrap()["k"], "ü");
        assert!(raw.json.get().contains("18446744073709551615"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_cannot_be_read_has_all_listed_anew() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        let lists = AtomicUsize::new(0);
        let answer = move |request: http::Request<kube::client::Body>| {
            let body = match request.uri().query().unwrap_or_default().contains("watch=true") {
                true => "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":7}}}\n".to_owned(),
                false => format!(
                    r#"{{"metadata":{{"resourceVersion":"1"}},"items":[{{"metadata":{{"name":"list{}"}}}}]}}"#,
                    lists.fetch_add(1, Ordering::Relaxed)
                ),
            };
            let body = kube::client::Body::from(body.into_bytes());
            std::future::ready(Ok::<_, std::convert::Infallible>(http::Response::new(body)))
        };
        let api = Api::all_with(Client::new(tower::service_fn(answer), "n"), &ApiResource::erase::<ConfigMap>(&()));
        let (told, mut events) = tokio::sync::mpsc::unbounded_channel();
        let following = follow(api, "ConfigMap".into(), Selection::default(), move |event| {
            if let watcher::Event::InitApply(raw) = event {
                told.send(raw.key().name).unwrap();
            }
        });
        let listed = async { (events.recv().await.unwrap(), events.recv().await.unwrap()) };
        let listed = tokio::time::timeout(Duration::from_secs(60), async {
            tokio::select! { listed = listed => listed, () = following => unreachable!() }
        });
        assert_eq!(listed.await.unwrap(), ("list0".to_owned(), "list1".to_owned()));
    }

    #[test]
    fn an_object_that_does_not_fit_its_type_is_refused_by_its_consumer_only() {
        let raw: RawObject = serde_json::from_str(r#"{"metadata":{"name":"a"},"data":[1]}"#).unwrap();
        assert!(raw.decode::<ConfigMap>().is_err());
    }
}
