//! `/statusz` and `/flagz` of the kubelet.

use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use kube1_telemetry::Pages;

use super::{Reply, json_reply, text};

/// Paths worth knowing besides those of pods.
pub(super) const PATHS: &[&str] = &[
    "/checkpoint",
    "/configz",
    "/flagz",
    "/healthz",
    "/logs",
    "/metrics",
    "/pods",
    "/runningpods",
    "/stats/summary",
    "/statusz",
];

/// A page as text, or as an object for who asks for it by group, version and kind.
pub(super) fn serve(pages: &Pages, kind: &str, headers: &HeaderMap) -> Reply {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let clauses: Vec<&str> = accepted.flat_map(|v| v.split(',')).map(str::trim).filter(|c| !c.is_empty()).collect();
    match clauses.iter().find_map(|clause| form(clause, kind)) {
        Some(Some(version)) => json_reply(&pages.object(kind, version)),
        Some(None) => text(StatusCode::OK, pages.text(kind)),
        None if clauses.is_empty() => text(StatusCode::OK, pages.text(kind)),
        None => text(StatusCode::NOT_ACCEPTABLE, "only text/plain and application/json are offered\n"),
    }
}

/// The version of the object that a clause asks for, or that it takes text.
fn form(clause: &str, kind: &str) -> Option<Option<&'static str>> {
    let mut parts = clause.split(';').map(str::trim);
    let media = parts.next()?;
    let param =
        |name: &str| clause.split(';').skip(1).find_map(|p| p.trim().split_once('=').filter(|(n, _)| *n == name));
    let value = |name: &str| param(name).map(|(_, value)| value);
    match (media, value("as")) {
        ("text/plain" | "text/*" | "*/*", None) => Some(None),
        ("application/json", Some(asked)) if asked == kind && value("g") == Some(Pages::GROUP) => {
            Pages::version(value("v")?).map(Some)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_asked_for_by_group_version_and_kind() {
        let json = "application/json;v=v1beta1;g=config.k8s.io;as=Statusz";
        for (accept, code, start) in [
            ("", 200, "\nkubelet statusz\n"),
            ("text/plain", 200, "\nkubelet statusz\n"),
            ("application/json, */*", 200, "\nkubelet statusz\n"),
            (json, 200, "{"),
            ("application/json", 406, ""),
            ("application/json;v=v1;g=config.k8s.io;as=Statusz", 406, ""),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(ACCEPT, accept.parse().expect("a header"));
            }
            let pages = Pages::new("kubelet", "v1.36.0", PATHS, Vec::new());
            let reply = serve(&pages, "Statusz", &headers);
            assert_eq!(reply.status(), code, "{accept}");
            let form = form(accept, "Statusz").unwrap_or_default();
            let told = form.map_or(pages.text("Statusz"), |version| pages.object("Statusz", version).to_string());
            assert!(told.starts_with(start), "{accept}: {told}");
        }
    }
}
