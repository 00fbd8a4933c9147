//! ResourceQuota: charges writes to the quotas of their namespace.

mod usage;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::amounts::{self, Amounts};
use kube1_api::status::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::reader::StorageReader;
use crate::storage::{Collection, Object, StorageError};

/// The quota controller writes the same objects; so often a charge is tried again.
const ATTEMPTS: usize = 10;

/// Charges in `validate`, as the last plugin. A write that then fails stays charged until the quota controller counts
/// again.
pub struct ResourceQuota {
    reader: Arc<StorageReader>,
    limited: Vec<LimitedResource>,
    /// One charge at a time: charges of one namespace would only collide.
    charging: tokio::sync::Mutex<()>,
}

impl ResourceQuota {
    pub fn new(reader: Arc<StorageReader>, limited: Vec<LimitedResource>) -> Self {
        Self { reader, limited, charging: tokio::sync::Mutex::new(()) }
    }

    /// 403 for what may only be consumed where a quota covers it, and none does.
    fn check_covered(
        &self,
        attributes: &Attributes,
        object: &Value,
        usage: &Amounts,
        quotas: &[Arc<Object>],
    ) -> Result<(), Status> {
        let (group, plural) = (&attributes.resource.group, &attributes.resource.plural);
        let limited = self.limited.iter().filter(|l| l.api_group == *group && l.resource == *plural);
        let wanted = usage.iter().filter(|(_, amount)| **amount > kube1_api::quantity::Quantity::from_units(0));
        let wanted = || wanted.clone().map(|(name, _)| name);
        let matched = |l: &LimitedResource| {
            wanted().filter(|name| l.match_contains.iter().any(|part| name.contains(part))).collect::<Vec<_>>()
        };
        let mut names: BTreeSet<&String> = limited.flat_map(matched).collect();
        let in_scope = |scope: &Value| {
            usage::in_scopes(attributes, &json!({"scopeSelector": {"matchExpressions": [scope]}}), object)
        };
        let scopes = self.limited.iter().filter(|l| l.resource == *plural).flat_map(|l| &l.match_scopes);
        let mut scopes: Vec<&Value> = scopes.filter(|scope| in_scope(scope)).collect();
        for quota in quotas.iter().map(|quota| quota.value()) {
            let plain = quota["spec"]["scopes"].as_array().into_iter().flatten();
            let plain = plain.map(|scope| json!({"scopeName": scope, "operator": "Exists"}));
            let selected = quota["spec"]["scopeSelector"]["matchExpressions"].as_array().cloned().unwrap_or_default();
            let covering: Vec<Value> = plain.chain(selected).filter(|scope| in_scope(scope)).collect();
            scopes.retain(|scope| !covering.iter().any(|covered| same_scope(covered, scope)));
            if usage::in_scopes(attributes, &quota["spec"], object) {
                let hard = amounts::read(&quota["status"]["hard"]);
                names.retain(|name| !hard.contains_key(*name));
            }
        }
        if !names.is_empty() {
            let names = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(",");
            return Err(attributes.forbidden(format!("insufficient quota to consume: {names}")));
        }
        if !scopes.is_empty() {
            let text = |scope: &&Value| {
                let values = scope["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let values = values.collect::<Vec<_>>().join(" ");
                let [name, operator] = ["scopeName", "operator"].map(|key| scope[key].as_str().unwrap_or_default());
                format!("{{{name} {operator} [{values}]}}")
            };
            let scopes = scopes.iter().map(text).collect::<Vec<_>>().join(" ");
            return Err(attributes.forbidden(format!("insufficient quota to match these scopes: [{scopes}]")));
        }
        Ok(())
    }

    fn quotas(&self) -> Option<&Arc<Collection>> {
        self.reader.collection("", "resourcequotas")
    }

    /// Charges one quota; the object is in its scopes.
    async fn charge(&self, attributes: &Attributes, quota: &Arc<Object>, delta: &Amounts) -> Result<(), Status> {
        let Some(quotas) = self.quotas() else { return Ok(()) };
        let mut quota = quota.clone();
        for _ in 0..ATTEMPTS {
            let Some(charged) = charged(attributes, &quota.value(), delta)? else { return Ok(()) };
            if attributes.dry_run {
                return Ok(());
            }
            match quotas.update(charged, quota.revision()).await {
                Ok(_) | Err(StorageError::NotFound) => return Ok(()),
                Err(StorageError::Conflict { .. }) => match quotas.get(quota.namespace(), quota.name()) {
                    Some(newer) => quota = newer,
                    None => return Ok(()),
                },
                Err(error) => return Err(error.to_status(&attributes.group_resource(), attributes.object_name())),
            }
        }
        Err(Status::conflict(
            &attributes.group_resource(),
            attributes.object_name(),
            format!("quota \"{}\" is changing too fast", quota.name()),
        ))
    }
}

/// What may only be consumed where a quota covers it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitedResource {
    api_group: String,
    resource: String,
    /// Parts of names of what is consumed.
    match_contains: Vec<String>,
    /// Requirements as in the scope selector of a quota.
    match_scopes: Vec<Value>,
}

/// Whether two requirements on scopes are the same.
fn same_scope(one: &Value, other: &Value) -> bool {
    let values = |scope: &Value| scope["values"].as_array().cloned().unwrap_or_default();
    one["scopeName"] == other["scopeName"] && one["operator"] == other["operator"] && values(one) == values(other)
}

/// The quota with `delta` added to what is used; `None` when it does not count any of it.
fn charged(attributes: &Attributes, quota: &Value, delta: &Amounts) -> Result<Option<Value>, Status> {
    let name = quota["metadata"]["name"].as_str().unwrap_or_default();
    let (known, used) = (amounts::read(&quota["status"]["hard"]), amounts::read(&quota["status"]["used"]));
    let requested: Amounts =
        delta.iter().filter(|(k, _)| known.contains_key(*k)).map(|(k, v)| (k.clone(), *v)).collect();
    if requested.is_empty() {
        return Ok(None);
    }
    let mut total = used.clone();
    amounts::add(&mut total, &requested);
    // What gets less is always allowed, even beyond the limit.
    let exceeded = |k: &String| requested[k] > kube1_api::quantity::Quantity::from_units(0) && total[k] > known[k];
    let over: Vec<&String> = requested.keys().filter(|k| exceeded(k)).collect();
    if !over.is_empty() {
        let only = |all: &Amounts| -> String {
            amounts::print(&over.iter().filter_map(|k| Some(((*k).clone(), *all.get(*k)?))).collect())
        };
        let why = format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            only(&requested),
            only(&used),
            only(&known)
        );
        return Err(attributes.forbidden(why));
    }
    let mut charged = quota.clone();
    for (key, amount) in requested {
        let sum = total.get(&key).copied().unwrap_or(amount);
        charged["status"]["used"][key] = json!(sum.to_string());
    }
    Ok(Some(charged))
}

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        if attributes.namespace.is_empty() || attributes.is("", "namespaces") {
            return false;
        }
        match attributes.operation {
            Operation::Create => attributes.subresource.is_empty(),
            Operation::Update => usage::counts_updates(attributes),
            _ => false,
        }
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let quotas = self.quotas().map(|c| c.all(Some(&attributes.namespace))).unwrap_or_default();
        if quotas.is_empty() && self.limited.is_empty() {
            return Ok(());
        }
        let Some(object) = &attributes.object else { return Ok(()) };
        let old = attributes.old.as_ref().filter(|_| attributes.operation == Operation::Update);
        let usage = usage::of(attributes, object);
        if !self.limited.is_empty() {
            let mut delta = usage.clone();
            if let Some(old) = old {
                usage::subtract(&mut delta, &usage::of(attributes, old));
            }
            if delta.values().any(|amount| !amount.is_zero()) {
                self.check_covered(attributes, object, &usage, &quotas)?;
            }
        }
        let mut matching = Vec::new();
        for quota in &quotas {
            let value = quota.value();
            // A quota that nobody has counted yet limits nothing.
            let hard = amounts::read(&value["status"]["hard"]);
            let restricted: Vec<&String> = hard.keys().filter(|k| usage::concerns(attributes, &usage, k)).collect();
            if restricted.is_empty() || !usage::in_scopes(attributes, &value["spec"], object) {
                continue;
            }
            if let Some(missing) = usage::missing(attributes, object, &restricted) {
                return Err(attributes.forbidden(format!("failed quota: {}: must specify {missing}", quota.name())));
            }
            let used = amounts::read(&value["status"]["used"]);
            if restricted.iter().any(|name| !used.contains_key(*name)) {
                let names = restricted.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(",");
                return Err(
                    attributes.forbidden(format!("status unknown for quota: {}, resources: {names}", quota.name()))
                );
            }
            // What was not in the quota before is new to it.
            let before = old.filter(|old| usage::in_scopes(attributes, &value["spec"], old));
            let mut delta = usage.clone();
            if let Some(old) = before {
                usage::subtract(&mut delta, &usage::of(attributes, old));
            }
            delta.retain(|_, amount| !amount.is_zero());
            if !delta.is_empty() {
                matching.push((quota, delta));
            }
        }
        let _one_at_a_time = self.charging.lock().await;
        for (quota, delta) in &matching {
            let newest = self.quotas().and_then(|c| c.get(quota.namespace(), quota.name()));
            let Some(newest) = newest else { continue };
            // First all are asked, so that a refusal charges nothing.
            charged(attributes, &newest.value(), delta)?;
        }
        for (quota, delta) in &matching {
            let newest = self.quotas().and_then(|c| c.get(quota.namespace(), quota.name()));
            if let Some(newest) = newest {
                self.charge(attributes, &newest, delta).await?;
            }
        }
        Ok(())
    }
}
