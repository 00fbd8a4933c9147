//! Parameter objects of policies.

use kube1_api::name::split_api_version;
use kube1_api::selector::LabelSelector;
use serde_json::Value;

use super::config::{Binding, Policy};
use crate::admission::{Attributes, Configured};
use crate::convert;

/// The objects that a binding names, each to be evaluated with; a null where there are none to be had. The error says
/// why evaluating is impossible.
pub(super) fn find(
    configured: &Configured,
    policy: &Policy,
    binding: &Binding,
    attributes: &Attributes,
) -> Result<Vec<Value>, String> {
    let Some((api_version, kind)) = &policy.param_kind else { return Ok(vec![Value::Null]) };
    let reference = &binding.param_ref;
    if reference.is_null() {
        return Ok(vec![Value::Null]);
    }
    let (group, version) = split_api_version(api_version);
    let table = configured.table.load();
    let row = table.by_kind(group, version, kind);
    let row =
        row.ok_or_else(|| format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'"))?;
    let namespace = match (row.namespaced, reference["namespace"].as_str().filter(|n| !n.is_empty())) {
        (false, Some(_)) => {
            return Err("cannot use namespaced paramRef in policy binding that is cluster-scoped".into());
        }
        (false, None) => "",
        (true, Some(named)) => named,
        (true, None) if attributes.namespace.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that is cluster-scoped".into());
        }
        (true, None) => &attributes.namespace,
    };
    let collection = configured.storage.collection(&row);
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
        convert::from_storage(&row, &mut value);
        value
    });
    Ok(shown.collect())
}
