//! Values whose keys a key management service keeps (API v2), by a service over its socket.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use kube1_apiserver::server::{EncryptionOptions, Front};
use kube1_store::{KeyValue, Range};
use prost::Message;
use serde_json::json;
use support::TestServer;
use support::grpc::{self, Answer, GrpcServer};

const MARK: &[u8] = b"k8s:enc:kms:v2:plugin:";

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    healthz: String,
    #[prost(string, tag = "3")]
    key_id: String,
}

/// `EncryptResponse`; also `DecryptRequest`, but for the order of its fields.
#[derive(Clone, PartialEq, prost::Message)]
struct Encrypted {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ToDecrypt {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Plain {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    source: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    kind: i32,
}

/// A service that turns bytes round, by a key of which there is only the number.
#[derive(Default)]
struct Plugin {
    key: AtomicU32,
    encrypted: AtomicU32,
    decrypted: AtomicU32,
}

impl Plugin {
    fn serve(self: &Arc<Self>, socket: &Path) -> GrpcServer {
        let plugin = self.clone();
        grpc::serve(socket, move |path, message| plugin.answer(path, &message))
    }

    fn answer(&self, path: &str, message: &[u8]) -> Answer {
        let key_id = self.key.load(Ordering::SeqCst).to_string();
        let turned = |bytes: &[u8]| bytes.iter().map(|byte| !byte).collect::<Vec<u8>>();
        let annotations = BTreeMap::from([("plugin.example.com".to_owned(), b"x".to_vec())]);
        match path {
            "/v2.KeyManagementService/Status" => {
                Ok(Status { version: "v2".into(), healthz: "ok".into(), key_id }.encode_to_vec())
            }
            "/v2.KeyManagementService/Encrypt" => {
                self.encrypted.fetch_add(1, Ordering::SeqCst);
                let ciphertext = turned(&Plain::decode(message).unwrap().plaintext);
                Ok(Encrypted { ciphertext, key_id, annotations }.encode_to_vec())
            }
            "/v2.KeyManagementService/Decrypt" => {
                self.decrypted.fetch_add(1, Ordering::SeqCst);
                let asked = ToDecrypt::decode(message).unwrap();
                if asked.annotations != annotations || asked.key_id.is_empty() {
                    return Err((3, "incomplete".into()));
                }
                Ok(Plain { plaintext: turned(&asked.ciphertext) }.encode_to_vec())
            }
            _ => Err((12, path.to_owned())),
        }
    }
}

fn front(dir: &Path) -> Front {
    let config_file = dir.join("encryption.yaml");
    write(&config_file, dir, "");
    Front {
        encryption: EncryptionOptions { config_file: Some(config_file), automatic_reload: true },
        ..Front::default()
    }
}

fn write(path: &Path, dir: &Path, before: &str) {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets, '*.example.com']\n  providers:\n{before}  \
         - kms: {{apiVersion: v2, name: plugin, endpoint: 'unix://{}', timeout: 1s}}\n  - identity: {{}}\n",
        dir.join("kms.sock").display()
    );
    std::fs::write(path, text).unwrap();
}

fn secret(name: &str) -> Secret {
    serde_json::from_value(json!({"metadata": {"name": name}, "stringData": {"k": format!("hidden {name}")}})).unwrap()
}

async fn item(server: &TestServer, name: &str) -> KeyValue {
    let key = format!("/registry/core/secrets/default/{name}");
    let page = server.api.server().storage.store().range(Range::key(key.into_bytes())).await.unwrap();
    page.items[0].clone()
}

async fn stored(server: &TestServer, name: &str) -> Stored {
    Stored::decode(item(server, name).await.value.strip_prefix(MARK).unwrap()).unwrap()
}

async fn text(client: &Client, path: &str) -> String {
    let asked = client.request_text(Request::get(path).body(Vec::new()).unwrap()).await;
    asked.unwrap_or_else(|error| error.to_string())
}

/// Asks until the answer is as wanted.
async fn until<T: std::fmt::Debug>(what: &str, mut ask: impl AsyncFnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_kept_by_a_seed_that_the_service_encrypts() {
    let (plugin, socket) = (Arc::new(Plugin::default()), std::cell::RefCell::new(PathBuf::new()));
    let running = std::cell::RefCell::new(None);
    let server = TestServer::start_with(|dir| {
        *socket.borrow_mut() = dir.join("kms.sock");
        *running.borrow_mut() = Some(plugin.serve(&dir.join("kms.sock")));
        front(dir)
    })
    .await;
    let (socket, mut running) = (socket.into_inner(), running.into_inner());
    let admin = server.admin().await;
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), "default");
    for name in ["a", "b", "c"] {
        secrets.create(&PostParams::default(), &secret(name)).await.unwrap();
    }
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), "default");
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "m"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let (a, b) = (stored(&server, "a").await, stored(&server, "b").await);
    assert_eq!((a.kind, a.key_id.as_str(), a.annotations.len()), (1, "0", 1));
    assert_eq!(a.source, b.source, "one seed");
    assert_ne!(a.data[..32], b.data[..32], "of which each value has its own key");
    assert!(!a.data.windows(6).any(|w| w == b"hidden"));
    assert_eq!(plugin.encrypted.load(Ordering::SeqCst), 1);
    assert_eq!(text(&admin, "/livez/kms-providers").await, "ok");
    let metrics = text(&admin, "/metrics").await;
    for line in [
        "apiserver_envelope_encryption_key_id_hash_total{transformation_type=\"to_storage\",provider_name=\"plugin\",key_id_hash=\"sha256:5feceb66",
        "apiserver_envelope_encryption_kms_operations_latency_seconds_count{provider_name=\"plugin\",method_name=\"/v2.KeyManagementService/Encrypt\",grpc_status_code=\"OK\"}",
        "apiserver_envelope_encryption_dek_source_cache_size{provider_name=\"plugin\"} 1",
        "apiserver_storage_transformation_operations_total{resource=\"secrets\",transformation_type=\"to_storage\",transformer_prefix=\"k8s:enc:kms:v2:plugin:\",status=\"OK\"}",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }

    // What another server wrote with a seed of its own is shown once the service has decrypted that.
    let foreign = Stored { source: a.source.iter().rev().copied().collect(), ..a.clone() };
    let before = plugin.decrypted.load(Ordering::SeqCst);
    let key = b"/registry/core/secrets/default/a".to_vec();
    let value = [MARK, &foreign.encode_to_vec()].concat();
    let store = server.api.server().storage.store().clone();
    store.txn(kube1_store::Txn::new().put(key.clone(), value)).await.unwrap();
    let refused = secrets.list(&ListParams::default()).await.unwrap_err().to_string();
    assert!(plugin.decrypted.load(Ordering::SeqCst) > before, "it was asked for the other seed");
    assert!(refused.contains("unable to transform key"), "{refused}");
    let value = [MARK, &a.encode_to_vec()].concat();
    store.txn(kube1_store::Txn::new().put(key, value)).await.unwrap();
    assert_eq!(secrets.get("a").await.unwrap().data.unwrap()["k"].0, b"hidden a");

    // A new key of the service: a new seed for what is written from now on, for unchanged objects too.
    plugin.key.store(7, Ordering::SeqCst);
    let unchanged = secrets.get("a").await.unwrap();
    let again = secrets.replace("a", &PostParams::default(), &unchanged).await.unwrap();
    assert_eq!(again.metadata.resource_version, unchanged.metadata.resource_version, "not known of yet");
    let rotated = async || {
        let _ = text(&admin, "/readyz/kms-providers").await;
        secrets.replace("a", &PostParams::default(), &unchanged).await.unwrap();
        stored(&server, "a").await.key_id
    };
    until("rotation", rotated, |id| id == "7").await;

    // After a restart without the service nothing is told of secrets, and all else goes on.
    running.take();
    drop(store);
    let dir = server.stop().await;
    let file = dir.path().join("encryption.yaml");
    let server = TestServer::start_at(dir, front).await;
    let admin = server.admin().await;
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), "default");
    let refused = secrets.get("b").await.unwrap_err().to_string();
    assert!(refused.contains("unable to transform key") && refused.contains("failed to decrypt DEK"), "{refused}");
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), "default");
    maps.get("m").await.unwrap();
    let ill = text(&admin, "/livez/kms-providers").await;
    assert!(ill.contains("failed to perform status section of the healthz check for KMS Provider plugin"), "{ill}");
    let before = plugin.decrypted.load(Ordering::SeqCst);
    let _running = plugin.serve(&socket);
    let back = until("the service is back", async || secrets.get("b").await, Result::is_ok).await.unwrap();
    assert_eq!(back.data.unwrap()["k"].0, b"hidden b");
    assert_eq!(secrets.list(&ListParams::default()).await.unwrap().items.len(), 3);
    assert_eq!(plugin.decrypted.load(Ordering::SeqCst) - before, 2, "once for each seed");
    until("writes", async || secrets.create(&PostParams::default(), &secret("d")).await, Result::is_ok).await.unwrap();

    // Another provider takes over; what the service kept is read on.
    let keys = "  - aesgcm: {keys: [{name: k, secret: AQEBAQEBAQEBAQEBAQEBAQ==}]}\n";
    write(&file, server.dir(), keys);
    let rewritten = async || {
        let now = secrets.get("b").await.unwrap();
        secrets.replace("b", &PostParams::default(), &now).await.unwrap();
        item(&server, "b").await.value
    };
    until("reload", rewritten, |value| value.starts_with(b"k8s:enc:aesgcm:v1:k:")).await;
    assert_eq!(secrets.get("c").await.unwrap().data.unwrap()["k"].0, b"hidden c");
    server.stop().await;
}
