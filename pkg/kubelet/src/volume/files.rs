//! Volumes that are sets of files: ConfigMaps, Secrets, the downward API, tokens, and projections of several of these.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccountTokenProjection, Volume,
};

use super::VolumeError;
use super::atomic_writer::{Payload, PayloadFile};
use crate::downward::{self, PodFacts};
use crate::object_cache::{ObjectCache, ObjectError};
use crate::pod::{self, ContainerKind, PodExt};
use crate::token::Tokens;

const DEFAULT_MODE: i32 = 0o644;
const DEFAULT_TOKEN_SECONDS: i64 = 3600;

pub(super) struct Sources<'a> {
    pub pod: &'a Pod,
    pub facts: &'a PodFacts,
    pub objects: &'a ObjectCache,
    pub tokens: &'a Tokens,
}

/// Files to publish, and when they are to be made anew.
#[derive(Default)]
pub(super) struct Files {
    pub payload: Payload,
    pub refresh_at: Option<Timestamp>,
}

/// Upstream's name of the volume's type and whether it is kept in memory, if it is a set of files.
pub(super) fn plugin(volume: &Volume) -> Option<(&'static str, bool)> {
    let kinds = [
        (volume.config_map.is_some(), "configmap", false),
        (volume.secret.is_some(), "secret", true),
        (volume.downward_api.is_some(), "downward-api", true),
        (volume.projected.is_some(), "projected", true),
    ];
    kinds.into_iter().find(|(there, ..)| *there).map(|(_, name, memory)| (name, memory))
}

/// The files of a volume.
pub(super) async fn payload(sources: &Sources<'_>, volume: &Volume) -> Result<Files, VolumeError> {
    let mut files = Files::default();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        config_map(sources, &mut files, &source.name, source.items.as_deref(), source.optional, mode).await?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let name = source.secret_name.as_deref().unwrap_or_default();
        secret(sources, &mut files, name, source.items.as_deref(), source.optional, mode).await?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        downward_files(sources, &mut files, source.items.as_deref().unwrap_or_default(), mode)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for part in source.sources.iter().flatten() {
            if let Some(part) = &part.config_map {
                config_map(sources, &mut files, &part.name, part.items.as_deref(), part.optional, mode).await?;
            }
            if let Some(part) = &part.secret {
                secret(sources, &mut files, &part.name, part.items.as_deref(), part.optional, mode).await?;
            }
            if let Some(part) = &part.downward_api {
                downward_files(sources, &mut files, part.items.as_deref().unwrap_or_default(), mode)?;
            }
            if let Some(part) = &part.service_account_token {
                token(sources, &mut files, part, mode).await?;
            }
            if part.cluster_trust_bundle.is_some() {
                return Err(VolumeError::Unsupported("projected clusterTrustBundle"));
            }
            if part.pod_certificate.is_some() {
                return Err(VolumeError::Unsupported("projected podCertificate"));
            }
        }
    }
    Ok(files)
}

async fn config_map(
    sources: &Sources<'_>,
    files: &mut Files,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
) -> Result<(), VolumeError> {
    let found = sources.objects.config_map(sources.pod.uid(), sources.pod.namespace(), name).await;
    let map = match found {
        Err(ObjectError::NotFound { .. }) if optional == Some(true) => return Ok(()),
        other => other?,
    };
    let all = config_map_files(&map);
    select(files, "config", all, items, optional, mode)
}

fn config_map_files(map: &ConfigMap) -> Vec<(String, Vec<u8>)> {
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    text.chain(binary).collect()
}

async fn secret(
    sources: &Sources<'_>,
    files: &mut Files,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
) -> Result<(), VolumeError> {
    let found = sources.objects.secret(sources.pod.uid(), sources.pod.namespace(), name).await;
    let secret = match found {
        Err(ObjectError::NotFound { .. }) if optional == Some(true) => return Ok(()),
        other => other?,
    };
    let all = |s: &Secret| s.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect();
    select(files, "secret", all(&secret), items, optional, mode)
}

/// Adds all entries under their keys, or the chosen ones under their paths.
fn select(
    files: &mut Files,
    kind: &'static str,
    all: Vec<(String, Vec<u8>)>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
) -> Result<(), VolumeError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, content) in all {
            files.add(&key, content, mode, None);
        }
        return Ok(());
    };
    for item in items {
        match all.iter().find(|(key, _)| *key == item.key) {
            Some((_, content)) => files.add(&item.path, content.clone(), item.mode.unwrap_or(mode), None),
            None if optional == Some(true) => {}
            None => return Err(VolumeError::Key { kind, key: item.key.clone() }),
        }
    }
    Ok(())
}

fn downward_files(
    sources: &Sources<'_>,
    files: &mut Files,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
) -> Result<(), VolumeError> {
    for item in items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => downward::field(sources.pod, sources.facts, selector)?,
            (None, Some(selector)) => downward::resource(sources.pod, sources.facts, selector, None)?,
            (None, None) => continue,
        };
        files.add(&item.path, value.into_bytes(), item.mode.unwrap_or(mode), None);
    }
    Ok(())
}

async fn token(
    sources: &Sources<'_>,
    files: &mut Files,
    source: &ServiceAccountTokenProjection,
    mode: i32,
) -> Result<(), VolumeError> {
    let seconds = source.expiration_seconds.unwrap_or(DEFAULT_TOKEN_SECONDS);
    let audience = source.audience.as_deref().unwrap_or_default();
    let (text, renew_at) = sources.tokens.token(sources.pod, audience, seconds).await?;
    files.refresh_at = Some(files.refresh_at.map_or(renew_at, |at| at.min(renew_at)));
    let (mode, uid) = token_access(sources.pod, mode);
    files.add(&source.path, text.into_bytes(), mode, uid);
    Ok(())
}

/// Mode and owner of a pod's token. It is private where the pod's own users can still read it: as its owner, or
/// through the pod's fsGroup, which is given to all files and may read them.
fn token_access(pod: &Pod, mode: i32) -> (i32, Option<u32>) {
    let has_group = pod.spec().security_context.as_ref().is_some_and(|s| s.fs_group.is_some());
    let user = common_user(pod);
    (if has_group || user.is_some() { 0o600 } else { mode }, user)
}

/// The user that all containers run as, if it is one and the same.
fn common_user(pod: &Pod) -> Option<u32> {
    let of_pod = pod.spec().security_context.as_ref().and_then(|s| s.run_as_user);
    let users = pod::containers(pod.spec())
        .into_iter()
        .filter(|(kind, _)| *kind != ContainerKind::Ephemeral)
        .map(|(_, container)| container.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let mut users: Vec<Option<i64>> = users.collect();
    users.dedup();
    match users[..] {
        [Some(user)] => u32::try_from(user).ok(),
        _ => None,
    }
}

impl Files {
    fn add(&mut self, path: &str, content: Vec<u8>, mode: i32, uid: Option<u32>) {
        let mode = u32::try_from(mode).unwrap_or(0o644);
        self.payload.insert(path.to_owned(), PayloadFile { content, mode, uid });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_token_belongs_to_the_user_of_all_containers() {
        let all = json!({"name": "a"});
        let other = json!({"name": "b", "securityContext": {"runAsUser": 7}});
        for (context, containers, expected) in [
            (json!({}), vec![&all], (0o644, None)),
            (json!({"runAsUser": 5}), vec![&all], (0o600, Some(5))),
            (json!({"fsGroup": 9}), vec![&all], (0o600, None)),
            (json!({"runAsUser": 5, "fsGroup": 9}), vec![&all], (0o600, Some(5))),
            (json!({"runAsUser": 5}), vec![&all, &other], (0o644, None)),
            (json!({"runAsUser": 7}), vec![&all, &other], (0o600, Some(7))),
        ] {
            let spec = json!({"securityContext": context, "containers": containers,
                "ephemeralContainers": [{"name": "debug", "securityContext": {"runAsUser": 0}}]});
            let pod: Value = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(token_access(&pod, 0o644), expected, "{context} {containers:?}");
        }
    }
}
