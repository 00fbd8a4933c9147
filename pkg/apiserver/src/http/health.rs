//! `/healthz`, `/livez`, `/readyz`: named checks.

use std::borrow::Cow;
use std::sync::Arc;

use http::StatusCode;
use parking_lot::RwLock;

use super::respond::{self, Reply};
use crate::metrics::Metrics;
use crate::query::Query;

type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The server's checks.
#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<Named>>,
}

#[derive(Clone)]
struct Named {
    name: Cow<'static, str>,
    /// Also decides whether the server should be restarted, not only whether it gets requests.
    live: bool,
    check: Check,
}

impl Health {
    /// Adds a check; `live` ones count for `/livez` too.
    pub fn add(
        &self,
        name: impl Into<Cow<'static, str>>,
        live: bool,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.checks.write().push(Named { name: name.into(), live, check: Arc::new(check) });
    }

    /// Answers a path if it is one of a check.
    pub fn answer(&self, path: &str, query: &Query, metrics: &Metrics) -> Option<Reply> {
        let (endpoint, name) = path.strip_prefix('/')?.split_once('/').unwrap_or((&path[1..], ""));
        if !matches!(endpoint, "healthz" | "livez" | "readyz") {
            return None;
        }
        let live = endpoint == "livez";
        let checks: Vec<Named> = self.checks.read().iter().filter(|c| c.live || !live).cloned().collect();
        let run = |named: &Named| {
            let result = (named.check)();
            metrics.checked(&named.name, endpoint, result.is_ok());
            result
        };
        if !name.is_empty() {
            let check = checks.iter().find(|c| c.name == name)?;
            return Some(match run(check) {
                Ok(()) => respond::text(StatusCode::OK, "ok"),
                Err(why) => failed(format!("internal server error: {why}\n")),
            });
        }
        let mut excluded: Vec<&str> = query.all("exclude").filter(|name| !name.is_empty()).collect();
        let mut text = String::new();
        let mut fine = true;
        for named in &checks {
            let name = &named.name;
            if excluded.contains(&name.as_ref()) {
                excluded.retain(|e| e != name);
                text.push_str(&format!("[+]{name} excluded: ok\n"));
            } else if let Err(why) = run(named) {
                tracing::debug!(check = %name, why, "health check failed");
                fine = false;
                // The reason may hold what anonymous readers should not see.
                text.push_str(&format!("[-]{name} failed: reason withheld\n"));
            } else {
                text.push_str(&format!("[+]{name} ok\n"));
            }
        }
        if !excluded.is_empty() {
            let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
            let names = names.join(", ");
            text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
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
    use crate::metrics::Registrar;

    #[test]
    fn checks_decide_the_answer() {
        let (health, metrics) = (Health::default(), Metrics::new(Registrar::default()));
        health.add("ping", true, || Ok(()));
        health.add("storage", false, || Err("no disk".into()));
        let ask = |path: &str, query: &str| {
            let reply = health.answer(path, &Query::parse(query), &metrics)?;
            Some((reply.status().as_u16(), String::from_utf8(reply.body().full()?.to_vec()).ok()?))
        };
        assert_eq!(ask("/livez", ""), Some((200, "ok".into())));
        assert_eq!(ask("/livez", "verbose"), Some((200, "[+]ping ok\nlivez check passed\n".into())));
        assert_eq!(ask("/readyz", "").unwrap().0, 500);
        let text = "[+]ping excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"x\"\nlivez check passed\n";
        assert_eq!(ask("/livez", "verbose&exclude=ping&exclude=x"), Some((200, text.into())));
        assert_eq!(ask("/readyz", "exclude=storage"), Some((200, "ok".into())));
        assert_eq!(ask("/readyz/storage", "").unwrap().0, 500);
        assert_eq!(ask("/readyz/other", ""), None);
        assert_eq!(ask("/version", ""), None);
        let told = metrics.render_checks().unwrap();
        assert!(told.contains(r#"kubernetes_healthcheck{name="storage",type="readyz"} 0"#), "{told}");
    }
}
