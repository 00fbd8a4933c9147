//! What plugins are told of a request, and what they may change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use kube1_api::name::GroupResource;
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use serde_json::Value;

use crate::user::UserInfo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As in AdmissionReview.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A write on its way through admission.
#[derive(Clone, Debug)]
pub struct Attributes {
    pub user: Arc<UserInfo>,
    /// The row that the request names.
    pub resource: Arc<Resource>,
    /// Empty for the object itself.
    pub subresource: String,
    pub operation: Operation,
    /// Empty for cluster-scoped resources.
    pub namespace: String,
    /// Empty when it is still to be generated.
    pub name: String,
    /// The body: for a subresource of another kind (binding, eviction, scale, token) that kind's object.
    pub object: Option<Value>,
    /// The stored object, for updates and deletes.
    pub old: Option<Value>,
    /// CreateOptions, UpdateOptions or DeleteOptions, with their kind.
    pub options: Option<Value>,
    pub dry_run: bool,
    /// When the request's client gives up.
    pub deadline: Option<Instant>,
    /// Returned to the client, however the request ends.
    pub warnings: Vec<String>,
    pub audit_annotations: BTreeMap<String, String>,
    pub rounds: Rounds,
}

/// Plugins change an object in one round, and in a second one if others changed it after them.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// This is the second round.
    pub again: bool,
    /// There must be a second round.
    pub needed: bool,
    pub policies: Invoked,
    pub webhooks: Invoked,
}

/// Which of the webhooks, or of the policies, want to see what others changed after them.
#[derive(Clone, Debug, Default)]
pub struct Invoked {
    before: BTreeSet<String>,
    again: BTreeSet<String>,
    output: Option<Value>,
}

impl Invoked {
    /// To be called before the first of them; `object` may be others' work in the second round.
    pub fn begin(&mut self, again: bool, object: Option<&Value>) {
        if again && !self.before.is_empty() && self.output.as_ref() != object {
            self.changed();
        }
    }

    /// To be called after the last of them.
    pub fn end(&mut self, object: Option<&Value>) {
        self.output = object.filter(|_| !self.before.is_empty()).cloned();
    }

    /// Those that were there before see the object once more.
    pub fn changed(&mut self) {
        self.again.append(&mut self.before);
    }

    /// Notes one that wants to see later changes.
    pub fn note(&mut self, key: String) {
        self.before.insert(key);
    }

    /// Whether one takes part in the second round.
    pub fn is_wanted(&self, key: &str) -> bool {
        self.again.contains(key)
    }
}

/// A JSON object with its members in this order, as those who read audit annotations as text know it.
pub(super) fn ordered(members: &[(&str, Value)]) -> String {
    let members = members.iter().map(|(name, value)| format!("{}:{value}", Value::from(*name)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

impl Attributes {
    pub fn new(
        user: impl Into<Arc<UserInfo>>,
        resource: Arc<Resource>,
        operation: Operation,
        namespace: &str,
        name: &str,
    ) -> Self {
        Self {
            user: user.into(),
            resource,
            subresource: String::new(),
            operation,
            namespace: namespace.into(),
            name: name.into(),
            object: None,
            old: None,
            options: None,
            dry_run: false,
            deadline: None,
            warnings: Vec::new(),
            audit_annotations: BTreeMap::new(),
            rounds: Rounds::default(),
        }
    }

    /// Adds an audit annotation; the first of a key stays.
    pub fn annotate(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.audit_annotations.entry(key.into()).or_insert_with(|| value.into());
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.resource.group, &self.resource.plural)
    }

    /// Whether the request is about this resource itself or a subresource of it, in any version.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }

    /// Whether the request creates or updates (not a subresource of) this resource.
    pub fn writes(&self, group: &str, plural: &str) -> bool {
        self.is(group, plural)
            && self.subresource.is_empty()
            && matches!(self.operation, Operation::Create | Operation::Update)
    }

    /// Whether the request creates this resource.
    pub fn creates(&self, group: &str, plural: &str) -> bool {
        self.writes(group, plural) && self.operation == Operation::Create
    }

    /// The object's name as far as it is known.
    pub fn object_name(&self) -> &str {
        let from_object = || self.object.as_ref().and_then(|o| o["metadata"]["name"].as_str());
        if self.name.is_empty() { from_object().unwrap_or_default() } else { &self.name }
    }

    /// 403 with upstream's form of the message.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        let generated = || self.object.as_ref().and_then(|o| o["metadata"]["generateName"].as_str());
        let name = match self.object_name() {
            "" => generated().unwrap_or("Unknown"),
            name => name,
        };
        Status::forbidden(&self.group_resource(), name, why)
    }
}
