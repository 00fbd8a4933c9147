//! A write as the rules of webhooks and policies see it.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use kube1_api::cel::{
    Activation, Answer, CALL_LIMIT, CONDITIONS_BUDGET, Decide, Extension, Question, REQUEST, Value as Cel,
};
use kube1_api::codec::{FieldValidation, check_value};
use kube1_api::default::apply_defaults;
use kube1_api::expression::{Budget, Expression};
use kube1_api::resource::{Resource, ResourceTable};
use kube1_api::selector::LabelSelector;
use kube1_api::status::Status;
use parking_lot::Mutex;
use serde_json::Value;

use super::{Attributes, Operation, together};
use crate::authz::{Authorizer, Decision};
use crate::convert;
use crate::dial::Resolver;
use crate::reader::StorageReader;
use crate::request_info::RequestInfo;
use crate::user::UserInfo;
use crate::webhook::{Review, Subject};

/// What rules and selectors look at.
pub(super) struct View<'a> {
    pub attributes: &'a Attributes,
    /// The namespace of the object; none for cluster-scoped ones, among them namespaces.
    pub namespace: Option<Value>,
    /// Labels by which the request is selected; none if it is always.
    labels: Option<Value>,
    equivalents: Vec<(String, String)>,
    table: &'a ResourceTable,
}

/// The objects of a write in the version that a rule asked for.
pub(super) struct Versioned {
    pub row: Arc<Resource>,
    pub object: Option<Value>,
    pub old: Option<Value>,
}

impl<'a> View<'a> {
    pub fn new(attributes: &'a Attributes, reader: &StorageReader, table: &'a ResourceTable) -> Self {
        let row = &attributes.resource;
        let is_namespace = attributes.is("", "namespaces");
        let name = if is_namespace { attributes.object_name() } else { &attributes.namespace };
        let namespace = Some(name).filter(|n| !n.is_empty());
        let namespace = namespace.and_then(|n| reader.collection("", "namespaces")?.get("", n)).map(|n| n.value());
        // A new or changed namespace is selected by what it is going to be.
        let own = attributes.object.as_ref().filter(|_| {
            let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
            is_namespace && attributes.subresource.is_empty() && writes
        });
        let labels = own.or(namespace.as_ref()).map(|n| n["metadata"]["labels"].clone());
        let namespace = namespace.filter(|_| !is_namespace);
        let same = |other: &&Arc<Resource>| {
            other.storage_group == row.storage_group
                && other.storage_plural == row.storage_plural
                && (other.group != row.group || other.version != row.version)
        };
        let equivalents = table.iter().filter(same).map(|r| (r.group.clone(), r.version.clone())).collect();
        Self { attributes, namespace, labels, equivalents, table }
    }

    pub fn subject(&self) -> Subject<'_> {
        let row = &self.attributes.resource;
        Subject {
            group: &row.group,
            version: &row.version,
            resource: &row.plural,
            subresource: &self.attributes.subresource,
            operation: self.attributes.operation.as_str(),
            namespaced: row.namespaced,
            name: self.attributes.object_name(),
            equivalents: &self.equivalents,
        }
    }

    /// A namespace is selected by its own labels, and what is in no namespace always is.
    pub fn in_namespaces(&self, selector: &LabelSelector) -> bool {
        selector.is_empty() || self.labels.as_ref().is_none_or(|labels| selector.matches_value(labels))
    }

    /// Either form of the object is enough.
    pub fn selects_object(&self, selector: &LabelSelector) -> bool {
        let forms = [&self.attributes.object, &self.attributes.old];
        selector.is_empty() || forms.into_iter().flatten().any(|o| selector.matches_value(&o["metadata"]["labels"]))
    }

    /// The objects as the group and version show them. A conversion webhook is found by the resolver.
    pub async fn in_version(&self, resolver: &Resolver, group: &str, version: &str) -> Result<Versioned, Status> {
        let (attributes, own) = (self.attributes, &self.attributes.resource);
        let row = self.table.get(group, version, &own.plural).unwrap_or_else(|| own.clone());
        let mut versioned = Versioned { object: attributes.object.clone(), old: attributes.old.clone(), row };
        for object in [&mut versioned.object, &mut versioned.old] {
            if let Some(given) = object.take() {
                *object = Some(between(resolver, own, &versioned.row, given).await?);
            }
        }
        Ok(versioned)
    }

    /// What a webhook or policy may change; a deletion has nothing of the kind.
    pub fn object<'b>(&self, versioned: &'b Versioned) -> Option<&'b Value> {
        versioned.object.as_ref().filter(|_| self.attributes.operation != Operation::Delete)
    }

    /// The object back in the request's version.
    pub async fn back_from(&self, resolver: &Resolver, row: &Resource, object: Value) -> Result<Value, Status> {
        between(resolver, row, &self.attributes.resource, object).await
    }

    /// The question for a webhook of this version; policies see its `request` too.
    pub fn review<'b>(&'b self, review_version: &'b str, versioned: &'b Versioned, options: &'b Value) -> Review<'b> {
        let attributes = self.attributes;
        let own = &attributes.resource;
        let row = &versioned.row;
        // A subresource may take an object of another kind.
        let kind_of = |object: &'b Option<Value>, row: &'b Resource| -> (&'b str, &'b str, &'b str) {
            let api_version = object.as_ref().and_then(|o| o["apiVersion"].as_str());
            let kind = object.as_ref().and_then(|o| o["kind"].as_str());
            match (api_version, kind) {
                (Some(api_version), Some(kind)) => {
                    let (group, version) = kube1_api::name::split_api_version(api_version);
                    (group, version, kind)
                }
                _ => (&row.group, &row.version, &row.kind),
            }
        };
        Review {
            version: review_version,
            uid: uuid::Uuid::new_v4().to_string(),
            kind: kind_of(&versioned.object, row),
            resource: (&row.group, &row.version, &row.plural),
            request_kind: kind_of(&attributes.object, own),
            request_resource: (&own.group, &own.version, &own.plural),
            subresource: &attributes.subresource,
            name: attributes.object_name(),
            namespace: match attributes.is("", "namespaces") {
                true => attributes.object_name(),
                false => &attributes.namespace,
            },
            operation: attributes.operation.as_str(),
            user: &attributes.user,
            object: self.object(versioned),
            old_object: versioned.old.as_ref(),
            options,
            dry_run: attributes.dry_run,
        }
    }
}

/// An object of one version of a resource in another; what a subresource takes is of no version of it.
async fn between(resolver: &Resolver, from: &Resource, to: &Resource, mut object: Value) -> Result<Value, Status> {
    let foreign = object["kind"].as_str().is_some_and(|kind| kind != from.kind);
    if foreign || (from.group == to.group && from.version == to.version) {
        return Ok(object);
    }
    if from.conversion.is_some() {
        let converted = convert::webhook::convert(resolver, from, &to.api_version(), vec![object]).await?;
        object = converted.into_iter().next().ok_or_else(|| Status::internal("a conversion lost its object"))?;
    } else {
        convert::to_storage(from, &mut object);
    }
    convert::from_storage(to, &mut object);
    Ok(object)
}

/// What expressions see of a write.
pub(super) struct Facts<'a> {
    request: Value,
    object: &'a Value,
    old: &'a Value,
    own: Question,
    decide: Arc<Decide>,
}

impl<'a> Facts<'a> {
    pub fn new(review: &Review<'a>, authorizer: &Arc<dyn Authorizer>) -> Self {
        let mut request = review.to_json()["request"].take();
        if let Some(request) = request.as_object_mut() {
            request.remove("object");
            request.remove("oldObject");
        }
        let (group, _, resource) = review.resource;
        let own = Question {
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: review.subresource.to_owned(),
            namespace: review.namespace.to_owned(),
            name: review.name.to_owned(),
            ..Question::default()
        };
        let (object, old) = (review.object.unwrap_or(&Value::Null), review.old_object.unwrap_or(&Value::Null));
        Self { request, object, old, own, decide: cached(review.user.clone(), authorizer.clone()) }
    }

    /// Ready for evaluation. `namespaceObject` is null until it is set.
    pub fn activation(&self) -> Activation<'_> {
        let mut activation = Activation::new(CALL_LIMIT);
        activation.set("object", Cel::of_json(self.object));
        activation.set("oldObject", Cel::of_json(self.old));
        activation.set("request", Cel::shaped(&self.request, &REQUEST));
        activation.set("namespaceObject", Cel::Null);
        activation.set("authorizer", Extension::Authorizer(Arc::default()).into());
        activation.set("authorizer.requestResource", Extension::ResourceCheck(Arc::new(self.own.clone())).into());
        activation.set_decide(self.decide.clone());
        activation
    }
}

/// Asks the authorizer each question once.
fn cached(user: UserInfo, authorizer: Arc<dyn Authorizer>) -> Arc<Decide> {
    let known: Mutex<HashMap<(Question, String), Answer>> = Mutex::default();
    Arc::new(move |question: &Question, verb: &str| {
        let key = (question.clone(), verb.to_owned());
        if let Some(answer) = known.lock().get(&key) {
            return answer.clone();
        }
        let answer = match decide(&user, &*authorizer, question, verb) {
            Ok((allowed, reason)) => Answer { allowed, reason, error: None },
            Err(error) => Answer { error: Some(error), ..Answer::default() },
        };
        known.lock().insert(key, answer.clone());
        answer
    })
}

/// Answers an expression's question about permissions.
fn decide(
    user: &UserInfo,
    authorizer: &dyn Authorizer,
    question: &Question,
    verb: &str,
) -> Result<(bool, String), String> {
    let asked = question.clone();
    let request = RequestInfo {
        is_resource: asked.path.is_empty(),
        path: asked.path,
        verb: verb.to_owned(),
        version: "*".into(),
        group: asked.group,
        namespace: asked.namespace,
        resource: asked.resource,
        subresource: asked.subresource,
        name: asked.name,
        field_selector: asked.field_selector,
        label_selector: asked.label_selector,
        ..RequestInfo::default()
    };
    let account = asked.service_account.map(|(namespace, name)| {
        let own_group = format!("system:serviceaccounts:{namespace}");
        let groups = ["system:serviceaccounts", &own_group];
        UserInfo::authenticated(format!("system:serviceaccount:{namespace}:{name}"), &groups)
    });
    let user = account.as_ref().unwrap_or(user);
    // Expressions cannot wait. The authorizers of this server answer at once, from memory; a webhook does not.
    let mut asked = authorizer.explain(user, &request);
    let explained = match (&mut asked).now_or_never() {
        Some(explained) => explained,
        None => wait(asked).ok_or("the authorizer did not answer in time")?,
    };
    Ok(match explained {
        (Decision::Allow, reason) => (true, reason),
        (Decision::Deny(reason) | Decision::NoOpinion(reason), _) => (false, reason),
    })
}

/// Waits in place, where other threads go on with other work meanwhile.
fn wait<T>(work: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    let many = runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread;
    many.then(|| tokio::task::block_in_place(|| runtime.block_on(work)))
}

/// Named expressions, all of which must hold; those that do not compile fail.
pub(super) type Conditions = [(String, Result<Expression, String>)];

/// Whether all conditions hold. One that is false decides, whatever others fail with.
pub(super) fn all_hold(conditions: &Conditions, activation: &Activation<'_>) -> Result<bool, String> {
    let (mut failed, mut budget) = (Vec::new(), Budget::new(CONDITIONS_BUDGET));
    let mut holds = true;
    for (_, condition) in conditions {
        let value = match condition {
            Ok(condition) => condition.spend(activation, &mut budget).map_err(|error| error.to_string())?,
            Err(why) => Err(format!("compilation error: {why}")),
        };
        match value {
            Ok(value) => holds &= !matches!(value, Cel::Bool(false)),
            Err(error) => failed.push(error),
        }
    }
    match together(failed) {
        _ if !holds => Ok(false),
        None => Ok(true),
        Some(errors) => Err(errors),
    }
}

/// An object that a webhook or policy made, as its version has it: members that are unknown are dropped or refused, and
/// defaults filled in.
pub(super) fn complete(row: &Resource, object: Value, unknown: FieldValidation) -> Result<Value, Status> {
    if object["kind"] != row.kind.as_str() {
        return Ok(object);
    }
    let mut object = match row.is_custom() {
        true => object,
        false => {
            check_value(row, object, unknown).map_err(|status| Status::internal(reason(row, status.message())))?.value
        }
    };
    apply_defaults(row, &mut object);
    Ok(object)
}

/// Why an object cannot be decoded, without the words that are for those who sent one.
fn reason<'a>(row: &Resource, message: &'a str) -> &'a str {
    let words = format!(" cannot be handled as a {}: ", row.kind);
    message.split_once(&words).map_or(message, |(_, why)| why)
}

const GROUP: &str = "admissionregistration.k8s.io";

/// Webhooks do not decide about webhooks and policies.
pub(super) fn is_configuration(attributes: &Attributes) -> bool {
    attributes.resource.group == GROUP
}

/// Policies do not decide about policies, nor about questions that the server asks of itself to answer requests.
pub(super) fn is_exempt(attributes: &Attributes) -> bool {
    let row = &attributes.resource;
    match row.group.as_str() {
        GROUP => row.plural.contains("admissionpolic"),
        "authentication.k8s.io" => matches!(row.plural.as_str(), "tokenreviews" | "selfsubjectreviews"),
        "authorization.k8s.io" => true,
        _ => false,
    }
}
