//! `/statusz` and `/flagz`: what runs here, for people as text, for programs as objects (KEP-4827, KEP-4828).

use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::Build;

const GROUP: &str = "config.k8s.io";
const NOTICE: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
    guarantees and is for debugging purposes only.";

/// What these pages tell of a component.
pub struct Pages {
    component: &'static str,
    /// Without the leading `v`.
    version: &'static str,
    /// Paths worth knowing that are no API.
    paths: &'static [&'static str],
    started: (jiff::Timestamp, Instant),
    flags: Vec<(String, String)>,
}

impl Pages {
    /// The API group of the objects.
    pub const GROUP: &str = GROUP;

    /// Pages of a component that starts now.
    pub fn new(
        component: &'static str,
        version: &'static str,
        paths: &'static [&'static str],
        mut flags: Vec<(String, String)>,
    ) -> Self {
        flags.sort();
        let version = version.trim_start_matches('v');
        Self { component, version, paths, started: (jiff::Timestamp::now(), Instant::now()), flags }
    }

    /// The kind of the object at a path, if the path is that of a page.
    pub fn kind(path: &str) -> Option<&'static str> {
        match path {
            "/statusz" => Some("Statusz"),
            "/flagz" => Some("Flagz"),
            _ => None,
        }
    }

    /// The version of the group that a client may ask for by this name.
    pub fn version(name: &str) -> Option<&'static str> {
        ["v1beta1", "v1alpha1"].into_iter().find(|version| *version == name)
    }

    /// The page of a kind as text.
    pub fn text(&self, kind: &str) -> String {
        if kind == "Statusz" { self.status() } else { self.flags() }
    }

    /// The page of a kind as an object.
    pub fn object(&self, kind: &str, version: &str) -> Value {
        let mut object = if kind == "Statusz" { self.status_object() } else { self.flags_object() };
        object["kind"] = kind.into();
        object["apiVersion"] = format!("{GROUP}/{version}").into();
        object["metadata"] = json!({"name": self.component});
        object
    }

    fn status(&self) -> String {
        let up = self.started.1.elapsed().as_secs();
        let started = self.started.0.strftime("%a %b %e %H:%M:%S UTC %Y");
        format!(
            "\n{} statusz\n{NOTICE}\n\nStarted: {started}\nUp: {} hr {:02} min {:02} sec\nGo version: {}\n\
             Binary version: {}\nEmulation version: 1.36\nPaths: {}\n",
            self.component,
            up / 3600,
            up / 60 % 60,
            up % 60,
            Build::told().compiler(),
            self.version,
            self.paths.join(" "),
        )
    }

    fn status_object(&self) -> Value {
        json!({
            "startTime": self.started.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "uptimeSeconds": self.started.1.elapsed().as_secs(),
            "goVersion": Build::told().compiler(),
            "binaryVersion": self.version,
            "emulationVersion": "1.36",
            "paths": self.paths,
        })
    }

    fn flags(&self) -> String {
        let lines = self.flags.iter().map(|(name, value)| format!("{name}={value}\n"));
        format!("\n{} flagz\n{NOTICE}\n\n{}", self.component, lines.collect::<String>())
    }

    fn flags_object(&self) -> Value {
        let flags = self.flags.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
        json!({"flags": flags.collect::<Map<String, Value>>()})
    }
}
