//! What extension API servers say of themselves in OpenAPI, for the documents of this server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use http::StatusCode;
use http::header::{ETAG, IF_NONE_MATCH};
use kube1_api::openapi::Extension;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha512};

use super::RemoteService;
use super::discovery::{TIMEOUT, ask};
use super::route::{all, is_available};
use crate::http::body::BoxError;
use crate::server::Server;

/// How long a document is used before the server is asked whether it has another, as upstream does.
const FRESH: Duration = Duration::from_secs(60);
/// How long a server that failed is left alone, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const USER: &str = "system:aggregator";

/// Documents of extension API servers, by group version.
#[derive(Default)]
pub struct RemoteOpenApi {
    known: Mutex<HashMap<String, Known>>,
}

/// The last good answers of a server; they stay while it fails.
#[derive(Clone, Default)]
struct Known {
    /// Who was asked.
    service: Option<RemoteService>,
    next: Option<Instant>,
    failures: u32,
    v2: Option<Document>,
    /// Where its document of version 3 is.
    v3: Option<String>,
}

#[derive(Clone)]
struct Document {
    etag: String,
    hash: String,
    extension: Arc<Extension>,
}

/// What all extension servers say at the moment.
#[derive(Default)]
pub struct Described {
    /// Stands for all of version 2.
    pub hash: String,
    pub v2: Vec<Arc<Extension>>,
    /// Paths such as `apis/GROUP/VERSION`, and the URLs of their documents of version 3.
    pub v3: Vec<(String, String)>,
}

impl RemoteOpenApi {
    /// Asks those servers again whose answers are not fresh.
    pub async fn described(&self, server: &Arc<Server>) -> Described {
        let mut services = all(server);
        services.sort_by_cached_key(|(service, _)| key(service));
        let keys: Vec<String> = services.iter().map(|(service, _)| key(service)).collect();
        self.known.lock().retain(|known, _| keys.contains(known));
        let asked = services.iter().filter(|(_, object)| is_available(object));
        join_all(asked.map(|(service, _)| self.refresh(server, service))).await;
        let known = self.known.lock();
        let mut described = Described::default();
        for key in keys {
            let Some(known) = known.get(&key) else { continue };
            if let Some(document) = &known.v2 {
                described.hash.push_str(&document.hash);
                described.v2.push(document.extension.clone());
            }
            described.v3.extend(known.v3.clone().map(|url| (format!("apis/{key}"), url)));
        }
        described
    }

    async fn refresh(&self, server: &Arc<Server>, service: &RemoteService) {
        let mut known = self.known.lock().get(&key(service)).cloned().unwrap_or_default();
        let moved = known.service.as_ref() != Some(service);
        if !moved && known.next.is_some_and(|next| Instant::now() < next) {
            return;
        }
        match tokio::time::timeout(TIMEOUT, known.ask(server, service)).await {
            Ok(Ok(())) => {
                known.failures = 0;
                known.next = Some(Instant::now() + FRESH);
            }
            failed => {
                let wait = BACK_OFF.0.saturating_mul(1 << known.failures.min(10)).min(BACK_OFF.1);
                known.failures += 1;
                known.next = Some(Instant::now() + wait);
                let problem = failed.map_or("it did not answer in time".to_owned(), |r| format!("{:?}", r.err()));
                tracing::debug!(problem, service = key(service), "an extension server's OpenAPI cannot be had");
            }
        }
        known.service = Some(service.clone());
        self.known.lock().insert(key(service), known);
    }
}

impl Known {
    async fn ask(&mut self, server: &Arc<Server>, service: &RemoteService) -> Result<(), BoxError> {
        let held = self.v2.as_ref().map(|document| (IF_NONE_MATCH, document.etag.as_str()));
        let answer = ask(server, service, "/openapi/v2", USER, held).await?;
        match answer.status() {
            StatusCode::NOT_MODIFIED => {}
            StatusCode::OK => {
                let header = answer.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
                let hash = hex::encode_upper(Sha512::digest(answer.body()));
                let document: Value = serde_json::from_slice(answer.body())?;
                let extension = Arc::new(Extension::of(document, &service.group, &service.version));
                let etag = header.map_or_else(|| format!("\"{hash}\""), str::to_owned);
                self.v2 = Some(Document { etag, hash, extension });
            }
            // It does not describe itself.
            StatusCode::NOT_FOUND | StatusCode::NOT_ACCEPTABLE => self.v2 = None,
            code => return Err(format!("it answered {code}").into()),
        }
        let answer = ask(server, service, "/openapi/v3", USER, None).await?;
        self.v3 = root_url(&answer, service);
        Ok(())
    }
}

/// Where the document of the service's group version is, if the server has one.
fn root_url(answer: &http::Response<Bytes>, service: &RemoteService) -> Option<String> {
    if answer.status() != StatusCode::OK {
        return None;
    }
    let root: Value = serde_json::from_slice(answer.body()).ok()?;
    Some(root["paths"].get(format!("apis/{}", key(service)))?["serverRelativeURL"].as_str()?.to_owned())
}

fn key(service: &RemoteService) -> String {
    format!("{}/{}", service.group, service.version)
}
