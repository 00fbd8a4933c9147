//! Acting as somebody else, with the permission to do so.

use http::HeaderMap;
use kube1_api::status::Status;

use super::headers::{extra, texts};
use super::service_account;
use crate::authz::{Authorizer, Decision, NODES, forbidden};
use crate::request_info::RequestInfo;
use crate::user::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, UserInfo};

const AUTHENTICATION: &str = "authentication.k8s.io";
/// Set for service accounts whose token is bound to a pod of that node.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// Whom a user acts as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonated {
    pub user: UserInfo,
    /// The mode of constrained impersonation; none for the permission to do anything as the other.
    pub mode: Option<&'static str>,
}

/// The user that the `Impersonate-*` headers ask to be; `None` without them, a 403 when `user` may not.
///
/// Constrained impersonation (KEP-5284) is tried first: it needs a permission on the identity and one on what the request
/// does. Otherwise verb `impersonate` on every part of the identity is needed, whatever the request is.
pub async fn impersonate(
    headers: &HeaderMap,
    user: &UserInfo,
    request: &RequestInfo,
    authorizer: &dyn Authorizer,
) -> Result<Option<Impersonated>, Status> {
    let Some(mut target) = requested(headers)? else { return Ok(None) };
    let mode = constraint(user, &target, request, authorizer).await;
    if mode.is_none() {
        for request in permissions(&target, "impersonate") {
            match authorizer.authorize(user, &request).await {
                Decision::Allow => {}
                Decision::Deny(reason) | Decision::NoOpinion(reason) => return Err(forbidden(user, &request, &reason)),
            }
        }
    }
    complete_groups(&mut target);
    Ok(Some(Impersonated { user: target, mode }))
}

/// The mode in which constrained impersonation permits the request.
async fn constraint(
    user: &UserInfo,
    target: &UserInfo,
    request: &RequestInfo,
    authorizer: &dyn Authorizer,
) -> Option<&'static str> {
    for (mode, identity) in constrained(user, target) {
        let on = RequestInfo { verb: format!("impersonate-on:{mode}:{}", request.verb), ..request.clone() };
        let mut permitted = true;
        for asked in identity.iter().chain([&on]) {
            permitted = permitted && authorizer.authorize(user, asked).await == Decision::Allow;
        }
        if permitted {
            return Some(mode);
        }
    }
    None
}

/// The modes in which `target` may be impersonated, with the permissions on it that each takes.
fn constrained(user: &UserInfo, target: &UserInfo) -> Vec<(&'static str, Vec<RequestInfo>)> {
    let only_name = target.uid.is_empty() && target.extra.is_empty();
    if let Some(node) = target.name.strip_prefix("system:node:") {
        if !only_name || target.groups != [NODES] {
            return Vec::new();
        }
        let ask = |mode: &str, name: &str| {
            vec![permission(&format!("impersonate:{mode}"), AUTHENTICATION, "nodes", "", "", name)]
        };
        let mut modes = Vec::new();
        if user.extra.get(NODE_NAME).is_some_and(|names| names.len() == 1 && names[0] == node) {
            modes.push(("associated-node", ask("associated-node", "*")));
        }
        modes.push(("arbitrary-node", ask("arbitrary-node", node)));
        return modes;
    }
    if let Some((namespace, name)) = account(&target.name) {
        let ask = permission("impersonate:serviceaccount", AUTHENTICATION, "serviceaccounts", "", namespace, name);
        return if only_name && target.groups.is_empty() { vec![("serviceaccount", vec![ask])] } else { Vec::new() };
    }
    if target.groups.iter().any(|group| group.is_empty() || group == MASTERS) {
        return Vec::new();
    }
    let mut identity = permissions(target, "impersonate:user-info");
    identity.iter_mut().for_each(|request| request.group = AUTHENTICATION.into());
    vec![("user-info", identity)]
}

pub(super) fn requested(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
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

/// `verb` on the user or service account, each group, the uid and each extra value.
fn permissions(target: &UserInfo, verb: &str) -> Vec<RequestInfo> {
    let mut all = vec![match account(&target.name) {
        Some((namespace, name)) => permission(verb, "", "serviceaccounts", "", namespace, name),
        None => permission(verb, "", "users", "", "", &target.name),
    }];
    all.extend(target.groups.iter().map(|group| permission(verb, "", "groups", "", "", group)));
    for (key, values) in &target.extra {
        all.extend(values.iter().map(|value| permission(verb, AUTHENTICATION, "userextras", key, "", value)));
    }
    if !target.uid.is_empty() {
        all.push(permission(verb, AUTHENTICATION, "uids", "", "", &target.uid));
    }
    all
}

fn permission(verb: &str, group: &str, resource: &str, subresource: &str, namespace: &str, name: &str) -> RequestInfo {
    RequestInfo {
        is_resource: true,
        verb: verb.into(),
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        ..RequestInfo::default()
    }
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
            let found = impersonate(&map, &me, &RequestInfo::default(), &Some3).await;
            let found = found.map(|u| u.map(|u| (u.user.name, u.user.groups))).map_err(|s| s.code());
            let expected = expected.map(|u: Option<(&str, Vec<&str>)>| {
                u.map(|(n, g)| (n.to_owned(), g.into_iter().map(str::to_owned).collect::<Vec<_>>()))
            });
            assert_eq!(found, expected, "{headers:?}");
        }
    }

    /// Allows the listed `verb resource name`.
    struct Listed(&'static [&'static str]);

    #[async_trait]
    impl Authorizer for Listed {
        async fn authorize(&self, _: &UserInfo, r: &RequestInfo) -> Decision {
            let asked = format!("{} {} {}", r.verb, r.resource, r.name);
            if self.0.contains(&asked.as_str()) { Decision::Allow } else { Decision::NoOpinion(String::new()) }
        }
    }

    #[tokio::test]
    async fn constrained_impersonation_needs_the_identity_and_the_action() {
        let mut me = UserInfo::authenticated("system:serviceaccount:kube-system:agent", &[]);
        me.extra.insert(NODE_NAME.into(), vec!["n".into()]);
        let request =
            RequestInfo { is_resource: true, verb: "list".into(), resource: "pods".into(), ..RequestInfo::default() };
        let node = |name| vec![("impersonate-user", name), ("impersonate-group", "system:nodes")];
        let alice = vec![("impersonate-user", "alice"), ("impersonate-group", "system:masters")];
        let associated = Listed(&["impersonate:associated-node nodes *", "impersonate-on:associated-node:list pods "]);
        let arbitrary = Listed(&["impersonate:arbitrary-node nodes m", "impersonate-on:arbitrary-node:list pods "]);
        let half = Listed(&["impersonate:associated-node nodes *", "impersonate-on:associated-node:get pods "]);
        let masters = Listed(&[
            "impersonate:user-info users alice",
            "impersonate:user-info groups system:masters",
            "impersonate-on:user-info:list pods ",
        ]);
        for (authorizer, headers, allowed) in [
            (&associated, node("system:node:n"), true),
            (&associated, node("system:node:m"), false),
            (&arbitrary, node("system:node:m"), true),
            (&half, node("system:node:n"), false),
            (&masters, alice.clone(), false),
            (&masters, alice[..1].to_vec(), true),
        ] {
            let map: HeaderMap = headers.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect();
            let found = impersonate(&map, &me, &request, authorizer).await;
            assert_eq!(found.is_ok(), allowed, "{headers:?}");
        }
    }
}
