//! What is in the store, and how keys are exchanged while the server runs.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, PostParams};
use kube1_apiserver::server::{EncryptionOptions, Front};
use kube1_store::Range;
use serde_json::json;
use support::TestServer;

/// Thirty-two bytes in base64.
const OLD: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const NEW: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

fn write(path: &Path, providers: &str) {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - {{resources: [secrets], providers: [{providers}, {{identity: {{}}}}]}}\n"
    );
    std::fs::write(path, text).unwrap();
}

async fn stored(server: &TestServer, key: &str) -> String {
    let page = server.api.server().storage.store().range(Range::key(key.as_bytes().to_vec())).await.unwrap();
    String::from_utf8_lossy(&page.items[0].value).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_takes_over_with_the_next_write() {
    let path = std::cell::RefCell::new(PathBuf::new());
    let server = TestServer::start_with(|dir| {
        let file = dir.join("encryption.yaml");
        write(&file, &format!("{{secretbox: {{keys: [{{name: old, secret: {OLD}}}]}}}}"));
        *path.borrow_mut() = file.clone();
        let encryption = EncryptionOptions { config_file: Some(file), automatic_reload: true };
        Front { encryption, ..Front::default() }
    })
    .await;
    let path = path.into_inner();
    let admin = server.admin().await;
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), "default");
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"k": "hidden"}})).unwrap();
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), "default");
    maps.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "m"}})).unwrap())
        .await
        .unwrap();
    let key = "/registry/core/secrets/default/s";
    assert!(stored(&server, key).await.starts_with("k8s:enc:secretbox:v1:old:"));
    assert!(stored(&server, "/registry/core/configmaps/default/m").await.starts_with('{'));

    // Writing the same again is no change, as long as the key is the same.
    let unchanged = secrets.get("s").await.unwrap();
    let again = secrets.replace("s", &PostParams::default(), &unchanged).await.unwrap();
    assert_eq!(again.metadata.resource_version, unchanged.metadata.resource_version);
    write(
        &path,
        &format!(
            "{{aesgcm: {{keys: [{{name: new, secret: {NEW}}}]}}}}, {{secretbox: {{keys: [{{name: old, secret: {OLD}}}]}}}}"
        ),
    );
    let counter = r#"apiserver_encryption_config_controller_automatic_reloads_total{status="success","#;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let text = admin.request_text(Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
        if text.lines().any(|line| line.starts_with(counter) && line.ends_with(" 1")) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(secrets.get("s").await.unwrap().data.unwrap()["k"].0, b"hidden");
    secrets.replace("s", &PostParams::default(), &again).await.unwrap();
    assert!(stored(&server, key).await.starts_with("k8s:enc:aesgcm:v1:new:"));
    server.stop().await;
}
