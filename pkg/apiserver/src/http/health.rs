//! `/healthz`, `/livez`, `/readyz`: named checks.

use std::sync::Arc;

use http::StatusCode;
use parking_lot::RwLock;

use super::respond::{self, Reply};
use crate::query::Query;

type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The server's checks.
#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<Named>>,
}

#[derive(Clone)]
struct Named {
    name: &'static str,
    /// Also decides whether the server should be restarted, not only whether it gets requests.
    live: bool,
    check: Check,
}

impl Health {
    /// Adds a check; `live` ones count for `/livez` too.
    pub fn add(&self, name: &'static str, live: bool, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.checks.write().push(Named { name, live, check: Arc::new(check) });
    }

    /// Answers a path if it is one of a check.
    pub fn answer(&self, path: &str, query: &Query) -> Option<Reply> {
        let (endpoint, name) = path.trim_start_matches('/').split_once('/').unwrap_or((&path[1..], ""));
        if !matches!(endpoint, "healthz" | "livez" | "readyz") || !path.starts_with('/') {
            return None;
        }
        let live = endpoint == "livez";
        let checks: Vec<Named> = self.checks.read().iter().filter(|c| c.live || !live).cloned().collect();
        if !name.is_empty() {
            let check = checks.iter().find(|c| c.name == name)?;
            return Some(match (check.check)() {
                Ok(()) => respond::text(StatusCode::OK, "ok"),
                Err(why) => failed(format!("internal server error: {why}")),
            });
        }
        let excluded: Vec<&str> = query.all("exclude").collect();
        let mut text = String::new();
        let mut fine = true;
        for Named { name, check, .. } in &checks {
            let line = if excluded.contains(name) {
                format!("[+]{name} excluded: ok\n")
            } else {
                match check() {
                    Ok(()) => format!("[+]{name} ok\n"),
                    Err(why) => {
                        tracing::debug!(check = name, why, "health check failed");
                        fine = false;
                        // The reason may hold what anonymous readers should not see.
                        format!("[-]{name} failed: reason withheld\n")
                    }
                }
            };
            text.push_str(&line);
        }
        Some(match (fine, query.get("verbose").is_some()) {
            (true, false) => respond::text(StatusCode::OK, "ok"),
            (true, true) => respond::text(StatusCode::OK, format!("{text}{endpoint} check passed\n")),
            (false, _) => failed(format!("{text}{endpoint} check failed\n")),
        })
    }
}

fn failed(text: String) -> Reply {
    respond::text(StatusCode::INTERNAL_SERVER_ERROR, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn checks_decide_the_answer() {
        let health = Health::default();
        health.add("ping", true, || Ok(()));
        health.add("storage", false, || Err("no disk".into()));
        let ask = |path: &str, query: &str| {
            let reply = health.answer(path, &Query::parse(query))?;
            Some((reply.status().as_u16(), String::from_utf8(reply.body().full()?.to_vec()).ok()?))
        };
        assert_eq!(ask("/livez", ""), Some((200, "ok".into())));
        assert_eq!(ask("/livez", "verbose"), Some((200, "[+]ping ok\nlivez check passed\n".into())));
        assert_eq!(ask("/readyz", "").unwrap().0, 500);
        assert_eq!(ask("/readyz", "exclude=storage"), Some((200, "ok".into())));
        assert_eq!(ask("/readyz/storage", "").unwrap().0, 500);
        assert_eq!(ask("/readyz/other", ""), None);
        assert_eq!(ask("/version", ""), None);
    }
}
