//! ResourceQuota: charges writes to the quotas of their namespace.

mod usage;

use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::amounts::{self, Amounts};
use kube1_api::status::Status;
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
    /// One charge at a time: charges of one namespace would only collide.
    charging: tokio::sync::Mutex<()>,
}

impl ResourceQuota {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader, charging: tokio::sync::Mutex::new(()) }
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
        if quotas.is_empty() {
            return Ok(());
        }
        let Some(object) = &attributes.object else { return Ok(()) };
        let old = attributes.old.as_ref().filter(|_| attributes.operation == Operation::Update);
        let usage = usage::of(attributes, object);
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
