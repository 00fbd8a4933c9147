//! Messages of OTLP (`opentelemetry.proto.collector.trace.v1`), as far as they are sent.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Attribute, Ended, Value};

pub const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const SCOPE: &str = "kube1";
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const ERROR: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub error_message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Scope {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(int32, tag = "6")]
    pub kind: i32,
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "13")]
    pub links: Vec<Link>,
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Link {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    #[prost(int32, tag = "3")]
    pub code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// One of these.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnyValue {
    #[prost(string, optional, tag = "1")]
    pub string_value: Option<String>,
    #[prost(int64, optional, tag = "3")]
    pub int_value: Option<i64>,
}

pub fn text(key: &str, value: &str) -> KeyValue {
    attribute((key, Value::from(value)))
}

fn attribute((key, value): (&str, Value)) -> KeyValue {
    let value = match value {
        Value::Text(text) => AnyValue { string_value: Some(text), int_value: None },
        Value::Number(number) => AnyValue { string_value: None, int_value: Some(number) },
    };
    KeyValue { key: key.to_owned(), value: Some(value) }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

impl Span {
    pub fn new(ended: Ended) -> Self {
        let link = ended.link.map(|link| Link { trace_id: link.trace.to_vec(), span_id: link.span.to_vec() });
        Self {
            trace_id: ended.context.trace.to_vec(),
            span_id: ended.context.span.to_vec(),
            parent_span_id: ended.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
            name: ended.name.into_owned(),
            kind: if ended.server { SERVER } else { INTERNAL },
            start_time_unix_nano: nanoseconds(ended.start),
            end_time_unix_nano: nanoseconds(ended.end),
            attributes: ended.attributes.into_iter().map(|(key, value): Attribute| attribute((key, value))).collect(),
            links: link.into_iter().collect(),
            status: Some(Status { code: if ended.failed { ERROR } else { 0 } }),
        }
    }
}

/// The spans of one service.
pub fn request(resource: &Resource, spans: Vec<Span>) -> ExportRequest {
    let scope = Some(Scope { name: SCOPE.to_owned() });
    let scope_spans = vec![ScopeSpans { scope, spans }];
    ExportRequest { resource_spans: vec![ResourceSpans { resource: Some(resource.clone()), scope_spans }] }
}
