//! What becomes of an event before it is written: cut where it is too long, or told in one line for people.

use serde_json::Value;

const TRUNCATED: &str = "audit.k8s.io/truncated";

/// How long what is written may be, in bytes of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    pub max_batch: usize,
    pub max_event: usize,
}

impl Default for Truncation {
    fn default() -> Self {
        Self { max_batch: 10 << 20, max_event: 100 << 10 }
    }
}

impl Truncation {
    /// The event, without the bodies of request and answer if it is too long with them; none if it is too long even so.
    pub fn cut(self, event: String) -> Option<String> {
        if event.len() <= self.max_event {
            return Some(event);
        }
        let mut value: Value = serde_json::from_str(&event).ok()?;
        if !matches!(value["level"].as_str(), Some("Request" | "RequestResponse")) {
            return None;
        }
        let members = value.as_object_mut()?;
        members.remove("requestObject");
        members.remove("responseObject");
        value["annotations"][TRUNCATED] = "true".into();
        Some(value.to_string()).filter(|event| event.len() <= self.max_event)
    }
}

/// How the log tells events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The whole event as JSON.
    #[default]
    Json,
    /// What matters most, as text.
    Legacy,
}

impl Format {
    pub fn line(self, event: String) -> String {
        match self {
            Self::Json => event,
            Self::Legacy => serde_json::from_str(&event).map_or(event, |event: Value| legacy(&event)),
        }
    }
}

fn legacy(event: &Value) -> String {
    let text = |pointer: &str, without: &str| {
        let found = event.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        format!("{:?}", found.unwrap_or(without))
    };
    let list = |pointer: &str, without: &str| match event.pointer(pointer).and_then(Value::as_array) {
        Some(texts) if !texts.is_empty() => {
            let quoted = texts.iter().map(|text| format!("{:?}", text.as_str().unwrap_or_default()));
            format!("{:?}", quoted.collect::<Vec<_>>().join(","))
        }
        _ => format!("{without:?}"),
    };
    let code = event["responseStatus"]["code"].as_i64().map_or("<deferred>".to_owned(), |code| code.to_string());
    let mut line = format!("{} AUDIT:", event["requestReceivedTimestamp"].as_str().unwrap_or_default());
    for (name, value) in [
        ("id", text("/auditID", "")),
        ("stage", text("/stage", "")),
        ("ip", text("/sourceIPs/0", "<unknown>")),
        ("method", text("/verb", "")),
        ("user", text("/user/username", "<none>")),
        ("groups", list("/user/groups", "<none>")),
        ("as", text("/impersonatedUser/username", "<self>")),
        ("asgroups", list("/impersonatedUser/groups", "<lookup>")),
        ("user-agent", text("/userAgent", "")),
        ("namespace", text("/objectRef/namespace", "<none>")),
        ("uri", text("/requestURI", "")),
        ("response", format!("\"{code}\"")),
    ] {
        line.push_str(&format!(" {name}={value}"));
    }
    line
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_events_lose_their_bodies_and_those_still_too_long_are_dropped() {
        let limits = Truncation { max_batch: 1000, max_event: 200 };
        let long = "x".repeat(500);
        let event = |level: &str, uri: &str, body: &str| {
            json!({"level": level, "requestURI": uri, "requestObject": {"a": body}, "responseObject": {"a": body}})
                .to_string()
        };
        let short = event("RequestResponse", "/a", "b");
        assert_eq!(limits.cut(short.clone()), Some(short));
        let cut: Value = serde_json::from_str(&limits.cut(event("Request", "/a", &long)).unwrap()).unwrap();
        let wanted = json!({"level": "Request", "requestURI": "/a", "annotations": {TRUNCATED: "true"}});
        assert_eq!(cut, wanted);
        assert_eq!(limits.cut(event("Request", &long, &long)), None);
        assert_eq!(limits.cut(event("Metadata", &long, "")), None);
    }

    #[test]
    fn the_legacy_line_tells_what_matters() {
        let event = json!({"auditID": "i", "stage": "ResponseComplete", "requestReceivedTimestamp": "2026-01-02T03:04:05.000006Z",
            "verb": "get", "user": {"username": "u", "groups": ["a", "b"]}, "sourceIPs": ["10.0.0.1"], "userAgent": "k\"x",
            "objectRef": {"namespace": "n"}, "requestURI": "/x", "responseStatus": {"code": 200}});
        let wanted = r#"2026-01-02T03:04:05.000006Z AUDIT: id="i" stage="ResponseComplete" ip="10.0.0.1" method="get" user="u" groups="\"a\",\"b\"" as="<self>" asgroups="<lookup>" user-agent="k\"x" namespace="n" uri="/x" response="200""#;
        assert_eq!(Format::Legacy.line(event.to_string()), wanted);
        let bare = Format::Legacy.line("{}".into());
        assert!(bare.contains(r#"user="<none>""#) && bare.ends_with(r#"response="<deferred>""#), "{bare}");
    }
}
