//! Users that a trusted front proxy names in headers.

use http::HeaderMap;

use super::headers::{extra, texts};
use crate::user::{AUTHENTICATED, UserInfo};

/// The user of `X-Remote-*`, which must come from a proxy whose certificate was checked; `None` without `X-Remote-User`.
pub fn user(headers: &HeaderMap) -> Option<UserInfo> {
    let name = texts(headers, "x-remote-user").next().filter(|n| !n.is_empty())?;
    let mut groups: Vec<String> = texts(headers, "x-remote-group").collect();
    if !groups.iter().any(|g| g == AUTHENTICATED) && name != crate::user::ANONYMOUS {
        groups.push(AUTHENTICATED.into());
    }
    Some(UserInfo {
        name,
        uid: texts(headers, "x-remote-uid").next().unwrap_or_default(),
        groups,
        extra: extra(headers, "x-remote-extra-"),
    })
}
