//! Bootstrap tokens go when they expire.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use kube1_client::{ObjectKey, Outcome, Selection, WorkQueue};
use kube1_supervisor::BoxError;
use std::time::Duration;

use crate::controller::{Controller, SyncResult, namespaced, unless_gone};

const NAMESPACE: &str = "kube-system";
const KIND: &str = "bootstrap.kubernetes.io/token";

/// Runs the controller that deletes expired bootstrap tokens.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let selection = Selection { field_selector: format!("type={KIND}"), ..Selection::default() };
    let secrets = controller.informers.select_in::<Secret>(NAMESPACE, selection);
    let queue = WorkQueue::new();
    controller.watch_own(&secrets, &queue);
    let sync = |key: ObjectKey| {
        let (client, secrets) = (controller.client.clone(), secrets.clone());
        async move {
            let Some(secret) = secrets.get(&key) else { return Ok(Outcome::Done) };
            let Some(left) = time_left(&secret) else { return Ok(Outcome::Done) };
            if !left.is_zero() {
                return Ok(Outcome::RequeueAfter(left));
            }
            let same = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
            let api = namespaced::<Secret>(&client, &key.namespace);
            unless_gone(api.delete(&key.name, &DeleteParams::default().preconditions(same)).await)?;
            SyncResult::Ok(Outcome::Done)
        }
    };
    controller.work(&queue, 1, sync).await;
    Ok(())
}

/// Time until the token expires; None if it never does, as with an empty expiration. One whose expiration cannot be
/// read has expired.
fn time_left(secret: &Secret) -> Option<Duration> {
    let text = secret.data.as_ref()?.get("expiration").filter(|text| !text.0.is_empty())?;
    let at = std::str::from_utf8(&text.0).ok().and_then(|t| t.trim().parse::<Timestamp>().ok());
    let left = at.map(|at| at.duration_since(Timestamp::now()));
    Some(left.and_then(|l| Duration::try_from(l).ok()).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn tokens_expire_at_their_time() {
        let left = |text: Option<&str>| {
            let entry = text.map(|t| ("expiration".to_owned(), ByteString(t.as_bytes().to_vec())));
            time_left(&Secret { data: Some(entry.into_iter().collect()), ..Secret::default() })
        };
        assert_eq!(left(None), None);
        assert_eq!(left(Some("")), None);
        assert_eq!(left(Some("2020-01-01T00:00:00Z")), Some(Duration::ZERO));
        assert_eq!(left(Some("tomorrow")), Some(Duration::ZERO));
        assert!(left(Some("2999-01-01T00:00:00+02:00")).unwrap() > Duration::from_secs(1 << 30));
    }
}
