//! Deletion of namespaces: first everything in them, then the namespace's own finalizer.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::Request;
use kube1_client::{Event, Informer, ObjectKey, Outcome, Ownership, WorkQueue};
use kube1_supervisor::BoxError;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::cached_pod::CachedPod;
use crate::clock;
use crate::controller::{Controller, Reconcile, SyncError, SyncResult, cluster, is_code, replace_status, unless_gone};
use crate::discovery::{Kind, Kinds};
use crate::pod_control::reason;

const FINALIZER: &str = "kubernetes";
/// When to look again for content that goes away by itself, unless a pod's end tells earlier.
const RECHECK: Duration = Duration::from_secs(2);
/// Objects listed at once.
const PAGE: u32 = 500;

/// Runs the controller of namespaces.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let (namespaces, pods) = (controller.informers.all::<Namespace>(), controller.informers.all::<CachedPod>());
    if !controller.synced(&[&namespaces]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    controller.watch(&namespaces, &queue, |event| match event {
        Event::Deleted(_) => None,
        event => Some(event.object()).filter(|n| n.metadata.deletion_timestamp.is_some())?.metadata.name.clone(),
    });
    let known = namespaces.clone();
    controller.watch(&pods, &queue, move |event| {
        let Event::Deleted(pod) = event else { return None };
        let name = pod.namespace.to_string();
        let namespace = known.get(&ObjectKey::new("", name.clone()))?;
        namespace.metadata.deletion_timestamp.is_some().then_some(name)
    });
    let deleter = Deleter { client: controller.client.clone(), namespaces };
    controller.keep(&queue, 10, deleter).await;
    Ok(())
}

struct Deleter {
    client: Client,
    namespaces: Informer<Namespace>,
}

/// What one round of deleting found.
#[derive(Default)]
struct Findings {
    /// Groups that could not be discovered.
    undiscovered: Vec<String>,
    errors: Vec<String>,
    /// Objects that are still there, by kind.
    remaining: BTreeMap<String, usize>,
    /// And the finalizers that hold them.
    finalizers: BTreeMap<String, usize>,
}

impl Findings {
    fn is_clean(&self) -> bool {
        self.undiscovered.is_empty() && self.errors.is_empty() && self.remaining.is_empty()
    }
}

impl Reconcile<String> for Deleter {
    async fn sync(&self, name: String) -> SyncResult {
        let Some(namespace) = self.namespaces.get(&ObjectKey::new("", name.clone())) else { return Ok(Outcome::Done) };
        let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.clone()).unwrap_or_default();
        if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|f| f == FINALIZER) {
            return Ok(Outcome::Done);
        }
        let findings = self.delete_content(&name).await?;
        if findings.is_clean() {
            self.finalize(&namespace, finalizers).await?;
            return Ok(Outcome::Done);
        }
        self.report(&namespace, &findings).await?;
        // Errors are retried with growing delays; content that ends by itself is looked at regularly.
        Ok(if findings.errors.is_empty() { Outcome::RequeueAfter(RECHECK) } else { Outcome::Retry })
    }
}

impl Deleter {
    async fn delete_content(&self, namespace: &str) -> Result<Findings, SyncError> {
        let kinds = Kinds::discover(&self.client).await?;
        let mut findings = Findings { undiscovered: kinds.stale.clone(), ..Findings::default() };
        let deletable = |k: &&Kind| k.namespaced && k.can("delete") && k.can("list");
        let is_pod = |k: &Kind| k.resource.group.is_empty() && k.resource.plural == "pods";
        let (pods, others): (Vec<&Kind>, Vec<&Kind>) = kinds.all.iter().filter(deletable).partition(|k| is_pod(k));
        for kind in pods {
            self.delete_kind(namespace, kind, &mut findings).await;
        }
        // While pods run, what they use (network policies, secrets) stays.
        if findings.remaining.is_empty() && findings.errors.is_empty() {
            for kind in others {
                self.delete_kind(namespace, kind, &mut findings).await;
            }
        }
        Ok(findings)
    }

    async fn delete_kind(&self, namespace: &str, kind: &Kind, findings: &mut Findings) {
        match delete_all(&self.client, namespace, kind).await {
            Ok(remaining) if remaining.is_empty() => {}
            Ok(remaining) => {
                let name = format!("{}.{}", kind.resource.plural, kind.resource.group);
                findings.remaining.insert(name, remaining.len());
                for finalizer in remaining.iter().flat_map(|o| &o.finalizers) {
                    *findings.finalizers.entry(finalizer.clone()).or_insert(0) += 1;
                }
            }
            Err(error) => findings.errors.push(format!("{}: {}", kind.name(), reason(&error))),
        }
    }

    async fn finalize(&self, namespace: &Namespace, mut finalizers: Vec<String>) -> Result<(), SyncError> {
        let mut changed = namespace.clone();
        finalizers.retain(|f| f != FINALIZER);
        changed.metadata.managed_fields = None;
        changed.spec.get_or_insert_default().finalizers = Some(finalizers);
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let api = cluster::<Namespace>(&self.client);
        let params = PostParams::default();
        Ok(unless_gone(api.replace_subresource("finalize", name, &params, &changed).await)?)
    }

    async fn report(&self, namespace: &Namespace, findings: &Findings) -> Result<(), SyncError> {
        let mut changed = namespace.clone();
        let status = changed.status.get_or_insert_default();
        let before = status.clone();
        status.phase = Some("Terminating".into());
        let conditions = status.conditions.get_or_insert_default();
        for verdict in verdicts(findings) {
            set_condition(conditions, verdict);
        }
        if *status == before {
            return Ok(());
        }
        Ok(unless_gone(replace_status(&cluster(&self.client), changed).await)?)
    }
}

/// Deletes all objects of a kind and returns those that are still there.
async fn delete_all(client: &Client, namespace: &str, kind: &Kind) -> Result<Vec<Ownership>, kube::Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind.resource);
    let left = match list(client, &api).await {
        // A kind that can be discovered but not listed here has nothing in the namespace.
        Err(error) if is_code(&error, 404) || is_code(&error, 405) => return Ok(Vec::new()),
        left => left?,
    };
    if left.is_empty() {
        return Ok(left);
    }
    let params = DeleteParams::background();
    if kind.can("deletecollection") {
        let request = Request::new(api.resource_url()).delete_collection(&params, &ListParams::default());
        // The answer has all that was deleted in full, and nobody to read it.
        let _: IgnoredAny = client.request(request.map_err(kube::Error::BuildRequest)?).await?;
    } else {
        for object in &left {
            unless_gone(api.delete(&object.name, &params).await)?;
        }
    }
    list(client, &api).await
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: ListMeta,
    /// Servers in Go write an empty list of metadata as null.
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Ownership,
}

/// Who there is of a kind, page by page: thousands of objects at once would take a lot of memory.
async fn list(client: &Client, api: &Api<DynamicObject>) -> Result<Vec<Ownership>, kube::Error> {
    let (mut found, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let request = Request::new(api.resource_url()).list_metadata(&params).map_err(kube::Error::BuildRequest)?;
        let page: Page = client.request(request).await?;
        found.extend(page.items.into_iter().flatten().map(|object| object.metadata));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// A condition's type, its reason and message when all is well, its reason when not, and what is wrong.
type Verdict = (&'static str, (&'static str, &'static str), &'static str, Option<String>);

fn verdicts(findings: &Findings) -> [Verdict; 5] {
    let stale = |version: &String| format!("{version}: stale GroupVersion discovery: {version}");
    let undiscovered = findings.undiscovered.iter().map(stale).collect::<Vec<_>>().join(", ");
    let undiscovered = format!(
        "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {undiscovered}",
        findings.undiscovered.len()
    );
    let errors = format!(
        "Failed to delete all resource types, {} remaining: {}",
        findings.errors.len(),
        findings.errors.join(", ")
    );
    let list = |counts: &BTreeMap<String, usize>, what: &str| {
        counts.iter().map(|(name, n)| format!("{name} {what} {n} resource instances")).collect::<Vec<_>>().join(", ")
    };
    let remaining = format!("Some resources are remaining: {}", list(&findings.remaining, "has"));
    let finalizers =
        format!("Some content in the namespace has finalizers remaining: {}", list(&findings.finalizers, "in"));
    [
        (
            "NamespaceDeletionDiscoveryFailure",
            ("ResourcesDiscovered", "All resources successfully discovered"),
            "DiscoveryFailed",
            (!findings.undiscovered.is_empty()).then_some(undiscovered),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            "GroupVersionParsingFailed",
            None,
        ),
        (
            "NamespaceDeletionContentFailure",
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            "ContentDeletionFailed",
            (!findings.errors.is_empty()).then_some(errors),
        ),
        (
            "NamespaceContentRemaining",
            ("ContentRemoved", "All content successfully removed"),
            "SomeResourcesRemain",
            (!findings.remaining.is_empty()).then_some(remaining),
        ),
        (
            "NamespaceFinalizersRemaining",
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            "SomeFinalizersRemain",
            (!findings.finalizers.is_empty()).then_some(finalizers),
        ),
    ]
}

fn set_condition(conditions: &mut Vec<NamespaceCondition>, (kind, good, bad, wrong): Verdict) {
    let status = if wrong.is_some() { "True" } else { "False" };
    let old = conditions.iter().position(|c| c.type_ == kind);
    let since = old.map(|i| &conditions[i]).filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    let condition = NamespaceCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(if wrong.is_some() { bad } else { good.0 }.to_owned()),
        message: Some(wrong.unwrap_or_else(|| good.1.to_owned())),
        last_transition_time: since.or_else(|| Some(clock::now())),
    };
    match old {
        Some(i) => conditions[i] = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_other_servers_can_be_read() {
        for (text, names) in [
            (r#"{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"5"},"items":null}"#, vec![]),
            (r#"{"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}"#, vec!["a", "b"]),
            ("{}", vec![]),
        ] {
            let page: Page = serde_json::from_str(text).unwrap();
            let found: Vec<String> = page.items.into_iter().flatten().map(|item| item.metadata.name).collect();
            assert_eq!(found, names, "{text}");
        }
    }

    #[test]
    fn what_stands_in_the_way_is_told_as_upstream_tells_it() {
        let clean = verdicts(&Findings::default());
        assert!(clean.iter().all(|verdict| verdict.3.is_none()));
        let findings = Findings {
            undiscovered: vec!["x.io/v1".into()],
            errors: vec!["things.x.io: gone".into()],
            remaining: [("pods.".to_owned(), 2)].into(),
            finalizers: [("x.io/hold".to_owned(), 1)].into(),
        };
        let told: Vec<String> = verdicts(&findings).into_iter().filter_map(|verdict| verdict.3).collect();
        let group =
            "unable to retrieve the complete list of server APIs: x.io/v1: stale GroupVersion discovery: x.io/v1";
        assert_eq!(
            told,
            [
                format!("Discovery failed for some groups, 1 failing: {group}"),
                "Failed to delete all resource types, 1 remaining: things.x.io: gone".into(),
                "Some resources are remaining: pods. has 2 resource instances".into(),
                "Some content in the namespace has finalizers remaining: x.io/hold in 1 resource instances".into(),
            ]
        );
    }
}
