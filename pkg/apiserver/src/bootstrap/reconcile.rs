//! Bringing a cluster's start objects up to date without undoing what its administrator changed.

use async_trait::async_trait;
use futures::StreamExt;
use kube1_api::name::GroupResource;
use kube1_api::selector::LabelSelector;
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::objects::{AUTOUPDATE, AUTOUPDATE_SPEC, BootObject};
use crate::authz::{Rule, missing, rules_of};

/// Writes that are under way at once: enough to share the store's fsyncs.
const WRITES_MAX: usize = 64;
const CONFLICTS_MAX: usize = 5;

/// What reconciling needs of the storage.
#[async_trait]
pub trait Writer: Send + Sync {
    async fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Result<Option<Value>, Status>;
    /// Completes the object (uid, creation time, defaults) and stores it.
    async fn create(&self, resource: &GroupResource, object: Value) -> Result<(), Status>;
    /// Replaces an object that [`Writer::get`] gave; a conflict (409) when it was changed since.
    async fn update(&self, resource: &GroupResource, object: Value) -> Result<(), Status>;
}

/// Creates what is missing and brings the rest up to date. Idempotent; the first failure is returned after all were tried.
pub async fn reconcile(writer: &dyn Writer, objects: Vec<BootObject>) -> Result<(), Status> {
    let (namespaces, mut rest): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|o| o.resource.resource == "namespaces");
    follow_discovery(writer, &mut rest).await?;
    for part in [namespaces, rest] {
        let results: Vec<Result<(), Status>> = futures::stream::iter(&part)
            .map(|boot| reconcile_one(writer, boot))
            .buffer_unordered(WRITES_MAX)
            .collect()
            .await;
        results.into_iter().collect::<Result<(), Status>>()?;
    }
    Ok(())
}

/// Where the binding of `system:public-info-viewer` is missing but not that of `system:discovery`, whom an administrator may
/// have restricted, the new one is for the same.
async fn follow_discovery(writer: &dyn Writer, objects: &mut [BootObject]) -> Result<(), Status> {
    let is_new =
        |o: &&mut BootObject| o.resource.resource == "clusterrolebindings" && o.name() == "system:public-info-viewer";
    let Some(boot) = objects.iter_mut().find(is_new) else { return Ok(()) };
    if writer.get(&boot.resource, "", boot.name()).await?.is_some() {
        return Ok(());
    }
    if let Some(live) = writer.get(&boot.resource, "", "system:discovery").await? {
        boot.object["subjects"] = live["subjects"].clone();
        for member in ["labels", "annotations"] {
            boot.object["metadata"][member] = live["metadata"][member].clone();
        }
    }
    Ok(())
}

/// As [`reconcile`], of one object.
pub async fn reconcile_one(writer: &dyn Writer, boot: &BootObject) -> Result<(), Status> {
    for attempt in 0.. {
        let result = match writer.get(&boot.resource, boot.namespace(), boot.name()).await? {
            None => writer.create(&boot.resource, boot.object.clone()).await,
            Some(live) => match reconcile_object(boot, &live) {
                Some(changed) => writer.update(&boot.resource, changed).await,
                None => return Ok(()),
            },
        };
        match result {
            Err(status) if status.code() == 409 && attempt < CONFLICTS_MAX => {}
            done => return done,
        }
    }
    unreachable!("the loop returns")
}

/// What `live` has to become; `None` when it is fine as it is.
///
/// Roles gain missing rules, bindings missing subjects, both keep what was added to them; the annotation
/// `rbac.authorization.kubernetes.io/autoupdate: "false"` stops that. Flow control objects get their spec back unless they
/// are optional and `apf.kubernetes.io/autoupdate-spec` is not `"true"`. Everything else is only created.
pub fn reconcile_object(boot: &BootObject, live: &Value) -> Option<Value> {
    let mut new = live.clone();
    let annotation = |key: &str| live["metadata"]["annotations"][key].as_str();
    match boot.resource.resource.as_str() {
        "roles" | "clusterroles" | "rolebindings" | "clusterrolebindings" => {
            if annotation(AUTOUPDATE) == Some("false") {
                return None;
            }
            add_missing(&mut new["metadata"]["annotations"], &boot.object["metadata"]["annotations"]);
            add_missing(&mut new["metadata"]["labels"], &boot.object["metadata"]["labels"]);
            if boot.resource.resource.ends_with("roles") {
                reconcile_role(&mut new, &boot.object);
            } else {
                reconcile_binding(&mut new, &boot.object);
            }
        }
        "flowschemas" | "prioritylevelconfigurations" => {
            let untouched = annotation(AUTOUPDATE_SPEC).is_none() && live["metadata"]["generation"] == 1;
            if !boot.mandatory && !untouched && annotation(AUTOUPDATE_SPEC) != Some("true") {
                return None;
            }
            if !contains(&live["spec"], &boot.object["spec"]) {
                new["spec"] = boot.object["spec"].clone();
            }
            add_missing(&mut new["metadata"]["annotations"], &boot.object["metadata"]["annotations"]);
        }
        _ if boot.mandatory => {
            for (key, value) in boot.object["data"].as_object().into_iter().flatten() {
                new["data"][key.as_str()] = value.clone();
            }
        }
        _ => {}
    }
    (new != *live).then_some(new)
}

fn add_missing(live: &mut Value, wanted: &Value) {
    for (key, value) in wanted.as_object().into_iter().flatten() {
        if live[key.as_str()].is_null() {
            live[key.as_str()] = value.clone();
        }
    }
}

fn reconcile_role(live: &mut Value, wanted: &Value) {
    if let Some(selectors) = wanted["aggregationRule"]["clusterRoleSelectors"].as_array() {
        if !live["aggregationRule"]["clusterRoleSelectors"].is_array() {
            live["aggregationRule"] = json!({"clusterRoleSelectors": []});
        }
        append_missing(&mut live["aggregationRule"]["clusterRoleSelectors"], selectors, |a, b| {
            LabelSelector::from_value(a) == LabelSelector::from_value(b)
        });
        return;
    }
    let (held, wanted) = (rules_of(live), rules_of(wanted));
    let lacking: Vec<Rule> =
        wanted.into_iter().filter(|rule| !missing(&held, std::slice::from_ref(rule)).is_empty()).collect();
    if lacking.is_empty() {
        return;
    }
    if !live["rules"].is_array() {
        live["rules"] = json!([]);
    }
    if let Some(rules) = live["rules"].as_array_mut() {
        rules.extend(lacking.iter().map(|rule| json!(rule)));
    }
}

fn reconcile_binding(live: &mut Value, wanted: &Value) {
    live["roleRef"] = wanted["roleRef"].clone();
    let Some(subjects) = wanted["subjects"].as_array() else { return };
    if !live["subjects"].is_array() {
        live["subjects"] = json!([]);
    }
    append_missing(&mut live["subjects"], subjects, |a, b| {
        ["kind", "namespace", "name"].iter().all(|key| a[key] == b[key])
    });
}

fn append_missing(live: &mut Value, wanted: &[Value], same: impl Fn(&Value, &Value) -> bool) {
    if let Some(list) = live.as_array_mut() {
        for item in wanted {
            if !list.iter().any(|have| same(have, item)) {
                list.push(item.clone());
            }
        }
    }
}

/// Whether every member of `wanted` is in `live`; `live` may have more, which defaulting has put there.
fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| live.get(key).is_some_and(|have| contains(have, value)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(l, w)| contains(l, w))
        }
        _ => live == wanted,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use parking_lot::Mutex;

    use super::*;
    use crate::authn::{Trust, TrustOptions};
    use crate::bootstrap::{authentication_config, objects};

    #[derive(Default)]
    struct Memory(Mutex<BTreeMap<(String, String, String), Value>>);

    #[async_trait]
    impl Writer for Memory {
        async fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Result<Option<Value>, Status> {
            Ok(self.0.lock().get(&(resource.to_string(), namespace.into(), name.into())).cloned())
        }
        async fn create(&self, resource: &GroupResource, object: Value) -> Result<(), Status> {
            self.update(resource, object).await
        }
        async fn update(&self, resource: &GroupResource, object: Value) -> Result<(), Status> {
            let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
            self.0.lock().insert((resource.to_string(), text("namespace"), text("name")), object);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_second_start_changes_nothing() {
        let memory = Memory::default();
        reconcile(&memory, objects()).await.unwrap();
        let first = memory.0.lock().clone();
        assert_eq!(first.len(), objects().len());
        reconcile(&memory, objects()).await.unwrap();
        assert_eq!(*memory.0.lock(), first);
        for boot in objects() {
            assert_eq!(reconcile_object(&boot, &boot.object), None, "{}", boot.name());
        }
    }

    #[tokio::test]
    async fn the_public_are_those_that_may_discover() {
        let memory = Memory::default();
        reconcile(&memory, objects()).await.unwrap();
        let key = |name: &str| ("clusterrolebindings.rbac.authorization.k8s.io".into(), String::new(), name.to_owned());
        let (discovery, public) = (key("system:discovery"), key("system:public-info-viewer"));
        let first = memory.0.lock().clone();
        assert_eq!(first[&public]["subjects"].as_array().unwrap().len(), 2, "on a new cluster everybody is");
        let restricted = json!([{"kind": "Group", "name": "staff", "apiGroup": "rbac.authorization.k8s.io"}]);
        {
            let mut stored = memory.0.lock();
            let binding = stored.get_mut(&discovery).unwrap();
            binding["subjects"] = restricted.clone();
            binding["metadata"]["annotations"][AUTOUPDATE] = "false".into();
        }
        reconcile(&memory, objects()).await.unwrap();
        assert_eq!(memory.0.lock()[&public], first[&public], "what is there stays");
        memory.0.lock().remove(&public);
        reconcile(&memory, objects()).await.unwrap();
        let made = memory.0.lock()[&public].clone();
        assert_eq!((&made["subjects"], &made["metadata"]["annotations"][AUTOUPDATE]), (&restricted, &json!("false")));
        assert_eq!(made["roleRef"], first[&public]["roleRef"]);
    }

    #[test]
    fn edits_are_kept_unless_they_take_something_away() {
        let all = objects();
        let find = |plural: &str, name: &str| {
            all.iter().find(|o| o.resource.resource == plural && o.name() == name).unwrap().clone()
        };
        let role = find("clusterroles", "system:node-proxier");
        let mut live = role.object.clone();
        let extra = json!({"apiGroups": ["x"], "resources": ["y"], "verbs": ["z"]});
        live["rules"][0] = extra.clone();
        let fixed = reconcile_object(&role, &live).unwrap();
        assert_eq!(fixed["rules"][0], extra);
        assert_eq!(fixed["rules"][5], role.object["rules"][0]);
        live["metadata"]["annotations"][AUTOUPDATE] = "false".into();
        assert_eq!(reconcile_object(&role, &live), None);

        let node = find("clusterrolebindings", "kube1:node");
        let mut live = node.object.clone();
        live["subjects"] = json!([{"kind": "User", "name": "x"}]);
        assert_eq!(reconcile_object(&node, &live).unwrap()["subjects"].as_array().unwrap().len(), 2);

        let level = find("prioritylevelconfigurations", "system");
        let mut live = level.object.clone();
        live["spec"]["limited"]["borrowingLimitPercent"] = 5.into();
        assert_eq!(reconcile_object(&level, &live), None, "a member that is not ours");
        live["spec"]["limited"]["lendablePercent"] = 1.into();
        assert_eq!(reconcile_object(&level, &live).unwrap()["spec"], level.object["spec"]);
        live["metadata"]["annotations"][AUTOUPDATE_SPEC] = "false".into();
        assert_eq!(reconcile_object(&level, &live), None);

        let ca = |name| kube1_pki::Authority::create(name).unwrap().certificate_pem().to_owned();
        let (clients, proxies) = (ca("a"), ca("b"));
        let trust = Trust::open(&clients, Some(&proxies), TrustOptions::default()).unwrap();
        let config = authentication_config(&trust);
        let mut live = config.object.clone();
        live["data"]["client-ca-file"] = "old".into();
        live["data"]["other"] = "kept".into();
        let fixed = reconcile_object(&config, &live).unwrap();
        assert_eq!((&fixed["data"]["client-ca-file"], &fixed["data"]["other"]), (&json!(clients), &json!("kept")));
    }
}
