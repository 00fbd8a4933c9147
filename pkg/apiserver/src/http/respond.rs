//! Responses: JSON, text and Status.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use kube1_api::codec::{write_json, write_json_as};
use serde_json::{Value, json};

use super::body::ResponseBody;

/// A response of the pipeline.
pub type Reply = Response<ResponseBody>;

pub const JSON: &str = "application/json";
pub const TEXT: &str = "text/plain; charset=utf-8";

/// A response with a complete body.
pub fn bytes(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(ResponseBody::Full(body.into()));
    *reply.status_mut() = code;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

pub fn text(code: StatusCode, body: impl Into<String>) -> Reply {
    bytes(code, TEXT, body.into())
}

pub fn json(code: StatusCode, body: &Value) -> Reply {
    let mut text = Vec::with_capacity(512);
    write_json(&mut text, body);
    text.push(b'\n');
    bytes(code, JSON, text)
}

/// A document whose members come in this order.
pub fn json_as(body: &Value, members: &[&str]) -> Reply {
    let mut text = Vec::with_capacity(512);
    write_json_as(&mut text, body, members);
    bytes(StatusCode::OK, JSON, text)
}

/// The answer to what is no API path at all.
pub fn page_not_found() -> Reply {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A Status object that reports success.
pub fn success_status(name: &str, group: &str, resource: &str, uid: &str) -> Value {
    let mut details = serde_json::Map::new();
    for (key, value) in [("name", name), ("group", group), ("kind", resource), ("uid", uid)] {
        if !value.is_empty() {
            details.insert(key.into(), value.into());
        }
    }
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if !details.is_empty() {
        status["details"] = details.into();
    }
    status
}
