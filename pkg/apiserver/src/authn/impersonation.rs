//! Acting as somebody else, with the permission to do so.

use http::HeaderMap;
use kube1_api::status::Status;

use super::headers::{extra, texts};
use super::service_account;
use crate::authz::{Authorizer, Decision, forbidden};
use crate::request_info::RequestInfo;
use crate::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo};

const AUTHENTICATION: &str = "authentication.k8s.io";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// The user that the `Impersonate-*` headers ask to be; `None` without them, a 403 when `user` may not.
pub async fn impersonate(
    headers: &HeaderMap,
    user: &UserInfo,
    authorizer: &dyn Authorizer,
) -> Result<Option<UserInfo>, Status> {
    let Some(mut target) = requested(headers)? else { return Ok(None) };
    for request in permissions(&target) {
        match authorizer.authorize(user, &request).await {
            Decision::Allow => {}
            Decision::Deny(reason) | Decision::NoOpinion(reason) => return Err(forbidden(user, &request, &reason)),
        }
    }
    complete_groups(&mut target);
    Ok(Some(target))
}

fn requested(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    let target = UserInfo {
        name: texts(headers, "impersonate-user").next().unwrap_or_default(),
        uid: texts(headers, "impersonate-uid").next().unwrap_or_default(),
        groups: texts(headers, "impersonate-group").collect(),
        extra: extra(headers, EXTRA_PREFIX),
    };
    if !target.name.is_empty() {
        return Ok(Some(target));
    }
    if target == UserInfo::default() {
        return Ok(None);
    }
    Err(Status::bad_request(
        "requested impersonation of a group, uid or extra without impersonating a user: set Impersonate-User too",
    ))
}

/// What `target` takes: verb `impersonate` on the user or service account, each group, the uid and each extra value.
fn permissions(target: &UserInfo) -> Vec<RequestInfo> {
    let ask =
        |group: &str, version: &str, resource: &str, subresource: &str, namespace: &str, name: &str| RequestInfo {
            is_resource: true,
            verb: "impersonate".into(),
            group: group.into(),
            version: version.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..RequestInfo::default()
        };
    let mut all = vec![match account(&target.name) {
        Some((namespace, name)) => ask("", "v1", "serviceaccounts", "", namespace, name),
        None => ask("", "v1", "users", "", "", &target.name),
    }];
    all.extend(target.groups.iter().map(|group| ask("", "v1", "groups", "", "", group)));
    for (key, values) in &target.extra {
        all.extend(values.iter().map(|value| ask(AUTHENTICATION, "v1", "userextras", key, "", value)));
    }
    if !target.uid.is_empty() {
        all.push(ask(AUTHENTICATION, "v1", "uids", "", "", &target.uid));
    }
    all
}

fn account(name: &str) -> Option<(&str, &str)> {
    let (namespace, name) = name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

fn complete_groups(target: &mut UserInfo) {
    if target.groups.is_empty()
        && let Some((namespace, _)) = account(&target.name)
    {
        target.groups = service_account::groups(namespace);
    }
    let implied = if target.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !target.in_group(AUTHENTICATED) && !target.in_group(UNAUTHENTICATED) {
        target.groups.push(implied.into());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_trait::async_trait;

    use super::*;

    /// Allows impersonating `alice`, group `dev` and service accounts of namespace `a`.
    struct Some3;

    #[async_trait]
    impl Authorizer for Some3 {
        async fn authorize(&self, _: &UserInfo, r: &RequestInfo) -> Decision {
            let asked = (r.resource.as_str(), r.namespace.as_str(), r.name.as_str());
            let fine = matches!(asked, ("users", "", "alice") | ("groups", "", "dev") | ("serviceaccounts", "a", _));
            if fine && r.verb == "impersonate" { Decision::Allow } else { Decision::NoOpinion(String::new()) }
        }
    }

    #[tokio::test]
    async fn only_permitted_identities_are_taken() {
        let me = UserInfo::authenticated("me", &[]);
        for (headers, expected) in [
            (vec![("accept", "x")], Ok(None)),
            (vec![("impersonate-user", "alice")], Ok(Some(("alice", vec!["system:authenticated"])))),
            (
                vec![("impersonate-user", "alice"), ("impersonate-group", "dev")],
                Ok(Some(("alice", vec!["dev", "system:authenticated"]))),
            ),
            (
                vec![("impersonate-user", "system:serviceaccount:a:x")],
                Ok(Some((
                    "system:serviceaccount:a:x",
                    vec!["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"],
                ))),
            ),
            (vec![("impersonate-user", "system:serviceaccount:b:x")], Err(403)),
            (vec![("impersonate-user", "alice"), ("impersonate-group", "system:masters")], Err(403)),
            (vec![("impersonate-user", "alice"), ("impersonate-uid", "1")], Err(403)),
            (vec![("impersonate-user", "alice"), ("impersonate-extra-scopes", "x")], Err(403)),
            (vec![("impersonate-group", "dev")], Err(400)),
        ] {
            let map: HeaderMap = headers.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect();
            let found = impersonate(&map, &me, &Some3).await;
            let found = found.map(|u| u.map(|u| (u.name, u.groups))).map_err(|s| s.code());
            let expected = expected.map(|u: Option<(&str, Vec<&str>)>| {
                u.map(|(n, g)| (n.to_owned(), g.into_iter().map(str::to_owned).collect::<Vec<_>>()))
            });
            assert_eq!(found, expected, "{headers:?}");
        }
    }
}
