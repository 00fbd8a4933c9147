//! Service-account tokens for pods, renewed before they expire.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::pod::PodExt;

/// What a token is for.
#[derive(Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    pod_uid: String,
    service_account: String,
    audience: String,
    seconds: i64,
}

#[derive(Clone)]
struct Token {
    text: String,
    renew_at: Timestamp,
}

/// Tokens by pod, account, audience and life.
pub struct Tokens {
    client: kube::Client,
    issued: Mutex<HashMap<TokenKey, Token>>,
}

/// Why the apiserver gave no token.
#[derive(Debug, thiserror::Error)]
#[error("failed to fetch token: {}", kube1_client::message(.0))]
pub struct TokenError(Box<kube::Error>);

impl Tokens {
    pub fn new(client: kube::Client) -> Self {
        Self { client, issued: Mutex::default() }
    }

    /// A valid token bound to the pod, and when it is to be asked for again.
    pub async fn token(&self, pod: &Pod, audience: &str, seconds: i64) -> Result<(String, Timestamp), TokenError> {
        let service_account = pod.spec().service_account_name.clone().unwrap_or_else(|| "default".to_owned());
        let key = TokenKey { pod_uid: pod.uid().to_owned(), service_account, audience: audience.to_owned(), seconds };
        if let Some(token) = self.issued.lock().get(&key).filter(|t| t.renew_at > Timestamp::now()).cloned() {
            return Ok((token.text, token.renew_at));
        }
        let token = self.request(pod, &key).await?;
        let answer = (token.text.clone(), token.renew_at);
        self.issued.lock().insert(key, token);
        Ok(answer)
    }

    async fn request(&self, pod: &Pod, key: &TokenKey) -> Result<Token, TokenError> {
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: (!key.audience.is_empty()).then(|| vec![key.audience.clone()]),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(pod.name().to_owned()),
                    uid: Some(pod.uid().to_owned()),
                }),
                expiration_seconds: Some(key.seconds),
            }),
            ..TokenRequest::default()
        };
        let failed = |error: kube::Error| TokenError(Box::new(error));
        let body = serde_json::to_vec(&request).map_err(|e| failed(kube::Error::SerdeError(e)))?;
        let url = format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", pod.namespace(), key.service_account);
        let request = http::Request::post(url).header(http::header::CONTENT_TYPE, "application/json").body(body);
        let request = request.map_err(|e| failed(kube::Error::HttpError(e)))?;
        let asked = Timestamp::now();
        let answer: TokenRequest = self.client.request(request).await.map_err(failed)?;
        let status = answer.status.unwrap_or_default();
        let expires = status.expiration_timestamp.map(|t| t.0).unwrap_or(asked);
        let life = expires.duration_since(asked);
        // After four fifths of its life, and in any case after a day, so that clocks and outages have room.
        let renew = SignedDuration::from_secs(life.as_secs() * 4 / 5).min(SignedDuration::from_hours(24));
        Ok(Token { text: status.token.unwrap_or_default(), renew_at: asked + renew })
    }

    /// Forgets a pod's tokens.
    pub fn release(&self, pod_uid: &str) {
        self.issued.lock().retain(|key, _| key.pod_uid != pod_uid);
    }
}
