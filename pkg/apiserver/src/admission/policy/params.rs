//! Parameter objects of policies.

use std::sync::Arc;

use kube1_api::name::split_api_version;
use kube1_api::resource::Resource;
use kube1_api::selector::LabelSelector;
use serde_json::Value;

use super::config::{Binding, Policy};
use crate::admission::{Attributes, Configured};
use crate::convert;

/// The row of a policy's parameter objects, if it takes any. The error says that there is none.
pub(super) fn row(configured: &Configured, policy: &Policy) -> Result<Option<Arc<Resource>>, String> {
    let Some((api_version, kind)) = &policy.param_kind else { return Ok(None) };
    let (group, version) = split_api_version(api_version);
    let row = configured.table.load().by_kind(group, version, kind);
    let none = || format!("failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind}'");
    row.map(Some).ok_or_else(none)
}

/// The objects that a binding names, each to be evaluated with; a null where it names none. The error says why
/// evaluating is impossible.
pub(super) fn find(
    configured: &Configured,
    row: Option<&Resource>,
    binding: &Binding,
    attributes: &Attributes,
) -> Result<Vec<Value>, String> {
    let reference = &binding.param_ref;
    let Some(row) = row.filter(|_| !reference.is_null()) else { return Ok(vec![Value::Null]) };
    let namespace = match (row.namespaced, reference["namespace"].as_str().filter(|n| !n.is_empty())) {
        (false, Some(_)) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
        }
        (false, None) => "",
        (true, Some(named)) => named,
        (true, None) if attributes.namespace.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
        }
        (true, None) => &attributes.namespace,
    };
    let collection = configured.storage.collection(row);
    let found = if let Some(name) = reference["name"].as_str().filter(|n| !n.is_empty()) {
        collection.get(namespace, name).into_iter().collect()
    } else {
        let selector = LabelSelector::from_value(&reference["selector"]).map_err(|e| e.to_string())?;
        let mut objects = collection.all(Some(namespace).filter(|_| row.namespaced));
        objects.retain(|o| selector.matches(|key| o.label(key)));
        objects
    };
    if found.is_empty() && reference["parameterNotFoundAction"] != "Allow" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    let shown = found.iter().map(|object| {
        let mut value = object.value();
        convert::shown(row, &mut value);
        value
    });
    Ok(shown.collect())
}
