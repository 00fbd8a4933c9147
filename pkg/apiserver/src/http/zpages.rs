//! `/statusz` and `/flagz`: what runs here, for people as text, for programs as objects (KEP-4827, KEP-4828).

use http::header::{HeaderValue, WARNING};
use http::{HeaderMap, StatusCode};
use kube1_api::codec;
use kube1_api::status::Status;

use super::respond::{self, JSON, Reply};
use crate::documents::GIT_VERSION;
use crate::negotiate::{self, Clause, Format};

/// Paths worth knowing that are no API.
const PATHS: &[&str] = &["/debug", "/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version"];

/// What these pages tell.
pub struct Pages(kube1_telemetry::Pages);

/// How a page is to be told.
enum Form {
    Text,
    Object(&'static str, Format),
}

impl Pages {
    pub fn new(flags: Vec<(String, String)>) -> Self {
        Self(kube1_telemetry::Pages::new("kube-apiserver", GIT_VERSION, PATHS, flags))
    }

    /// Answers a path if it is one of these pages; 406 when it has no form that is accepted.
    pub fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Result<Reply, Status>> {
        let kind = kube1_telemetry::Pages::kind(path)?;
        Some(form(headers, kind).and_then(|form| match form {
            Form::Text => Ok(respond::text(StatusCode::OK, self.0.text(kind))),
            Form::Object(version, format) => self.object(kind, version, format),
        }))
    }

    fn object(&self, kind: &str, version: &str, format: Format) -> Result<Reply, Status> {
        let object = self.0.object(kind, version);
        let mut reply = match format {
            Format::Yaml => respond::bytes(StatusCode::OK, "application/yaml", codec::encode_yaml(&object)?),
            _ => respond::bytes(StatusCode::OK, JSON, object.to_string()),
        };
        if version == "v1alpha1" {
            let text = format!(
                "299 - \"This version of the {} endpoint is deprecated. Please use a newer version.\"",
                kind.to_lowercase()
            );
            let warning = HeaderValue::from_str(&text).map_err(Status::internal)?;
            reply.headers_mut().insert(WARNING, warning);
        }
        Ok(reply)
    }
}

/// The best form that is accepted. Objects must be asked for by group, version and kind.
fn form(headers: &HeaderMap, kind: &str) -> Result<Form, Status> {
    let clauses = negotiate::clauses(headers);
    if clauses.is_empty() {
        return Ok(Form::Text);
    }
    let choose = |clause: &Clause<'_>| match clause.media {
        "text/plain" | "text/*" | "*/*" if !clause.converts() => Some(Form::Text),
        media => {
            let format = Format::parse(media).filter(|format| *format != Format::Protobuf)?;
            let version = kube1_telemetry::Pages::version(clause.param("v")?)?;
            let meant = clause.param("g") == Some(kube1_telemetry::Pages::GROUP) && clause.param("as") == Some(kind);
            meant.then_some(Form::Object(version, format))
        }
    };
    let offered = ["application/json", "application/yaml", "text/plain"];
    clauses.iter().find_map(choose).ok_or_else(|| Status::not_acceptable(&offered))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::header::ACCEPT;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn pages_are_told_in_the_form_that_is_accepted() {
        let pages = Pages::new(vec![("b".into(), "2".into()), ("a".into(), "1".into())]);
        let ask = |path: &str, accept: &'static str| {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            pages.answer(path, &headers).unwrap()
        };
        let text = |reply: &Reply| String::from_utf8(reply.body().full().unwrap().to_vec()).unwrap();
        let flags = text(&ask("/flagz", "").unwrap());
        assert!(flags.starts_with("\nkube-apiserver flagz\nWarning: ") && flags.ends_with("\n\na=1\nb=2\n"), "{flags}");
        let status = text(&ask("/statusz", "application/json, */*").unwrap());
        assert!(status.contains("\nUp: 0 hr 00 min 0") && status.contains("/livez"), "{status}");
        let reply = ask("/flagz", "application/json;v=v1beta1;g=config.k8s.io;as=Flagz").unwrap();
        let wanted = json!({"kind": "Flagz", "apiVersion": "config.k8s.io/v1beta1", "metadata": {"name": "kube-apiserver"},
            "flags": {"a": "1", "b": "2"}});
        assert_eq!(serde_json::from_str::<Value>(&text(&reply)).unwrap(), wanted);
        let reply = ask("/statusz", "application/yaml;v=v1alpha1;g=config.k8s.io;as=Statusz").unwrap();
        assert!(reply.headers().contains_key(WARNING) && text(&reply).contains("kind: Statusz"));
        for refused in
            ["application/json", "application/json;v=v1beta1;g=config.k8s.io;as=Statusz", "text/plain;as=Flagz;g=x;v=y"]
        {
            assert_eq!(ask("/flagz", refused).err().map(|status| status.code()), Some(406), "{refused}");
        }
        assert!(pages.answer("/version", &HeaderMap::new()).is_none());
    }
}
