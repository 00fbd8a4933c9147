//! Servers beside this one: an extension API server, and a webhook that converts custom resources.

#![allow(clippy::unwrap_used)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use http::{Method, Request};
use kube::ResourceExt;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use support::TestServer;
use support::neighbour::serve;
use support::wire::Wire;

/// An address of this machine that others could use: no endpoint may have a loopback address.
fn own_address() -> std::net::IpAddr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: the kernel only chooses the way.
    socket.connect("192.0.2.1:9").expect("the machine has a route to somewhere");
    socket.local_addr().unwrap().ip()
}

fn resource(api_version: &str, kind: &str, plural: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

async fn create(client: &kube::Client, plural: &str, object: Value) -> DynamicObject {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = resource(&text(&object["apiVersion"]), &text(&object["kind"]), plural);
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &row),
        None => Api::all_with(client.clone(), &row),
    };
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

async fn until<T, F: Future<Output = Option<T>>>(mut found: impl FnMut() -> F) -> T {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "waited too long");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn fruits(method: &Method, path: &str, user: &str, _: Value) -> Value {
    assert!(matches!(*method, Method::GET | Method::HEAD));
    match path {
        "/apis/fruit.example.com/v1" => {
            assert_eq!(user, "system:kube-aggregator", "it is asked by somebody whom it may know");
            json!({"kind": "APIResourceList", "apiVersion": "v1",
                "groupVersion": "fruit.example.com/v1", "resources": [{"name": "apples", "singularName": "apple",
                "namespaced": true, "kind": "Apple", "verbs": ["list"]}]})
        }
        "/openapi/v2" => {
            let schema = json!({"$ref": "#/definitions/com.example.fruit.Apple"});
            let get = json!({"get": {"operationId": "getApple", "responses": {"200": {"description": "OK", "schema": schema}}}});
            let kind = json!([{"group": "fruit.example.com", "version": "v1", "kind": "Apple"}]);
            json!({"swagger": "2.0", "paths": {"/apis/fruit.example.com/v1/apples": get, "/version": {}},
                "definitions": {"com.example.fruit.Apple": {"description": "keeps doctors away", "type": "object",
                    "x-kubernetes-group-version-kind": kind}}})
        }
        "/openapi/v3" => json!({"paths": {"apis/fruit.example.com/v1": {
            "serverRelativeURL": "/openapi/v3/apis/fruit.example.com/v1?hash=1"}}}),
        "/openapi/v3/apis/fruit.example.com/v1" => json!({"openapi": "3.0.0", "info": {"title": "fruit"}}),
        _ => json!({"kind": "AppleList", "apiVersion": "fruit.example.com/v1", "metadata": {}, "items": [
            {"apiVersion": "fruit.example.com/v1", "kind": "Apple", "metadata": {"name": user}}]}),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_server_answers_for_its_group() {
    let server = TestServer::start().await;
    let client = server.admin().await;
    let address = serve(&server, "fruit.default.svc", fruits).await;
    create(
        &client,
        "services",
        json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "fruit", "namespace": "default"}, "spec": {"ports": [{"port": 443}]}}),
    )
    .await;
    create(
        &client,
        "endpointslices",
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "fruit-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "fruit"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [own_address().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "", "port": address.port(), "protocol": "TCP"}]}),
    )
    .await;
    let ca = STANDARD.encode(server.pki.ca.certificate_pem());
    create(
        &client,
        "apiservices",
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1.fruit.example.com"}, "spec": {"group": "fruit.example.com", "version": "v1",
        "groupPriorityMinimum": 17900, "versionPriority": 10, "caBundle": ca,
        "service": {"name": "fruit", "namespace": "default"}}}),
    )
    .await;
    let apples: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), "default", &resource("fruit.example.com/v1", "Apple", "apples"));
    let list = until(|| async { apples.list(&ListParams::default()).await.ok() }).await;
    assert_eq!(list.items[0].metadata.name.as_deref(), Some("kubernetes-admin"), "the user is passed on");
    let groups = client.list_api_groups().await.unwrap();
    let place = |name: &str| groups.groups.iter().position(|g| g.name == name);
    assert!(place("fruit.example.com").unwrap() < place("apps").unwrap(), "the more important group comes first");
    let read =
        async |path: &str| -> Value { client.request(Request::get(path).body(Vec::new()).unwrap()).await.unwrap() };
    let documents = read("/openapi/v3").await;
    let url = documents["paths"]["apis/fruit.example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert_eq!(url, "/openapi/v3/apis/fruit.example.com/v1?hash=1", "its own hash is passed on");
    assert_eq!(read(&url).await["info"]["title"], "fruit", "it describes itself");
    let wire = Wire(client);
    let head = wire.send("HEAD", "/apis/fruit.example.com/v1/namespaces/default/apples", &[], "").await;
    assert_eq!(head.code, 200, "what it answers to is its own affair");
    let (merged, again) = (wire.get("/openapi/v2").await, wire.get("/openapi/v2").await);
    assert_eq!(merged.header("etag"), again.header("etag"));
    let document = merged.value();
    assert!(document["paths"]["/apis/fruit.example.com/v1/apples"]["get"].is_object());
    assert!(document["paths"]["/api/v1/pods"].is_object() && document["paths"]["/version/"]["get"].is_object());
    assert_eq!(document["definitions"]["com.example.fruit.Apple"]["description"], "keeps doctors away");
    let media = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let packed = wire.send("GET", "/openapi/v2", &[("accept", media)], "").await;
    assert!(packed.bytes.windows(18).any(|bytes| bytes == b"keeps doctors away"));
    let known = [("if-none-match", merged.header("etag"))];
    assert_eq!(wire.send("GET", "/openapi/v2", &known, "").await.code, 304);
    let services = "/apis/apiregistration.k8s.io/v1/apiservices/v1.fruit.example.com";
    // Sooner than by looking again, which is done twice a minute.
    wire.send("DELETE", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/fruit-1", &[], "").await.ok();
    let condition = until(|| async {
        let object = wire.get(services).await.value();
        Some(object["status"]["conditions"][0].clone()).filter(|condition| condition["status"] == "False")
    });
    let condition = condition.await;
    assert_eq!(condition["reason"], "MissingEndpoints");
    assert_eq!(condition["message"], "endpoints for service/fruit in \"default\" have no addresses");
    let stale = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let groups = wire.send("GET", "/apis", &[("accept", stale)], "").await.value();
    let group =
        groups["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == "fruit.example.com").unwrap();
    assert_eq!(group["versions"][0]["freshness"], "Stale");
    wire.send("DELETE", services, &[], "").await.ok();
    let without = wire.send("GET", "/openapi/v2", &known, "").await;
    assert_eq!((without.code, without.value()["paths"].get("/apis/fruit.example.com/v1/apples")), (200, None));
    server.stop().await;
}

/// Version 2 calls the size by another name.
fn convert(_: &Method, _: &str, _: &str, review: Value) -> Value {
    let request = &review["request"];
    let objects = request["objects"].as_array().unwrap().iter().map(|object| {
        let mut object = object.clone();
        object["apiVersion"] = request["desiredAPIVersion"].clone();
        let spec = object["spec"].as_object_mut().unwrap();
        let (from, to) = if spec.contains_key("size") { ("size", "width") } else { ("width", "size") };
        let value = spec.remove(from).unwrap();
        spec.insert(to.into(), value);
        object
    });
    json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": {"uid": request["uid"],
        "result": {"status": "Success"}, "convertedObjects": objects.collect::<Vec<_>>()}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_converts_between_versions() {
    let server = TestServer::start().await;
    let client = server.admin().await;
    let address = serve(&server, "converter", convert).await;
    let version = |name: &str, member: &str, storage: bool| {
        let spec = json!({"type": "object", "properties": {member: {"type": "integer"}}});
        json!({"name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
            "selectableFields": [{"jsonPath": format!(".spec.{member}")}]})
    };
    let client_config = json!({"url": format!("https://127.0.0.1:{}/convert", address.port()),
        "caBundle": STANDARD.encode(server.pki.ca.certificate_pem())});
    create(
        &client,
        "customresourcedefinitions",
        json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boxes.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "boxes", "singular": "box", "kind": "Box", "listKind": "BoxList"},
            "versions": [version("v1", "size", true), version("v2", "width", false)],
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": client_config,
                "conversionReviewVersions": ["v1"]}}}}),
    )
    .await;
    let boxes = |version: &str| -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), "default", &resource(&format!("example.com/{version}"), "Box", "boxes"))
    };
    let new: DynamicObject = serde_json::from_value(json!({"apiVersion": "example.com/v2", "kind": "Box",
        "metadata": {"name": "b"}, "spec": {"width": 3}}))
    .unwrap();
    let (v1, v2) = (boxes("v1"), boxes("v2"));
    let made = until(|| async { v2.create(&PostParams::default(), &new).await.ok() }).await;
    assert_eq!(made.data["spec"], json!({"width": 3}));
    assert_eq!(v1.get("b").await.unwrap().data["spec"], json!({"size": 3}), "stored in version 1");
    assert_eq!(v2.list(&ListParams::default()).await.unwrap().items[0].data["spec"], json!({"width": 3}));

    let listed = v2.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let wide = |width: u8| format!("spec.width={width}");
    let watch = v2.watch(&WatchParams::default().fields(&wide(3)), &listed).await.unwrap();
    let other =
        DynamicObject { metadata: ObjectMeta { name: Some("c".into()), ..ObjectMeta::default() }, ..new.clone() };
    v2.create(&PostParams::default(), &other).await.unwrap();
    let all = v2.list(&ListParams::default().fields(&wide(3)).limit(1)).await.unwrap();
    assert_eq!((all.items.len(), all.metadata.continue_.is_some()), (1, true));
    let token = all.metadata.continue_.unwrap();
    let rest = v2.list(&ListParams::default().fields(&wide(3)).limit(1).continue_token(&token)).await.unwrap();
    assert_eq!((rest.items[0].name_any(), rest.metadata.continue_.unwrap_or_default()), ("c".into(), String::new()));
    assert!(v2.list(&ListParams::default().fields(&wide(4))).await.unwrap().items.is_empty());
    assert_eq!(v1.list(&ListParams::default().fields("spec.size=3")).await.unwrap().items.len(), 2);
    for (name, width) in [("b", 4), ("c", 5), ("b", 3)] {
        let patch = Patch::Merge(json!({"spec": {"width": width}}));
        v2.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }
    v2.delete("b", &DeleteParams::default()).await.unwrap();
    let seen: Vec<_> = watch.take(5).map(Result::unwrap).collect().await;
    let seen = seen.iter().map(|event| match event {
        WatchEvent::Added(o) => ("added", o.name_any(), o.data["spec"]["width"].clone()),
        WatchEvent::Deleted(o) => ("deleted", o.name_any(), o.data["spec"]["width"].clone()),
        other => panic!("{other:?}"),
    });
    let expected = [("added", "c"), ("deleted", "b"), ("deleted", "c"), ("added", "b"), ("deleted", "b")];
    let expected = expected.map(|(kind, name)| (kind, name.to_owned(), json!(3)));
    assert_eq!(seen.collect::<Vec<_>>(), expected, "what the selector sees is the converted form");
    server.stop().await;
}
