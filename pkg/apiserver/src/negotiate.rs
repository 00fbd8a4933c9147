//! Which representation a request is in and which one its answer should have.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use kube1_api::status::Status;

use crate::query::Query;

/// How objects are written on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

/// What is shown of objects. The text is the version of `meta.k8s.io`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    #[default]
    Object,
    Table(&'static str),
    /// PartialObjectMetadata, or a list of them.
    Metadata(&'static str),
}

/// The representation chosen for an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    pub format: Format,
    pub view: View,
    /// JSON is indented.
    pub pretty: bool,
}

/// What a handler can answer with.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub protobuf: bool,
    pub table: bool,
    /// The answer is a list, whose metadata view has another kind.
    pub list: bool,
}

impl Format {
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    fn parse(media: &str) -> Option<Self> {
        match media {
            "application/json" | "*/*" | "application/*" => Some(Self::Json),
            "application/yaml" => Some(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }
}

/// One clause of an Accept header.
#[derive(Debug)]
pub struct Clause<'a> {
    pub media: &'a str,
    params: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().filter(|m| !m.is_empty())?;
        let params: Vec<(&str, &str)> =
            parts.filter_map(|p| p.split_once('=')).map(|(k, v)| (k.trim(), v.trim().trim_matches('"'))).collect();
        let quality = params.iter().find(|(k, _)| *k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
        Some(Self { media, params, quality })
    }

    pub fn param(&self, key: &str) -> Option<&'a str> {
        self.params.iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
    }
}

/// The clauses of the Accept header, best first.
pub fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let texts = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let mut clauses: Vec<Clause> = texts.flat_map(|t| t.split(',')).filter_map(Clause::parse).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

/// Chooses the representation of an answer; 406 when nothing that is accepted is offered.
pub fn accept(headers: &HeaderMap, query: &Query, offer: Offer) -> Result<Accepted, Status> {
    let pretty = wants_pretty(headers, query);
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(Accepted { pretty, ..Accepted::default() });
    }
    clauses.iter().find_map(|clause| choose(clause, offer)).map(|found| Accepted { pretty, ..found }).ok_or_else(|| {
        let all = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
        Status::not_acceptable(if offer.protobuf { &all } else { &all[..2] })
    })
}

fn choose(clause: &Clause, offer: Offer) -> Option<Accepted> {
    let format = Format::parse(clause.media)?;
    if format == Format::Protobuf && !offer.protobuf {
        return None;
    }
    let view = match clause.param("as") {
        None => View::Object,
        Some(kind) if clause.param("g") == Some("meta.k8s.io") => {
            let version = match clause.param("v") {
                Some("v1") => "v1",
                Some("v1beta1") => "v1beta1",
                _ => return None,
            };
            match kind {
                "Table" if offer.table && format != Format::Protobuf => View::Table(version),
                "PartialObjectMetadata" if !offer.list => View::Metadata(version),
                "PartialObjectMetadataList" if offer.list => View::Metadata(version),
                _ => return None,
            }
        }
        Some(_) => return None,
    };
    Some(Accepted { format, view, pretty: false })
}

fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    query.maybe_flag("pretty").unwrap_or_else(|| {
        let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
    })
}

/// The media type of a request's body without parameters, empty when it is not said.
pub fn content_type(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}

/// The format of a request's body; 415 for what is not known.
pub fn body_format(headers: &HeaderMap, protobuf: bool) -> Result<Format, Status> {
    match content_type(headers) {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        "application/vnd.kubernetes.protobuf" if protobuf => Ok(Format::Protobuf),
        _ => {
            let all = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
            Err(Status::unsupported_media_type(if protobuf { &all } else { &all[..2] }))
        }
    }
}

/// Whether a client wants the aggregated form of discovery.
pub fn wants_aggregated_discovery(headers: &HeaderMap) -> bool {
    let first = clauses(headers).into_iter().find(|c| {
        matches!(c.media, "application/json" | "*/*" | "application/*")
            && match c.param("as") {
                None => true,
                Some(kind) => kind == "APIGroupDiscoveryList" && c.param("v") == Some("v2"),
            }
    });
    first.is_some_and(|c| c.param("as").is_some())
}

pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).any(|v| {
        v.split(',').any(|e| {
            let mut parts = e.split(';').map(str::trim);
            parts.next() == Some("gzip") && parts.next() != Some("q=0")
        })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(accept: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        headers
    }

    #[test]
    fn the_best_offered_clause_is_chosen() {
        let offer = Offer { protobuf: true, table: true, list: true };
        let list = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept_text, offer, expected) in [
            ("*/*", offer, Some((Format::Json, View::Object))),
            ("application/yaml;q=0.5, application/json;q=0.1", offer, Some((Format::Yaml, View::Object))),
            (list, offer, Some((Format::Json, View::Table("v1")))),
            (list, Offer { table: false, ..offer }, Some((Format::Json, View::Object))),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json",
                offer,
                Some((Format::Json, View::Object)),
            ),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Offer { protobuf: false, ..offer },
                Some((Format::Json, View::Object)),
            ),
            ("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", offer, None),
            (
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
                offer,
                Some((Format::Json, View::Metadata("v1"))),
            ),
            ("text/html", offer, None),
        ] {
            let found = accept(&headers(accept_text), &Query::default(), offer);
            assert_eq!(found.ok().map(|a| (a.format, a.view)), expected, "{accept_text}");
        }
    }

    #[test]
    fn aggregated_discovery_is_recognised() {
        let text =
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;q=0.9,*/*;q=0.8";
        assert!(wants_aggregated_discovery(&headers(text)));
        assert!(!wants_aggregated_discovery(&headers("application/json")));
    }
}
