//! `/statusz` and `/flagz`: what runs here, for people who look (KEP-4827, KEP-4828).

use std::time::Instant;

use http::StatusCode;

use super::respond::{self, Reply};

const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
    guarantees and is for debugging purposes only.";
/// Paths worth knowing that are no API.
const PATHS: [&str; 10] = [
    "/flagz",
    "/healthz",
    "/livez",
    "/metrics",
    "/metrics/slis",
    "/openapi/v2",
    "/openapi/v3",
    "/readyz",
    "/statusz",
    "/version",
];

/// What these pages tell.
pub struct Pages {
    started: (jiff::Timestamp, Instant),
    flags: Vec<(String, String)>,
}

impl Pages {
    pub fn new(mut flags: Vec<(String, String)>) -> Self {
        flags.sort();
        Self { started: (jiff::Timestamp::now(), Instant::now()), flags }
    }

    /// Answers a path if it is one of these pages.
    pub fn answer(&self, path: &str) -> Option<Reply> {
        let text = match path {
            "/statusz" => self.status(),
            "/flagz" => self.flags(),
            _ => return None,
        };
        Some(respond::text(StatusCode::OK, text))
    }

    fn status(&self) -> String {
        let up = self.started.1.elapsed().as_secs();
        let started = self.started.0.strftime("%a %b %e %H:%M:%S UTC %Y");
        let version = concat!("1.36.2+kube1-", env!("CARGO_PKG_VERSION"));
        format!(
            "\nkube-apiserver statusz\n{WARNING}\n\nStarted: {started}\nUp: {} hr {:02} min {:02} sec\n\
             Binary version: {version}\nEmulation version: 1.36\nPaths: {}\n",
            up / 3600,
            up / 60 % 60,
            up % 60,
            PATHS.join(" "),
        )
    }

    fn flags(&self) -> String {
        let lines = self.flags.iter().map(|(name, value)| format!("{name}={value}\n"));
        format!("\nkube-apiserver flags\n{WARNING}\n\n{}", lines.collect::<String>())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pages_tell_flags_and_status() {
        let pages = Pages::new(vec![("b".into(), "2".into()), ("a".into(), "1".into())]);
        let text = |path: &str| {
            let reply = pages.answer(path)?;
            String::from_utf8(reply.body().full()?.to_vec()).ok()
        };
        assert!(text("/flagz").unwrap().ends_with("\n\na=1\nb=2\n"));
        let status = text("/statusz").unwrap();
        assert!(status.contains("\nUp: 0 hr 00 min 0") && status.contains("/livez"), "{status}");
        assert_eq!(text("/version"), None);
    }
}
