//! Asking the cluster for a certificate.

use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{PostParams, WatchEvent, WatchParams};
use kube1_pki::{AltName, Leaf, PrivateKey, Subject, create_csr};
use sha2::{Digest, Sha256};

use crate::JoinError;

const WATCH_SECONDS: u32 = 280;
const RETRY: Duration = Duration::from_secs(2);

/// Whom a certificate is for.
#[derive(Clone, Debug)]
pub struct CertificateWish<'a> {
    pub signer: &'a str,
    /// `client auth` or `server auth`.
    pub usage: &'a str,
    pub subject: Subject,
    pub alt_names: Vec<AltName>,
}

/// Asks for a certificate of `key` and waits until it is issued, however long approval takes.
///
/// Cancel-safe: the request is named after its content, so asking again with the same key goes on with the same request.
pub async fn request_certificate(
    client: &kube::Client,
    wish: &CertificateWish<'_>,
    key: &PrivateKey,
) -> Result<Leaf, JoinError> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let name = name(wish, key);
    loop {
        create(&api, &name, wish, key).await?;
        match wait(&api, &name).await {
            Ok(Some(certificate_pem)) => {
                let leaf = Leaf { certificate_pem, key_pem: key.to_pem() };
                if leaf.is_pair() {
                    return Ok(leaf);
                }
                let reason = "the certificate that was issued is not for this node's key".into();
                return Err(JoinError::Denied { name, reason });
            }
            // Requests are cleaned up after a while; then it has to be made again.
            Ok(None) => {}
            Err(error) if error.is_final() => return Err(error),
            Err(error) => {
                tracing::debug!(%error, request = name, "watching the certificate request failed; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn name(wish: &CertificateWish<'_>, key: &PrivateKey) -> String {
    let mut hash = Sha256::new_with_prefix(key.public_key_info());
    hash.update(format!("{} {:?} {:?}", wish.signer, wish.subject, wish.alt_names));
    format!("node-csr-{}", &hex::encode(hash.finalize())[..40])
}

async fn create(
    api: &Api<CertificateSigningRequest>,
    name: &str,
    wish: &CertificateWish<'_>,
    key: &PrivateKey,
) -> Result<(), JoinError> {
    let request = create_csr(&wish.subject, &wish.alt_names, key)?;
    let object = CertificateSigningRequest {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.into_bytes()),
            signer_name: wish.signer.into(),
            usages: Some(vec!["digital signature".into(), wish.usage.into()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 401 => Err(JoinError::TokenRefused),
        Err(error) => Err(error.into()),
    }
}

/// The certificate once there is one, `None` when the request is gone.
async fn wait(api: &Api<CertificateSigningRequest>, name: &str) -> Result<Option<String>, JoinError> {
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS);
    loop {
        let mut events = std::pin::pin!(api.watch(&params, "0").await?);
        while let Some(event) = events.try_next().await? {
            match event {
                WatchEvent::Added(request) | WatchEvent::Modified(request) => {
                    if let Some(certificate) = judge(&request)? {
                        return Ok(Some(certificate));
                    }
                }
                WatchEvent::Deleted(_) => return Ok(None),
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
            }
        }
        if api.get_opt(name).await?.is_none() {
            return Ok(None);
        }
    }
}

/// The certificate of a request, an error when it was refused, `None` while it is undecided.
fn judge(request: &CertificateSigningRequest) -> Result<Option<String>, JoinError> {
    let Some(status) = &request.status else { return Ok(None) };
    for condition in status.conditions.iter().flatten() {
        if matches!(condition.type_.as_str(), "Denied" | "Failed") {
            let text = |part: &Option<String>| part.clone().unwrap_or_default();
            let reason = format!("{} {}", text(&condition.reason), text(&condition.message));
            let name = request.metadata.name.clone().unwrap_or_default();
            return Err(JoinError::Denied { name, reason: reason.trim().to_owned() });
        }
    }
    let bytes = status.certificate.as_ref().map(|c| c.0.clone()).filter(|c| !c.is_empty());
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}
