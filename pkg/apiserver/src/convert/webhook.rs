//! Conversion of custom resources by the webhook that their definition names.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube1_api::field::FieldError;
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use kube1_api::validate::validate_metadata;
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
    let subject = format!("conversion webhook for {}, Kind={}", text(&asked[0]["apiVersion"]), row.kind);
    let failed = |why: String| Status::failure(format!("{subject} {why}"));
    let converted = ask(resolver, hook, wanted, &asked).await.map_err(|why| failed(format!("failed: {why}")))?;
    if converted.len() != foreign.len() {
        return Err(failed(format!("returned {} objects, expected {}", converted.len(), foreign.len())));
    }
    let schema = wanted.rsplit_once('/').and_then(|(_, version)| row.version_schemas.get(version));
    let mut objects = objects;
    for (index, new) in foreign.into_iter().zip(converted) {
        let mut new = checked(row, &objects[index], new, wanted).map_err(|why| failed(format!("returned {why}")))?;
        if let Some(schema) = schema {
            schema.prune(&mut new);
        }
        objects[index] = new;
    }
    Ok(objects)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

async fn ask(resolver: &Resolver, hook: &Value, wanted: &str, objects: &[&Value]) -> Result<Vec<Value>, String> {
    let versions = hook["conversionReviewVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let version = versions.into_iter().find(|v| matches!(*v, "v1" | "v1beta1")).unwrap_or("v1");
    let uid = uuid::Uuid::new_v4().to_string();
    let review = json!({"kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects}});
    let (target, path) = target(resolver, &hook["clientConfig"])?;
    let answer = dial::post(&target, &path, review.to_string().into(), TIMEOUT).await.map_err(|e| e.with_cause())?;
    match answer.status.as_u16() {
        200..300 => {}
        404 => return Err("the server could not find the requested resource".into()),
        500.. => return Err("an error on the server (\"unknown\") has prevented the request from succeeding".into()),
        code => {
            return Err(format!(
                "the server responded with the status code {code} but did not return more information"
            ));
        }
    }
    let answer: Value = serde_json::from_slice(&answer.body)
        .map_err(|e| format!("couldn't get version/kind; json parse error: {e}"))?;
    response(answer, version, &uid)
}

/// The objects of an answer. In the old version upstream looked neither at its kind nor at its uid.
fn response(mut answer: Value, version: &str, uid: &str) -> Result<Vec<Value>, String> {
    let (api_version, kind) = (text(&answer["apiVersion"]), text(&answer["kind"]));
    let wanted = format!("apiextensions.k8s.io/{version}");
    if version == "v1" && (api_version != wanted || kind != "ConversionReview") {
        let found = if api_version.is_empty() { "/" } else { api_version };
        return Err(format!("expected webhook response of {wanted}, Kind=ConversionReview, got {found}, Kind={kind}"));
    }
    let Some(response) = answer.get_mut("response").filter(|response| response.is_object()) else {
        return Err("no response provided".into());
    };
    if version == "v1" && response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", text(&response["uid"])));
    }
    let (status, message) = (text(&response["result"]["status"]), text(&response["result"]["message"]));
    if status != "Success" {
        return Err(match message {
            "" => format!("response.result.status was '{status}', not 'Success'"),
            message => message.to_owned(),
        });
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

fn target(resolver: &Resolver, client: &Value) -> Result<(Target, String), String> {
    let text = |value: &Value| text(value).to_owned();
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

/// A webhook may change everything but the identity of an object; of its metadata only labels and annotations.
pub(crate) fn checked(row: &Resource, old: &Value, mut new: Value, wanted: &str) -> Result<Value, String> {
    let invalid = |what: &str, expected: &str, received: &str| {
        Err(format!("invalid object at index 0: invalid {what} (expected {expected}, received {received})"))
    };
    if new["apiVersion"] != wanted {
        return invalid("groupVersion", wanted, text(&new["apiVersion"]));
    }
    if new["kind"] != old["kind"] {
        return invalid("kind", text(&old["kind"]), text(&new["kind"]));
    }
    for (member, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (before, after) = (text(&old["metadata"][member]), text(&new["metadata"][member]));
        if before != after {
            return Err(format!("invalid object: must have the same {name}: {before} != {after}"));
        }
    }
    let mut metadata = old["metadata"].clone();
    for member in ["labels", "annotations"] {
        match new["metadata"].get(member).filter(|value| !value.is_null()) {
            Some(value) => metadata[member] = texts(member, value).map_err(|why| format!("invalid metadata: {why}"))?,
            None => drop(metadata.as_object_mut().and_then(|m| m.remove(member))),
        }
    }
    new["metadata"] = metadata;
    let told =
        |error: &FieldError| error.field.starts_with("metadata.labels") || error.field.starts_with("metadata.anno");
    let errors = validate_metadata(row, &new, Some(old)).into_iter().filter(told);
    let errors: Vec<String> = errors.map(|error| error.to_string()).collect();
    match &errors[..] {
        [] => Ok(new),
        [one] => Err(format!("invalid metadata: {one}")),
        many => Err(format!("invalid metadata: [{}]", many.join(", "))),
    }
}

fn texts(member: &str, value: &Value) -> Result<Value, String> {
    let Some(members) = value.as_object() else {
        return Err(format!("invalid metadata.{member} in converted object"));
    };
    match members.iter().find(|(_, value)| !value.is_string()) {
        Some((key, _)) => Err(format!("metadata.{member}[{key}] must be a string in converted object")),
        None => Ok(value.clone()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use kube1_api::resource::CustomResource;

    use super::*;

    #[test]
    fn answers_are_looked_at() {
        let good = json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": {"uid": "u",
            "result": {"status": "Success"}, "convertedObjects": [1]}});
        for (pointer, value, expected) in [
            ("/kind", json!("ConversionReview"), Ok(vec![json!(1)])),
            ("/kind", json!("X"), {
                Err(
                    "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got apiextensions.k8s.io/v1, Kind=X",
                )
            }),
            ("/response", Value::Null, Err("no response provided")),
            ("/response/uid", json!("v"), Err("expected response.uid=\"u\", got \"v\"")),
            (
                "/response/result",
                json!({"status": "Failed"}),
                Err("response.result.status was 'Failed', not 'Success'"),
            ),
            ("/response/result", json!({"status": "Failed", "message": "no"}), Err("no")),
            ("/response/convertedObjects", Value::Null, Ok(vec![])),
        ] {
            let mut answer = good.clone();
            *answer.pointer_mut(pointer).unwrap() = value;
            assert_eq!(response(answer, "v1", "u"), expected.map_err(str::to_owned), "{pointer}");
        }
    }

    #[test]
    fn converted_objects_stay_who_they_are() {
        let row = Resource::from(CustomResource { group: "x.io".into(), kind: "K".into(), ..Default::default() });
        let old = json!({"apiVersion": "x.io/v1", "kind": "K", "metadata": {"name": "a", "namespace": "n", "uid": "u", "generation": 3}});
        let with = |member: &str, value: Value| {
            let mut new = old.clone();
            new["apiVersion"] = "x.io/v2".into();
            new["metadata"][member] = value;
            checked(&row, &old, new, "x.io/v2")
        };
        assert_eq!(checked(&row, &old, old.clone(), "x.io/v2").unwrap_err(), {
            "invalid object at index 0: invalid groupVersion (expected x.io/v2, received x.io/v1)"
        });
        assert_eq!(with("name", "b".into()).unwrap_err(), "invalid object: must have the same name: a != b");
        assert_eq!(with("generation", 9.into()).unwrap()["metadata"]["generation"], 3);
        assert_eq!(with("labels", json!({"a": "b"})).unwrap()["metadata"]["labels"], json!({"a": "b"}));
        for bad in [json!({"a": 5}), json!({"-": "v"}), json!("x")] {
            assert!(with("labels", bad.clone()).unwrap_err().starts_with("invalid metadata: "), "{bad}");
        }
    }
}
