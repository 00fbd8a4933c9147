//! Certificate signing requests: approves those of the cluster's own nodes, signs approved ones, removes old ones.

mod rules;

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, PostParams};
use kube1_client::{Event, Informer, ObjectKey, Outcome, WorkQueue};
use kube1_pki::CertificateRequest;
use kube1_supervisor::BoxError;

use crate::clock;
use crate::controller::{Controller, SyncError, SyncResult, cluster, replace_status, unless_gone};
use rules::{addresses, check, check_kubelet_client, check_kubelet_serving, names_are_of, signing};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const LEGACY: &str = "kubernetes.io/legacy-unknown";
const NODE_PREFIX: &str = "system:node:";
/// How long requests are kept: answered ones, and those nobody answers.
const KEEP_ANSWERED: i64 = 3600;
const KEEP_PENDING: i64 = 24 * 3600;

/// Runs the controller that approves requests of nodes.
pub async fn run_approver(controller: Controller) -> Result<(), BoxError> {
    let (requests, nodes) =
        (controller.informers.all::<CertificateSigningRequest>(), controller.informers.all::<Node>());
    let queue = WorkQueue::new();
    let waiting = requests.clone();
    if !controller.synced(&[&requests, &nodes]).await {
        return Ok(());
    }
    controller.watch_own(&requests, &queue);
    // A serving certificate waits until its node has told its addresses.
    controller.watch(&nodes, &queue, move |event| {
        let user = format!("{NODE_PREFIX}{}", event.object().metadata.name.as_deref().unwrap_or_default());
        let own = move |r: &Arc<CertificateSigningRequest>| r.spec.username.as_deref() == Some(&*user) && is_pending(r);
        let same = matches!(event, Event::Updated { old, new } if addresses(old) == addresses(new));
        let found = if same { Vec::new() } else { waiting.list() };
        found.into_iter().filter(own).map(|r| ObjectKey::of(&*r)).collect::<Vec<_>>()
    });
    let sync = |key: ObjectKey| {
        let (controller, requests, nodes) = (controller.clone(), requests.clone(), nodes.clone());
        async move {
            match requests.get(&key).filter(|r| is_pending(r)) {
                Some(request) => approve(&controller, &nodes, &request).await,
                None => Ok(Outcome::Done),
            }
        }
    };
    controller.work(&queue, 2, sync).await;
    Ok(())
}

/// Runs the controller that signs approved requests.
pub async fn run_signer(controller: Controller) -> Result<(), BoxError> {
    let requests = controller.informers.all::<CertificateSigningRequest>();
    let queue = WorkQueue::new();
    if !controller.synced(&[&requests]).await {
        return Ok(());
    }
    controller.watch_own(&requests, &queue);
    let sync = |key: ObjectKey| {
        let (controller, requests) = (controller.clone(), requests.clone());
        async move {
            match requests.get(&key) {
                Some(request) if wants_signature(&request) => sign(&controller, &request).await,
                _ => Ok(Outcome::Done),
            }
        }
    };
    controller.work(&queue, 2, sync).await;
    Ok(())
}

/// Runs the controller that removes old requests.
pub async fn run_cleaner(controller: Controller) -> Result<(), BoxError> {
    let requests = controller.informers.all::<CertificateSigningRequest>();
    let queue = WorkQueue::new();
    controller.watch_own(&requests, &queue);
    let sync = |key: ObjectKey| {
        let (controller, requests) = (controller.clone(), requests.clone());
        async move {
            let Some(request) = requests.get(&key) else { return Ok(Outcome::Done) };
            let conditions = request.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or(&[]);
            let answered =
                conditions.iter().filter_map(|c| c.last_transition_time.as_ref().or(c.last_update_time.as_ref()));
            let left = match answered.max() {
                Some(at) => clock::until(at, KEEP_ANSWERED),
                None => request.metadata.creation_timestamp.as_ref().and_then(|at| clock::until(at, KEEP_PENDING)),
            };
            match left {
                Some(left) => Ok(Outcome::RequeueAfter(left)),
                None => {
                    let api = cluster::<CertificateSigningRequest>(&controller.client);
                    unless_gone(api.delete(&key.name, &DeleteParams::default()).await)?;
                    Ok(Outcome::Done)
                }
            }
        }
    };
    controller.work(&queue, 1, sync).await;
    Ok(())
}

fn has(request: &CertificateSigningRequest, condition: &str) -> bool {
    let conditions = request.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or(&[]);
    conditions.iter().any(|c| c.type_ == condition)
}

fn is_pending(request: &CertificateSigningRequest) -> bool {
    !has(request, "Approved") && !has(request, "Denied")
}

fn wants_signature(request: &CertificateSigningRequest) -> bool {
    let signed = request.status.as_ref().is_some_and(|s| s.certificate.as_ref().is_some_and(|c| !c.0.is_empty()));
    let ours = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY].contains(&request.spec.signer_name.as_str());
    ours && !signed && has(request, "Approved") && !has(request, "Denied") && !has(request, "Failed")
}

fn parse(request: &CertificateSigningRequest) -> Result<CertificateRequest, SyncError> {
    let pem = String::from_utf8_lossy(&request.spec.request.0);
    Ok(CertificateRequest::from_pem(&pem)?)
}

async fn approve(controller: &Controller, nodes: &Informer<Node>, request: &CertificateSigningRequest) -> SyncResult {
    // A request that cannot be read is left to people, as is every one that is not a node's.
    let Ok(parsed) = parse(request) else { return Ok(Outcome::Done) };
    let spec = &request.spec;
    let message = match spec.signer_name.as_str() {
        KUBELET_CLIENT if check_kubelet_client(spec, &parsed).is_ok() => {
            let renewal = spec.username.as_deref() == Some(&parsed.subject().common_name);
            let subresource = if renewal { "selfnodeclient" } else { "nodeclient" };
            if !may(controller, spec, subresource).await? {
                return Ok(Outcome::Done);
            }
            "Auto approving kubelet client certificate after SubjectAccessReview."
        }
        KUBELET_SERVING if check_kubelet_serving(spec, &parsed).is_ok() => {
            let name = parsed.subject().common_name.strip_prefix(NODE_PREFIX).unwrap_or_default();
            let node = nodes.get(&ObjectKey::new("", name));
            if !node.is_some_and(|n| names_are_of(&n, parsed.alt_names())) {
                return Ok(Outcome::Done);
            }
            "Auto approving kubelet serving certificate: its names are the node's addresses."
        }
        _ => return Ok(Outcome::Done),
    };
    let mut changed = request.clone();
    let now = Some(clock::now());
    changed.status.get_or_insert_default().conditions.get_or_insert_default().push(
        CertificateSigningRequestCondition {
            type_: "Approved".into(),
            status: "True".into(),
            reason: Some("AutoApproved".into()),
            message: Some(message.into()),
            last_update_time: now.clone(),
            last_transition_time: now,
        },
    );
    changed.metadata.managed_fields = None;
    let name = request.metadata.name.as_deref().unwrap_or_default();
    let api = cluster::<CertificateSigningRequest>(&controller.client);
    unless_gone(api.replace_subresource("approval", name, &PostParams::default(), &changed).await)?;
    Ok(Outcome::Done)
}

/// Whether the requester may have its request approved without asking anybody.
async fn may(
    controller: &Controller,
    spec: &CertificateSigningRequestSpec,
    subresource: &str,
) -> Result<bool, SyncError> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".into()),
                resource: Some("certificatesigningrequests".into()),
                subresource: Some(subresource.into()),
                verb: Some("create".into()),
                version: Some("*".into()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = cluster::<SubjectAccessReview>(&controller.client).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|s| s.allowed))
}

async fn sign(controller: &Controller, request: &CertificateSigningRequest) -> SyncResult {
    let spec = &request.spec;
    let checked = parse(request).map_err(|e| e.to_string()).and_then(|parsed| {
        check(spec, &parsed)?;
        Ok(parsed)
    });
    let mut changed = request.clone();
    let status = changed.status.get_or_insert_default();
    match checked {
        Ok(parsed) => {
            let pem = controller.config.ca.sign_csr(&parsed, &signing(spec))?;
            status.certificate = Some(ByteString(pem.into_bytes()));
        }
        Err(message) => status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
            type_: "Failed".into(),
            status: "True".into(),
            reason: Some("SignerValidationFailure".into()),
            message: Some(message),
            last_update_time: Some(clock::now()),
            last_transition_time: Some(clock::now()),
        }),
    }
    unless_gone(replace_status(&cluster(&controller.client), changed).await)?;
    Ok(Outcome::Done)
}
