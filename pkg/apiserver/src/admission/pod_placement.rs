//! PodNodeSelector and PodTolerationRestriction: where the pods of a namespace may go, by annotations of the namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::amounts;
use kube1_api::name::GroupResource;
use kube1_api::status::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use super::pod_defaults::{includes, items, merged};
use super::{Attributes, Operation, Plugin};
use crate::reader::StorageReader;

const NODE_SELECTOR: &str = "scheduler.alpha.kubernetes.io/node-selector";
const DEFAULT_TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const WHITELIST: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
/// Of namespaces that say nothing themselves.
const CLUSTER_DEFAULT: &str = "clusterDefaultNodeSelector";

type Labels = BTreeMap<String, String>;

/// The namespace's annotation.
fn annotation(reader: &StorageReader, attributes: &Attributes, key: &str) -> Result<Option<String>, Status> {
    let name = &attributes.namespace;
    let namespace = reader.collection("", "namespaces").and_then(|namespaces| namespaces.get("", name));
    let namespace = namespace.ok_or_else(|| Status::not_found(&GroupResource::new("", "namespaces"), name))?;
    Ok(namespace.value()["metadata"]["annotations"][key].as_str().map(str::to_owned))
}

/// `a=b,c=d`
fn labels(text: &str) -> Result<Labels, String> {
    let pairs = text.split(',').filter(|pair| !text.is_empty() && !pair.is_empty());
    let pair = |pair: &str| match pair.split('=').collect::<Vec<_>>()[..] {
        [key, value] => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(format!("invalid selector: [{pair}]")),
    };
    pairs.map(pair).collect()
}

/// The configuration of PodNodeSelector: selectors by namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NodeSelectors {
    pod_node_selector_plugin_config: Labels,
}

impl NodeSelectors {
    pub fn check(&self) -> Result<(), String> {
        let each = self.pod_node_selector_plugin_config.iter();
        each.into_iter().try_for_each(|(name, text)| labels(text).map(|_| ()).map_err(|why| format!("{name}: {why}")))
    }
}

/// Gives pods the node selector of their namespace, and lets them have no other than the cluster allows it.
pub struct PodNodeSelector {
    reader: Arc<StorageReader>,
    config: NodeSelectors,
}

impl PodNodeSelector {
    pub(super) fn new(reader: Arc<StorageReader>, config: NodeSelectors) -> Self {
        Self { reader, config }
    }

    fn of_namespace(&self, attributes: &Attributes) -> Result<Labels, Status> {
        let own = annotation(&self.reader, attributes, NODE_SELECTOR)?;
        labels(own.as_deref().unwrap_or_else(|| self.configured(CLUSTER_DEFAULT))).map_err(Status::failure)
    }

    fn configured(&self, name: &str) -> &str {
        self.config.pod_node_selector_plugin_config.get(name).map_or("", String::as_str)
    }

    fn check(&self, attributes: &Attributes, of_namespace: &Labels) -> Result<Labels, Status> {
        let pod = attributes.object.as_ref().map(|pod| pod["spec"]["nodeSelector"].clone()).unwrap_or_default();
        let own: Labels = serde_json::from_value(pod).unwrap_or_default();
        if of_namespace.iter().any(|(key, value)| own.get(key).is_some_and(|own| own != value)) {
            let why = "pod node label selector conflicts with its namespace node label selector";
            return Err(attributes.forbidden(why));
        }
        Ok(own)
    }
}

#[async_trait]
impl Plugin for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.creates("", "pods")
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let mut all = self.of_namespace(attributes)?;
        let own = self.check(attributes, &all)?;
        all.extend(own);
        if let Some(pod) = attributes.object.as_mut().filter(|_| !all.is_empty()) {
            pod["spec"]["nodeSelector"] = json!(all);
        }
        self.validate(attributes).await
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let own = self.check(attributes, &self.of_namespace(attributes)?)?;
        let allowed = labels(self.configured(&attributes.namespace)).map_err(Status::failure)?;
        if allowed.is_empty() || own.iter().all(|(key, value)| allowed.get(key) == Some(value)) {
            return Ok(());
        }
        Err(attributes.forbidden("pod node label selector labels conflict with its namespace whitelist"))
    }
}

/// The configuration of PodTolerationRestriction.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tolerations {
    default: Vec<Value>,
    whitelist: Vec<Value>,
}

/// Gives pods the tolerations of their namespace, and lets them have no others than the namespace may.
pub struct PodTolerationRestriction {
    reader: Arc<StorageReader>,
    config: Tolerations,
}

impl PodTolerationRestriction {
    pub(super) fn new(reader: Arc<StorageReader>, config: Tolerations) -> Self {
        Self { reader, config }
    }

    fn of_namespace(&self, attributes: &Attributes, key: &str) -> Result<Option<Vec<Value>>, Status> {
        match annotation(&self.reader, attributes, key)?.as_deref() {
            None => Ok(None),
            Some("") => Ok(Some(Vec::new())),
            Some(text) => serde_json::from_str(text).map_err(|error| Status::failure(error.to_string())).map(Some),
        }
    }
}

#[async_trait]
impl Plugin for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        "PodTolerationRestriction"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.writes("", "pods")
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let mut more = Vec::new();
        if attributes.operation == Operation::Create {
            let own = self.of_namespace(attributes, DEFAULT_TOLERATIONS)?;
            more = own.unwrap_or_else(|| self.config.default.clone());
        }
        if let Some(pod) = &mut attributes.object {
            if amounts::qos_class(pod) != "BestEffort" {
                more.push(json!({"key": MEMORY_PRESSURE, "operator": "Exists", "effect": "NoSchedule"}));
            }
            if !more.is_empty() {
                let own: Vec<Value> = items(&pod["spec"]["tolerations"]).cloned().collect();
                pod["spec"]["tolerations"] = merged([own, more].concat()).into();
            }
        }
        self.validate(attributes).await
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let pod = attributes.object.as_ref().unwrap_or(&Value::Null);
        let own = &pod["spec"]["tolerations"];
        if items(own).next().is_none() {
            return Ok(());
        }
        let (allowed, scope) = match self.of_namespace(attributes, WHITELIST)? {
            Some(allowed) => (allowed, "namespace"),
            None => (self.config.whitelist.clone(), "cluster"),
        };
        if allowed.is_empty() || items(own).all(|toleration| allowed.iter().any(|a| includes(a, toleration))) {
            return Ok(());
        }
        Err(Status::failure(format!(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
        )))
    }
}
