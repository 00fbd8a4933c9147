//! The revisions of DaemonSets and StatefulSets: their pod templates, kept as ControllerRevisions.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::core::Selector;
use kube::{Client, Resource};
use kube1_client::{Informer, ObjectKey};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::controller::{SyncError, is_already_exists, namespaced, replace, unless_gone};
use crate::owner::{claim, controller_of, reference, uid};
use crate::template::{hash, normalized};

/// Label of pods that names their revision.
pub const REVISION_LABEL: &str = "controller-revision-hash";

/// What a revision is made of.
pub struct Wanted<'a, O> {
    pub owner: &'a O,
    pub selector: &'a Selector,
    pub template: &'a PodTemplateSpec,
    /// Label of the revision with its hash.
    pub hash_label: &'static str,
    pub collisions: Option<i32>,
}

/// The revision of the template as it is now, and all others by age.
pub struct History {
    pub current: Arc<ControllerRevision>,
    pub old: Vec<Arc<ControllerRevision>>,
    /// Grows when a name was taken.
    pub collisions: Option<i32>,
}

/// Finds the revisions of an owner and makes the one of its template if it is new.
pub async fn follow<O>(
    client: &Client,
    revisions: &Informer<ControllerRevision>,
    wanted: Wanted<'_, O>,
) -> Result<History, SyncError>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let mut old = claim(client, wanted.owner, wanted.selector, revisions).await?;
    old.sort_by_key(|r| r.revision);
    let api = namespaced::<ControllerRevision>(client, wanted.owner.meta().namespace.as_deref().unwrap_or_default());
    let data = template_data(wanted.template);
    let newest = old.last().map_or(0, |r| r.revision);
    let same = |r: &Arc<ControllerRevision>| r.data.as_ref().is_some_and(|d| normalized(&d.0) == normalized(&data));
    let Some(index) = old.iter().rposition(same) else {
        let (made, collisions) = create(&api, &wanted, data, newest + 1).await?;
        return Ok(History { current: Arc::new(made), old, collisions });
    };
    let mut current = old.remove(index);
    if current.revision < newest {
        // A template that was used before is the newest revision again.
        let renewed = ControllerRevision { revision: newest + 1, ..ControllerRevision::clone(&current) };
        current = Arc::new(replace(&api, renewed).await?);
    }
    Ok(History { current, old, collisions: wanted.collisions })
}

fn template_data(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The template that a revision keeps.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    // From text, as every other object comes: a decoder from values would be one more copy of a large one.
    serde_json::from_str(&template.to_string()).ok()
}

async fn create<O>(
    api: &Api<ControllerRevision>,
    wanted: &Wanted<'_, O>,
    data: Value,
    number: i64,
) -> Result<(ControllerRevision, Option<i32>), SyncError>
where
    O: Resource<DynamicType = ()>,
{
    let owner = wanted.owner.meta();
    let mut collisions = wanted.collisions;
    loop {
        let hash = hash(&data, collisions);
        let mut labels = wanted.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        labels.insert(wanted.hash_label.to_owned(), hash.clone());
        let made = ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", owner.name.as_deref().unwrap_or_default())),
                namespace: owner.namespace.clone(),
                labels: Some(labels),
                annotations: owner.annotations.clone(),
                owner_references: Some(vec![reference(wanted.owner)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data.clone())),
            revision: number,
        };
        match api.create(&PostParams::default(), &made).await {
            Ok(created) => return Ok((created, collisions)),
            Err(error) if is_already_exists(&error) => {}
            Err(error) => return Err(error.into()),
        }
        let existing = api.get(made.metadata.name.as_deref().unwrap_or_default()).await?;
        let ours = controller_of(&existing.metadata).is_some_and(|o| o.uid == uid(owner));
        if ours && existing.data.as_ref().is_some_and(|d| normalized(&d.0) == normalized(&data)) {
            return Ok((existing, collisions));
        }
        collisions = Some(collisions.unwrap_or(0) + 1);
    }
}

/// Deletes the oldest revisions that no pod uses, beyond the limit.
pub async fn clean(
    client: &Client,
    old: &[Arc<ControllerRevision>],
    limit: Option<i32>,
    is_used: impl Fn(&ControllerRevision) -> bool,
) -> Result<(), SyncError> {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(usize::MAX);
    let unused: Vec<_> = old.iter().filter(|r| !is_used(r)).collect();
    for revision in unused.iter().take(unused.len().saturating_sub(limit)) {
        let key = ObjectKey::of(&***revision);
        let same = Preconditions { uid: revision.metadata.uid.clone(), resource_version: None };
        let api = namespaced::<ControllerRevision>(client, &key.namespace);
        unless_gone(api.delete(&key.name, &DeleteParams::default().preconditions(same)).await)?;
    }
    Ok(())
}
