//! `/healthz`, `/livez`, `/readyz`: named checks.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http::StatusCode;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use super::respond::{self, Reply};
use crate::metrics::Metrics;
use crate::query::Query;

type Asking = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

#[derive(Clone)]
enum Check {
    Known(Arc<dyn Fn() -> Result<(), String> + Send + Sync>),
    Asked(Arc<dyn Fn() -> Asking + Send + Sync>),
}

/// The server's checks.
#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<Named>>,
    stopping: CancellationToken,
}

#[derive(Clone)]
struct Named {
    name: Cow<'static, str>,
    /// Also decides whether the server should be restarted, not only whether it gets requests.
    live: bool,
    check: Check,
}

impl Health {
    /// Parts may end once `stopping` is cancelled.
    pub fn new(stopping: CancellationToken) -> Self {
        Self { checks: RwLock::default(), stopping }
    }

    /// Adds a check; `live` ones count for `/livez` and `/healthz` too, others for `/readyz` alone.
    pub fn add(
        &self,
        name: impl Into<Cow<'static, str>>,
        live: bool,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.checks.write().push(Named { name: name.into(), live, check: Check::Known(Arc::new(check)) });
    }

    /// Adds a check, for all three paths, that asks somebody else.
    pub fn add_asking<F: Future<Output = Result<(), String>> + Send + 'static>(
        &self,
        name: &'static str,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) {
        let check = Check::Asked(Arc::new(move || Box::pin(check())));
        self.checks.write().push(Named { name: name.into(), live: true, check });
    }

    /// Adds checks that tell how a part of the server is that works beside the requests. Upstream has several names where
    /// here is one part. As for [`Health::add`], `live` ones count for more than `/readyz`.
    pub fn part(&self, names: &[&'static str], live: bool) -> Part {
        let name = names.first().copied().unwrap_or_default();
        let part = Part { state: Arc::default(), name, stopping: self.stopping.clone() };
        for name in names {
            let part = part.clone();
            self.add(*name, live, move || part.check());
        }
        part
    }

    /// The path of each check.
    pub fn paths(&self) -> Vec<String> {
        let checks = self.checks.read();
        let path = |c: &Named, endpoint: &str| format!("/{endpoint}/{}", c.name);
        let live = checks.iter().filter(|c| c.live).flat_map(|c| [path(c, "healthz"), path(c, "livez")]);
        live.chain(checks.iter().map(|c| path(c, "readyz"))).collect()
    }

    /// Answers a path if it is one of a check.
    pub async fn answer(&self, path: &str, query: &Query, metrics: &Metrics) -> Option<Reply> {
        let (endpoint, name) = path.strip_prefix('/')?.split_once('/').unwrap_or((&path[1..], ""));
        if !matches!(endpoint, "healthz" | "livez" | "readyz") {
            return None;
        }
        let all = endpoint == "readyz";
        let checks: Vec<Named> = self.checks.read().iter().filter(|c| c.live || all).cloned().collect();
        let run = async |named: &Named| {
            let result = match &named.check {
                Check::Known(check) => check(),
                Check::Asked(ask) => ask().await,
            };
            metrics.checked(&named.name, endpoint, result.is_ok());
            result
        };
        if !name.is_empty() {
            let check = checks.iter().find(|c| c.name == name)?;
            return Some(match run(check).await {
                Ok(()) => respond::text(StatusCode::OK, "ok"),
                Err(why) => failed(format!("internal server error: {why}\n")),
            });
        }
        let excluded: Vec<&str> = query.all("exclude").collect();
        let mut unknown = excluded.clone();
        let mut text = String::new();
        let mut fine = true;
        for named in &checks {
            let name = &named.name;
            if excluded.contains(&name.as_ref()) {
                unknown.retain(|e| e != name);
                text.push_str(&format!("[+]{name} excluded: ok\n"));
            } else if let Err(why) = run(named).await {
                tracing::debug!(check = %name, why, "health check failed");
                fine = false;
                // The reason may hold what anonymous readers should not see.
                text.push_str(&format!("[-]{name} failed: reason withheld\n"));
            } else {
                text.push_str(&format!("[+]{name} ok\n"));
            }
        }
        if !unknown.is_empty() {
            unknown.sort_unstable();
            unknown.dedup();
            let names = unknown.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
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

const RUNS: u8 = 1;
const ENDED: u8 = 2;

/// A part of the server that works beside the requests: fine from when it has begun until one of its tasks ends.
#[derive(Clone)]
pub struct Part {
    state: Arc<AtomicU8>,
    name: &'static str,
    stopping: CancellationToken,
}

impl Part {
    /// Its work has begun, or is done where there is nothing more to do.
    pub fn begun(&self) {
        self.state.fetch_max(RUNS, Ordering::Relaxed);
    }

    /// Does work that is to go on until shutdown, and fails the check when it ends before, by a panic too.
    pub fn run<F: Future<Output = ()>>(&self, work: F) -> impl Future<Output = ()> + use<F> {
        self.begun();
        let watched = Watched(self.clone());
        async move {
            work.await;
            drop(watched);
        }
    }

    fn check(&self) -> Result<(), String> {
        match self.state.load(Ordering::Relaxed) {
            RUNS => Ok(()),
            ENDED => Err("ended: restart the server".into()),
            _ => Err("not finished".into()),
        }
    }
}

struct Watched(Part);

impl Drop for Watched {
    fn drop(&mut self) {
        let Self(part) = self;
        if !part.stopping.is_cancelled() {
            part.state.store(ENDED, Ordering::Relaxed);
            if std::thread::panicking() {
                tracing::error!(part = part.name, "a part of the server panicked: only a restart brings it back");
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::metrics::Registrar;

    fn asker(health: &Health) -> impl Fn(&str, &str) -> Option<(u16, String)> {
        let metrics = Metrics::new(Registrar::default());
        move |path, query| {
            let reply = health.answer(path, &Query::parse(query), &metrics).now_or_never()??;
            Some((reply.status().as_u16(), String::from_utf8(reply.body().full()?.to_vec()).ok()?))
        }
    }

    #[test]
    fn checks_decide_the_answer() {
        let (health, metrics) = (Health::default(), Metrics::new(Registrar::default()));
        health.add("ping", true, || Ok(()));
        health.add("storage", false, || Err("no disk".into()));
        let ask = |path: &str, query: &str| {
            let reply = health.answer(path, &Query::parse(query), &metrics).now_or_never()??;
            Some((reply.status().as_u16(), String::from_utf8(reply.body().full()?.to_vec()).ok()?))
        };
        assert_eq!(ask("/livez", ""), Some((200, "ok".into())));
        assert_eq!(ask("/livez", "verbose"), Some((200, "[+]ping ok\nlivez check passed\n".into())));
        assert_eq!(ask("/healthz", "verbose"), Some((200, "[+]ping ok\nhealthz check passed\n".into())));
        let text = "[+]ping ok\n[-]storage failed: reason withheld\nreadyz check failed\n";
        assert_eq!(ask("/readyz", ""), Some((500, text.into())));
        let text = "[+]ping excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"x\", \"y\"\nlivez check passed\n";
        assert_eq!(ask("/livez", "verbose&exclude=y&exclude=ping&exclude=x"), Some((200, text.into())));
        assert_eq!(ask("/readyz", "exclude=storage"), Some((200, "ok".into())));
        assert_eq!(ask("/readyz/storage", ""), Some((500, "internal server error: no disk\n".into())));
        assert_eq!(ask("/livez/storage", ""), None);
        assert_eq!(ask("/readyz/other", ""), None);
        assert_eq!(ask("/version", ""), None);
        let told = metrics.render_checks().unwrap();
        assert!(told.contains(r#"kubernetes_healthcheck{name="storage",type="readyz"} 0"#), "{told}");
    }

    #[tokio::test]
    async fn a_part_is_fine_from_its_begin_to_its_end() {
        let stopping = CancellationToken::new();
        let health = Health::new(stopping.clone());
        let (part, once) =
            (health.part(&["poststarthook/a", "poststarthook/b"], true), health.part(&["poststarthook/once"], true));
        let ask = asker(&health);
        let code = |path: &str| ask(path, "").unwrap().0;
        assert_eq!(ask("/livez/poststarthook/a", ""), Some((500, "internal server error: not finished\n".into())));
        once.begun();
        assert_eq!(code("/livez/poststarthook/once"), 200);
        let stop = CancellationToken::new();
        let first = tokio::spawn(part.run(stop.clone().cancelled_owned()));
        let second = tokio::spawn(part.run(async { panic!("broken") }));
        assert!(second.await.is_err());
        assert_eq!(
            (code("/livez/poststarthook/a"), code("/healthz/poststarthook/b"), code("/readyz")),
            (500, 500, 500)
        );
        stop.cancel();
        first.await.unwrap();
        assert_eq!(code("/livez/poststarthook/a"), 500, "one that began later does not hide it");

        let part = health.part(&["poststarthook/c"], true);
        stopping.cancel();
        part.run(async {}).await;
        assert_eq!(ask("/livez/poststarthook/c", "").unwrap().0, 200, "at shutdown parts may end");
    }
}
