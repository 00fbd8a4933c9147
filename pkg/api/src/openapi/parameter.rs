//! Parameters of operations.

use serde_json::{Value, json};

use super::Version;

/// Query parameters: name, type, what they do.
const QUERY: &[(&str, &str, &str)] = &[
    ("allowWatchBookmarks", "boolean", "Also sends BOOKMARK events, which carry only a resourceVersion, to a watch."),
    ("command", "string", "The command to run, once for each of its arguments. No shell is involved."),
    ("container", "string", "The container. Defaults to the only one of the pod."),
    ("continue", "string", "Continues a list where the page that gave this token ended."),
    ("dryRun", "string", "With All, everything is done but nothing is stored. No other value is valid."),
    ("fieldManager", "string", "The name under which changed fields are tracked, at most 128 printable characters."),
    ("fieldSelector", "string", "Selects objects by their fields. Defaults to everything."),
    (
        "fieldValidation",
        "string",
        "What happens to unknown and duplicate fields of the body: Ignore drops them, Warn drops them with a warning, \
         Strict fails the request. Defaults to Warn.",
    ),
    ("follow", "boolean", "Keeps sending what is written to the log."),
    ("force", "boolean", "Lets an apply take over fields that other managers own."),
    ("gracePeriodSeconds", "integer", "How long the object may take to end; 0 ends it at once."),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Deletes an object that cannot be read from storage any more, without running what usually precedes deletion.",
    ),
    ("insecureSkipTLSVerifyBackend", "boolean", "Does not verify the certificate of the node that holds the log."),
    ("labelSelector", "string", "Selects objects by their labels. Defaults to everything."),
    ("limit", "integer", "The most objects one page of a list has."),
    ("limitBytes", "integer", "The most bytes of the log to send."),
    ("orphanDependents", "boolean", "Deprecated, see propagationPolicy. Whether dependents lose their owner instead."),
    ("path", "string", "The path to request from the target."),
    ("ports", "integer", "Ports to forward."),
    ("pretty", "string", "With true, the answer is indented."),
    ("previous", "boolean", "Sends the log of the container's previous run."),
    ("propagationPolicy", "string", "What happens to dependents: Orphan, Background or Foreground."),
    ("resourceVersion", "string", "How recent the state must be that is read, or where a watch begins."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Begins a watch with the objects there are."),
    ("sinceSeconds", "integer", "Sends only the lines of the last seconds."),
    ("stderr", "boolean", "Connects to standard error."),
    ("stdin", "boolean", "Connects to standard input."),
    ("stdout", "boolean", "Connects to standard output."),
    ("stream", "string", "Which stream of the log to send: All, Stdout or Stderr."),
    ("tailLines", "integer", "Sends only so many last lines."),
    ("timeoutSeconds", "integer", "Ends the call after this time."),
    ("timestamps", "boolean", "Begins each line with its time."),
    ("tty", "boolean", "Gives the command a terminal."),
    ("watch", "boolean", "Sends changes as they happen instead of a list."),
];

/// The query parameter of a name.
pub(super) fn query(name: &str, version: Version) -> Value {
    let (_, kind, description) = QUERY.iter().find(|(n, _, _)| *n == name).copied().unwrap_or((name, "string", ""));
    parameter(name, "query", kind, description, version)
}

/// The parameters in a path, each between braces.
pub(super) fn in_path(path: &str, kind: &str, version: Version) -> Vec<Value> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            let description = match name {
                "name" => format!("name of the {kind}"),
                "namespace" => "the namespace that holds the object".to_owned(),
                "path" => "path to the resource".to_owned(),
                _ => "path to the log".to_owned(),
            };
            parameter(name, "path", "string", &description, version)
        })
        .collect()
}

fn parameter(name: &str, place: &str, kind: &str, description: &str, version: Version) -> Value {
    let mut parameter = match version {
        Version::V2 => json!({"type": kind, "uniqueItems": true}),
        Version::V3 => json!({"schema": {"type": kind, "uniqueItems": true}}),
    };
    parameter["name"] = name.into();
    parameter["in"] = place.into();
    parameter["description"] = description.into();
    if place == "path" {
        parameter["required"] = true.into();
    }
    parameter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_the_form_of_their_version() {
        assert_eq!(query("limit", Version::V2)["type"], "integer");
        assert_eq!(query("limit", Version::V3)["schema"], json!({"type": "integer", "uniqueItems": true}));
        let names: Vec<Value> = in_path("/api/v1/namespaces/{namespace}/pods/{name}", "Pod", Version::V3);
        assert_eq!(names[1]["description"], "name of the Pod");
        assert_eq!(names.len(), 2);
    }
}
