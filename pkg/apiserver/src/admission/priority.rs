//! Priority: resolves the class of a pod into its number.

use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::reader::StorageReader;

const GROUP: &str = "scheduling.k8s.io";
const PREEMPT: &str = "PreemptLowerPriority";

pub struct Priority {
    reader: Arc<StorageReader>,
}

impl Priority {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader }
    }

    fn classes(&self) -> Vec<Value> {
        let collection = self.reader.collection(GROUP, "priorityclasses");
        collection.map(|c| c.all(None)).unwrap_or_default().iter().map(|o| o.value()).collect()
    }

    /// The class for pods that name none: if several claim to be it, the lowest.
    fn default_class(&self) -> Option<Value> {
        let defaults = self.classes().into_iter().filter(|c| c["globalDefault"].as_bool() == Some(true));
        defaults.min_by_key(|c| c["value"].as_i64())
    }

    fn resolve(&self, attributes: &Attributes, name: &str) -> Result<Option<Value>, Status> {
        if name.is_empty() {
            return Ok(self.default_class());
        }
        let found = self.reader.collection(GROUP, "priorityclasses").and_then(|c| c.get("", name));
        let missing = || attributes.forbidden(format!("no PriorityClass with name {name} was found"));
        found.map(|o| Some(o.value())).ok_or_else(missing)
    }

    fn create_pod(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(mut pod) = attributes.object.take() else { return Ok(()) };
        let resolved = self.resolve(attributes, pod["spec"]["priorityClassName"].as_str().unwrap_or_default());
        let spec = &mut pod["spec"];
        let result = resolved.and_then(|class| {
            let priority = class.as_ref().and_then(|c| c["value"].as_i64()).unwrap_or(0);
            let policy = class.as_ref().and_then(|c| c["preemptionPolicy"].as_str()).unwrap_or(PREEMPT).to_owned();
            if let Some(given) = spec["priority"].as_i64().filter(|p| *p != priority) {
                return Err(attributes.forbidden(format!(
                    "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                     controller computed {priority} from the given PriorityClass name"
                )));
            }
            if let Some(given) = spec["preemptionPolicy"].as_str().filter(|p| *p != policy) {
                return Err(attributes.forbidden(format!(
                    "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority \
                     admission controller computed {policy} from the given PriorityClass name"
                )));
            }
            if let Some(class) = class {
                spec["priorityClassName"] = class["metadata"]["name"].clone();
            }
            spec["priority"] = priority.into();
            spec["preemptionPolicy"] = policy.into();
            Ok(())
        });
        attributes.object = Some(pod);
        result
    }
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.writes("", "pods") || attributes.writes(GROUP, "priorityclasses")
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        if !attributes.is("", "pods") {
            return Ok(());
        }
        if attributes.operation == Operation::Create {
            return self.create_pod(attributes);
        }
        // Clients that do not know the fields must not lose them.
        let (Some(new), Some(old)) = (attributes.object.as_mut(), attributes.old.as_ref()) else { return Ok(()) };
        for member in ["priority", "preemptionPolicy"] {
            if new["spec"].get(member).is_none_or(Value::is_null) && !old["spec"][member].is_null() {
                new["spec"][member] = old["spec"][member].clone();
            }
        }
        Ok(())
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(class) = attributes.object.as_ref().filter(|_| attributes.is(GROUP, "priorityclasses")) else {
            return Ok(());
        };
        if class["globalDefault"].as_bool() != Some(true) {
            return Ok(());
        }
        match self.default_class() {
            Some(other) if other["metadata"]["name"] != class["metadata"]["name"] => {
                let name = other["metadata"]["name"].as_str().unwrap_or_default();
                let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
                Err(attributes.forbidden(why))
            }
            _ => Ok(()),
        }
    }
}
