//! The variable `authorizer`: `authorizer.group('apps').resource('deployments').namespace('a').check('create').allowed()`.

use std::sync::Arc;

use super::Row;
use crate::cel::call::Call;
use crate::cel::extension::Extension;
use crate::cel::value::{Error, Evaluated, Value};
use crate::validate::format as formats;

/// What an expression asks of the authorizer. What it leaves out is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Question {
    /// For requests that are for no resource.
    pub path: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
    /// Namespace and name, when not the request's own user is asked about.
    pub service_account: Option<(String, String)>,
}

/// Whether it is allowed and why, or why there is no answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

pub(super) const ROWS: &[Row] = &[
    (
        "path",
        "authorizer_path",
        "kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.PathCheck",
        |c| {
            let path = not_blank(c, "path")?;
            Ok(Extension::PathCheck(Arc::new(Question { path, ..question(c)? })).into())
        },
    ),
    (
        "group",
        "authorizer_group",
        "kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.GroupCheck",
        |c| {
            let group = c.text(1)?.to_string();
            Ok(Extension::GroupCheck(Arc::new(Question { group, ..question(c)? })).into())
        },
    ),
    (
        "serviceAccount",
        "authorizer_serviceaccount",
        "kubernetes.authorization.Authorizer.(string, string) -> kubernetes.authorization.Authorizer",
        service_account,
    ),
    (
        "resource",
        "groupcheck_resource",
        "kubernetes.authorization.GroupCheck.(string) -> kubernetes.authorization.ResourceCheck",
        |c| {
            let resource = not_blank(c, "resource")?;
            Ok(Extension::ResourceCheck(Arc::new(Question { resource, ..question(c)? })).into())
        },
    ),
    ("subresource", "resourcecheck_subresource", RESOURCE, |c| narrow(c, |q| &mut q.subresource)),
    ("namespace", "resourcecheck_namespace", RESOURCE, |c| narrow(c, |q| &mut q.namespace)),
    ("name", "resourcecheck_name", RESOURCE, |c| narrow(c, |q| &mut q.name)),
    ("fieldSelector", "authorizer_fieldselector", RESOURCE, |c| narrow(c, |q| &mut q.field_selector)),
    ("labelSelector", "authorizer_labelselector", RESOURCE, |c| narrow(c, |q| &mut q.label_selector)),
    (
        "check",
        "pathcheck_check",
        "kubernetes.authorization.PathCheck.(string) -> kubernetes.authorization.Decision",
        check,
    ),
    (
        "check",
        "resourcecheck_check",
        "kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.Decision",
        check,
    ),
    ("allowed", "decision_allowed", "kubernetes.authorization.Decision.() -> bool", |c| {
        Ok(decision(c)?.allowed.into())
    }),
    ("reason", "decision_reason", "kubernetes.authorization.Decision.() -> string", |c| {
        Ok(decision(c)?.reason.as_str().into())
    }),
    ("errored", "decision_errored", "kubernetes.authorization.Decision.() -> bool", |c| {
        Ok(decision(c)?.error.is_some().into())
    }),
    ("error", "decision_error", "kubernetes.authorization.Decision.() -> string", |c| {
        Ok(decision(c)?.error.clone().unwrap_or_default().into())
    }),
];

const RESOURCE: &str = "kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck";

fn question(call: &Call<'_, '_>) -> Result<Question, Error> {
    match call.arg(0) {
        Value::Extension(
            Extension::Authorizer(q) | Extension::PathCheck(q) | Extension::GroupCheck(q) | Extension::ResourceCheck(q),
        ) => Ok((**q).clone()),
        _ => Err(Error::no_overload()),
    }
}

fn decision<'c>(call: &'c Call<'_, '_>) -> Result<&'c Arc<Answer>, Error> {
    match call.arg(0) {
        Value::Extension(Extension::Decision(answer)) => Ok(answer),
        _ => Err(Error::no_overload()),
    }
}

fn not_blank(call: &Call<'_, '_>, what: &str) -> Result<String, Error> {
    let text = call.text(1)?;
    if text.trim().is_empty() { Err(Error::failed(format!("{what} must not be empty"))) } else { Ok(text.to_string()) }
}

fn narrow<'a>(call: &mut Call<'a, '_>, member: fn(&mut Question) -> &mut String) -> Evaluated<'a> {
    let mut question = question(call)?;
    *member(&mut question) = call.text(1)?.to_string();
    Ok(Extension::ResourceCheck(Arc::new(question)).into())
}

fn service_account<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let (namespace, name) = (call.text(1)?.to_string(), call.text(2)?.to_string());
    if !formats::dns_subdomain(&name).is_empty() {
        return Err(Error::failed("Invalid service account name"));
    }
    if !formats::dns_label(&namespace).is_empty() {
        return Err(Error::failed("Invalid service account namespace"));
    }
    let question = Question { service_account: Some((namespace, name)), ..question(call)? };
    Ok(Extension::Authorizer(Arc::new(question)).into())
}

fn check<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let (question, verb) = (question(call)?, call.text(1)?);
    let decide = call.decide.ok_or_else(|| Error::failed("there is no authorizer to ask"))?;
    Ok(Extension::Decision(Arc::new(decide(&question, &verb))).into())
}
