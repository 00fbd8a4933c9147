//! Which representation a request is in and which one its answer should have.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use kube1_api::status::Status;
use smallvec::SmallVec;

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
    /// Kind that a clause converts to, empty for the object itself.
    kind: &'static str,
    /// JSON is indented.
    pub pretty: bool,
}

/// What a handler can answer with.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub protobuf: bool,
    /// Objects of a resource, which have other views.
    pub views: bool,
    pub answer: Answer,
}

/// What kind of answer is represented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Object,
    /// Its metadata view has another kind.
    List,
    /// Events, of which YAML has no form.
    Stream,
}

impl Accepted {
    /// The object itself in a format.
    pub fn plain(format: Format) -> Self {
        Self { format, ..Self::default() }
    }
}

impl Format {
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    pub fn parse(media: &str) -> Option<Self> {
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
    params: SmallVec<[(&'a str, &'a str); 4]>,
    quality: f32,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().filter(|m| !m.is_empty())?;
        let params: SmallVec<[(&str, &str); 4]> =
            parts.filter_map(|p| p.split_once('=')).map(|(k, v)| (k.trim(), v.trim().trim_matches('"'))).collect();
        let quality = params.iter().find(|(k, _)| *k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
        Some(Self { media, params, quality })
    }

    pub fn param(&self, key: &str) -> Option<&'a str> {
        self.params.iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
    }

    fn vagueness(&self) -> usize {
        self.media.matches('*').count()
    }

    /// Whether the clause wants another kind than the answer's own.
    pub fn converts(&self) -> bool {
        ["as", "g", "v"].iter().any(|key| self.param(key).is_some())
    }

    /// Whether an answer in the format is what the clause's parameters allow.
    fn allows(&self, format: Format) -> bool {
        let streams = format != Format::Yaml;
        let stream = self.param("stream").is_none_or(|v| v.is_empty() || (v == "watch" && streams));
        stream && self.param("sv").is_none_or(str::is_empty)
    }
}

/// The clauses of the Accept header, best first.
pub fn clauses(headers: &HeaderMap) -> SmallVec<[Clause<'_>; 2]> {
    let texts = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let mut clauses: SmallVec<[Clause; 2]> = texts.flat_map(|t| t.split(',')).filter_map(Clause::parse).collect();
    // Of equals, the one that says more comes first.
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality).then(a.vagueness().cmp(&b.vagueness())));
    clauses
}

/// Chooses the representation of an answer; 406 when nothing that is accepted is offered.
pub fn accept(headers: &HeaderMap, query: &Query, offer: Offer) -> Result<Accepted, Status> {
    let pretty = wants_pretty(headers, query);
    let clauses = clauses(headers);
    let chosen = if clauses.is_empty() {
        Accepted::default()
    } else {
        clauses.iter().find_map(|clause| choose(clause, offer)).ok_or_else(|| Status::not_acceptable(&KNOWN))?
    };
    let wrong = match (chosen.view, offer.answer) {
        (View::Metadata(_), Answer::List) => chosen.kind != METADATA_LIST,
        (View::Metadata(_), _) => chosen.kind != METADATA,
        _ => false,
    };
    if wrong {
        let is = if offer.answer == Answer::List { "is a list" } else { "is not a list" };
        return Err(Status::not_acceptable_as(chosen.kind, is));
    }
    if offer.answer == Answer::Stream && chosen.format == Format::Yaml {
        return Err(Status::not_acceptable(&[KNOWN[0], KNOWN[2]].map(|media| format!("{media};stream=watch"))));
    }
    Ok(Accepted { pretty: pretty || chosen.pretty, ..chosen })
}

/// The representation of a failure: whatever else was asked for, it is a Status, and JSON if nothing fits.
pub fn accept_failure(headers: &HeaderMap, query: &Query) -> Accepted {
    let offer = Offer { protobuf: true, views: false, answer: Answer::Object };
    accept(headers, query, offer).unwrap_or_default()
}

/// What is known of, as upstream tells it: of custom resources the metadata and failures have a protobuf form too.
const KNOWN: [&str; 3] = [Format::Json.media_type(), Format::Yaml.media_type(), Format::Protobuf.media_type()];

const METADATA: &str = "PartialObjectMetadata";
const METADATA_LIST: &str = "PartialObjectMetadataList";

fn choose(clause: &Clause, offer: Offer) -> Option<Accepted> {
    let format = Format::parse(clause.media)?;
    if (format == Format::Protobuf && !offer.protobuf && !clause.converts()) || !clause.allows(format) {
        return None;
    }
    let (view, kind) = if clause.converts() { view(clause, format, offer)? } else { (View::Object, "") };
    Some(Accepted { format, view, kind, pretty: clause.param("pretty") == Some("1") })
}

/// What the clause converts to; metadata has a protobuf form whatever the object has.
fn view(clause: &Clause, format: Format, offer: Offer) -> Option<(View, &'static str)> {
    let version = match clause.param("v")? {
        "v1" => "v1",
        "v1beta1" => "v1beta1",
        _ => return None,
    };
    if !offer.views || clause.param("g") != Some("meta.k8s.io") {
        return None;
    }
    match clause.param("as")? {
        "Table" if format != Format::Protobuf => Some((View::Table(version), "Table")),
        METADATA => Some((View::Metadata(version), METADATA)),
        METADATA_LIST => Some((View::Metadata(version), METADATA_LIST)),
        _ => None,
    }
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
        "application/vnd.kubernetes.protobuf" => Err(Status::unsupported_media_type(&KNOWN[..2])),
        _ => Err(Status::unsupported_media_type(&KNOWN)),
    }
}

/// The format in which a client wants the aggregated form of discovery; `None` when it wants the old form.
pub fn aggregated_discovery(headers: &HeaderMap) -> Option<Format> {
    clauses(headers).into_iter().find_map(|c| {
        let format = Format::parse(c.media).filter(|f| c.allows(*f))?;
        if !c.converts() {
            return Some(None);
        }
        let known = ["g", "v", "as"].map(|key| c.param(key)) == DISCOVERY.map(Some);
        known.then_some(Some(format))
    })?
}

const DISCOVERY: [&str; 3] = ["apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList"];

pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).any(|v| {
        v.split(',').any(|e| {
            let mut parts = e.split(';').map(str::trim);
            parts.next() == Some("gzip") && parts.next() != Some("q=0")
        })
    })
}

#[cfg(test)]
mod tests;
