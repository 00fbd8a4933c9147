//! Checks the expressions of ValidatingAdmissionPolicies against the types of what they match, and says in their status
//! what is wrong. It changes nothing of what a policy does.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use kube1_api::cel::typecheck::{Checked, warnings};
use kube1_client::{Informer, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;
use serde_json::{Value, json};

use crate::controller::{Controller, SyncError, SyncResult, cluster, unless_gone};

const MANAGER: &str = "validatingadmissionpolicy-status-controller-status";
/// Types that a policy is checked against.
const TYPES_MAX: usize = 10;

/// Runs the controller.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let policies = controller.informers.all::<ValidatingAdmissionPolicy>();
    if !controller.synced(&[&policies]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    controller.watch_own(&policies, &queue);
    let sync = |key| {
        let (client, policies) = (controller.client.clone(), policies.clone());
        async move { check(&client, &policies, key).await }
    };
    controller.work(&queue, 1, sync).await;
    Ok(())
}

async fn check(client: &Client, policies: &Informer<ValidatingAdmissionPolicy>, key: ObjectKey) -> SyncResult {
    let Some(policy) = policies.get(&key) else { return Ok(Outcome::Done) };
    let observed = policy.status.as_ref().and_then(|status| status.observed_generation);
    if observed == policy.metadata.generation || policy.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome::Done);
    }
    let spec = json!({"spec": policy.spec});
    let mut documents = Documents { client, known: BTreeMap::new() };
    let mut types = Vec::new();
    for (group, version, kind) in documents.kinds(&spec["spec"]["matchConstraints"]["resourceRules"]).await? {
        types.extend(documents.find(&group, &version, &kind).await?);
    }
    let param = &spec["spec"]["paramKind"];
    let (api_version, kind) = (param["apiVersion"].as_str().unwrap_or_default(), param["kind"].as_str());
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let params = match kind {
        Some(kind) => documents.find(group, version, kind).await?,
        None => None,
    };
    let found = warnings(&spec, &types, params.as_ref().map(|p| &p.shape));
    let found: Vec<Value> = found.into_iter().map(|(at, why)| json!({"fieldRef": at, "warning": why})).collect();
    let type_checking = if found.is_empty() { json!({}) } else { json!({"expressionWarnings": found}) };
    let status = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": key.name},
        "status": {"observedGeneration": policy.metadata.generation, "typeChecking": type_checking},
    });
    let api: Api<ValidatingAdmissionPolicy> = cluster(client);
    let params = PatchParams::apply(MANAGER).force();
    unless_gone(api.patch_status(&key.name, &params, &Patch::Apply(&status)).await)?;
    Ok(Outcome::Done)
}

/// What the server says of its kinds. What it does not serve is left out.
struct Documents<'a> {
    client: &'a Client,
    known: BTreeMap<String, Option<Value>>,
}

impl Documents<'_> {
    async fn get(&mut self, path: String) -> Result<Option<&Value>, SyncError> {
        if !self.known.contains_key(&path) {
            let request = http::Request::get(&path).body(Vec::new());
            let request = request.map_err(|error| SyncError::Invalid(error.to_string()))?;
            let answer = match self.client.request::<Value>(request).await {
                Ok(document) => Some(document),
                Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 503) => None,
                Err(error) => return Err(error.into()),
            };
            self.known.insert(path.clone(), answer);
        }
        Ok(self.known.get(&path).and_then(Option::as_ref))
    }

    /// Group, version and kind of what the rules name, in order; rules with wildcards name nothing.
    async fn kinds(&mut self, rules: &Value) -> Result<BTreeSet<(String, String, String)>, SyncError> {
        let mut found = BTreeSet::new();
        for rule in rules.as_array().into_iter().flatten() {
            let names = |member: &str| -> BTreeSet<String> {
                rule[member].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
            };
            let (groups, versions) = (names("apiGroups"), names("apiVersions"));
            if groups.iter().chain(&versions).any(|name| name.contains('*')) {
                continue;
            }
            let resources: Vec<String> = names("resources").into_iter().filter(|r| !r.contains(['*', '/'])).collect();
            let mut count = 0;
            let mut named = Vec::new();
            for group in &groups {
                named.extend(versions.iter().map(|version| (group.clone(), version.clone())));
            }
            for (group, version) in named {
                let Some(list) = self.get(path("", &group, &version)).await? else { continue };
                let all = list["resources"].as_array().into_iter().flatten();
                let of = |resource: &String| all.clone().find(|r| r["name"] == resource.as_str());
                for kind in resources.iter().filter_map(of).filter_map(|r| r["kind"].as_str()) {
                    found.insert((group.clone(), version.clone(), kind.to_owned()));
                    count += 1;
                    if count == TYPES_MAX {
                        return Ok(found);
                    }
                }
            }
        }
        Ok(found)
    }

    async fn find(&mut self, group: &str, version: &str, kind: &str) -> Result<Option<Checked>, SyncError> {
        let document = self.get(path("/openapi/v3", group, version)).await?;
        Ok(document.and_then(|document| Checked::find(document, group, version, kind)))
    }
}

fn path(before: &str, group: &str, version: &str) -> String {
    if group.is_empty() { format!("{before}/api/{version}") } else { format!("{before}/apis/{group}/{version}") }
}
