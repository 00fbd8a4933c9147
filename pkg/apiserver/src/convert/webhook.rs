//! Conversion of custom resources by the webhook that their definition names.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use serde_json::{Value, json};

use crate::dial::{self, Address, Resolver, Target, Trust};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Brings objects to the API version `wanted`; those that are of it already are left alone.
pub async fn convert(
    resolver: &Resolver,
    row: &Resource,
    wanted: &str,
    objects: Vec<Value>,
) -> Result<Vec<Value>, Status> {
    let Some(hook) = &row.conversion else { return Ok(objects) };
    let foreign: Vec<usize> = (0..objects.len()).filter(|i| objects[*i]["apiVersion"] != wanted).collect();
    if foreign.is_empty() {
        return Ok(objects);
    }
    let asked: Vec<&Value> = foreign.iter().map(|i| &objects[*i]).collect();
    let failed = |why: String| {
        Status::internal(format!("conversion webhook for {}, Kind={} failed: {why}", row.api_version(), row.kind))
    };
    let converted = ask(resolver, hook, wanted, &asked).await.map_err(failed)?;
    if converted.len() != foreign.len() {
        return Err(failed(format!("{} objects came back for {}", converted.len(), foreign.len())));
    }
    let mut objects = objects;
    for (index, new) in foreign.into_iter().zip(converted) {
        objects[index] = checked(&objects[index], new, wanted).map_err(failed)?;
    }
    Ok(objects)
}

async fn ask(resolver: &Resolver, hook: &Value, wanted: &str, objects: &[&Value]) -> Result<Vec<Value>, String> {
    let versions = hook["conversionReviewVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let version = versions.into_iter().find(|v| matches!(*v, "v1" | "v1beta1")).unwrap_or("v1");
    let uid = uuid::Uuid::new_v4().to_string();
    let review = json!({"kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects}});
    let (target, path) = target(resolver, &hook["clientConfig"])?;
    let answer = dial::post(&target, &path, review.to_string().into(), TIMEOUT).await.map_err(|e| e.with_cause())?;
    if !answer.status.is_success() {
        return Err(format!("the server answered {}", answer.status));
    }
    let mut answer: Value = serde_json::from_slice(&answer.body).map_err(|e| format!("the answer is no JSON: {e}"))?;
    let response = &mut answer["response"];
    if response["uid"] != uid.as_str() {
        return Err("the answer is to another question".into());
    }
    if response["result"]["status"] != "Success" {
        return Err(response["result"]["message"].as_str().unwrap_or("no reason given").to_owned());
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Err("the answer holds no objects".into()),
    }
}

fn target(resolver: &Resolver, client: &Value) -> Result<(Target, String), String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rooted = |path: String| if path.starts_with('/') { path } else { format!("/{path}") };
    let trust = Trust::bundle(STANDARD.decode(text(&client["caBundle"])).unwrap_or_default());
    if let Some(url) = client["url"].as_str() {
        let uri: http::Uri = url.parse().map_err(|e| format!("the URL \"{url}\" is malformed: {e}"))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let address = Address::Host(host.clone(), uri.port_u16().unwrap_or(443));
        return Ok((Target { address, server_name: host, trust, identity: None }, rooted(uri.path().to_owned())));
    }
    let service = &client["service"];
    let (namespace, name) = (text(&service["namespace"]), text(&service["name"]));
    let port = service["port"].as_u64().unwrap_or(443).to_string();
    let address = resolver.endpoint(&namespace, &name, &port).map_err(|e| e.to_string())?;
    let target =
        Target { address: address.into(), server_name: format!("{name}.{namespace}.svc"), trust, identity: None };
    Ok((target, rooted(text(&service["path"]))))
}

/// A webhook may change everything but the identity of an object.
pub(crate) fn checked(old: &Value, mut new: Value, wanted: &str) -> Result<Value, String> {
    if new["apiVersion"] != wanted || new["kind"] != old["kind"] {
        return Err(format!("an object came back as {} of {}", new["kind"], new["apiVersion"]));
    }
    for member in ["name", "namespace", "uid"] {
        if new["metadata"][member] != old["metadata"][member] {
            return Err(format!("metadata.{member} was changed"));
        }
    }
    // Of metadata only labels and annotations are the webhook's to change.
    let mut metadata = old["metadata"].clone();
    for member in ["labels", "annotations"] {
        match new["metadata"].get(member) {
            Some(value) => metadata[member] = value.clone(),
            None => drop(metadata.as_object_mut().and_then(|m| m.remove(member))),
        }
    }
    new["metadata"] = metadata;
    Ok(new)
}
