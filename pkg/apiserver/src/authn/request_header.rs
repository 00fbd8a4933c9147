//! Users that a trusted front proxy names in headers.

use std::collections::BTreeMap;

use http::HeaderMap;

use super::headers::{extra, texts};
use super::trust::ProxyHeaders;
use crate::user::{AUTHENTICATED, UserInfo};

/// The user in the headers of a proxy whose certificate was checked; `None` when they name none. Of several headers for
/// the name or uid the first that says anything counts, groups and extra are those of all.
pub fn user(headers: &HeaderMap, names: &ProxyHeaders) -> Option<UserInfo> {
    let first = |names: &[String]| {
        let mut values = names.iter().filter_map(|name| texts(headers, name).next());
        values.find(|value| !value.is_empty())
    };
    let name = first(&names.user)?;
    let mut groups: Vec<String> = names.group.iter().flat_map(|name| texts(headers, name)).collect();
    if !groups.iter().any(|g| g == AUTHENTICATED) && name != crate::user::ANONYMOUS {
        groups.push(AUTHENTICATED.into());
    }
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, values) in names.extra_prefix.iter().flat_map(|prefix| extra(headers, prefix)) {
        all.entry(key).or_default().extend(values);
    }
    Some(UserInfo { name, uid: first(&names.uid).unwrap_or_default(), groups, extra: all })
}
