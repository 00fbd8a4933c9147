//! Many watchers of the same objects.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::connection::{Connection, Server};
use crate::report::{Figure, less, more, percentiles};
use crate::{Target, memory, objects};

/// Objects that are made as fast as the writers can, for the rate ...
const BURST: usize = 1000;
const WRITERS: usize = 16;
/// ... and one at a time, for how long it takes until the last watcher has seen it.
const SINGLE: usize = 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// Events that all watchers together have seen.
struct Tally {
    seen: AtomicUsize,
    reached: watch::Sender<usize>,
    /// Watches that the server ended early.
    cut: AtomicUsize,
    watchers: usize,
}

impl Tally {
    fn add(&self, events: usize) {
        let before = self.seen.fetch_add(events, Ordering::Relaxed);
        // Told only when another event has reached everyone.
        let after = before + events;
        if after / self.watchers > before / self.watchers {
            self.reached.send_if_modified(|reached| {
                let more = after > *reached;
                *reached = (*reached).max(after);
                more
            });
        }
    }

    /// Waits until every watcher has seen so many events.
    async fn wait(&self, events: usize) -> anyhow::Result<()> {
        let mut reached = self.reached.subscribe();
        let all = events * self.watchers;
        let done = reached.wait_for(|reached| *reached >= all);
        tokio::time::timeout(PATIENCE, done).await.context("some watchers did not get their events")??;
        Ok(())
    }
}

impl Target {
    pub async fn fan_out(&self, name: &str, unique: &str, watchers: usize) -> anyhow::Result<Vec<Figure>> {
        let collection = self.path("configmaps");
        let mut writer = self.server.connect().await?;
        let head = writer.call(&self.server.get(&format!("{collection}?limit=1"))).await?.start;
        let revision = head.split("\"resourceVersion\":\"").nth(1).and_then(|s| s.split('"').next());
        let revision = revision.context("the list has no resourceVersion")?;
        let path = format!(
            "{collection}?watch=true&resourceVersion={revision}&labelSelector=bench%3D{unique}&timeoutSeconds=600"
        );
        let request: Arc<[u8]> = self.server.get(&path).into();
        let (seen, cut) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let tally = Arc::new(Tally { seen, reached: watch::Sender::new(0), cut, watchers });
        let mut tasks = JoinSet::new();
        for _ in 0..watchers {
            let (connection, _) = open(&self.server, &request).await?;
            tasks.spawn(follow(self.server.clone(), request.clone(), connection, tally.clone()));
        }
        let make = |number: usize| {
            let body = objects::config_map(&format!("{unique}-{number}"), unique);
            self.server.post(&collection, &body)
        };
        let mut samples = Vec::new();
        for number in 0..SINGLE {
            let begun = Instant::now();
            writer.call(&make(number)).await?;
            tally.wait(number + 1).await?;
            samples.push(begun.elapsed());
        }
        let mut writers = JoinSet::new();
        let mut connections = Vec::new();
        for _ in 0..WRITERS {
            connections.push(self.server.connect().await?);
        }
        let cpu = memory::cpu(&self.pids);
        let begun = Instant::now();
        for (first, mut connection) in connections.into_iter().enumerate() {
            let requests: Vec<Vec<u8>> = (first..BURST).step_by(WRITERS).map(|i| make(SINGLE + i)).collect();
            writers.spawn(async move {
                for request in requests {
                    connection.call(&request).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = writers.join_next().await {
            done??;
        }
        tally.wait(SINGLE + BURST).await?;
        let took = begun.elapsed();
        let mut figures =
            vec![more(format!("{name}_events_per_second"), (watchers * BURST) as f64 / took.as_secs_f64())];
        let cpu = cpu.zip(memory::cpu(&self.pids)).map(|(before, after)| after - before);
        let each = |cpu: f64| less(format!("{name}_server_cpu_us"), cpu * 1e6 / (watchers * BURST) as f64);
        figures.extend(cpu.map(each));
        figures.extend(percentiles(&format!("{name}_to_last_watcher"), samples));
        figures.push(less(format!("{name}_watches_cut"), tally.cut.load(Ordering::Relaxed) as f64));
        Ok(figures)
    }
}

/// Counts the events of one watch; begins again from its first revision when the server ends it.
async fn follow(
    server: Server,
    request: Arc<[u8]>,
    mut connection: Connection,
    tally: Arc<Tally>,
) -> anyhow::Result<()> {
    let (mut told, mut seen) = (0_usize, 0);
    loop {
        while connection.more(|data| seen += count(data)).await.is_ok() {
            if seen > told {
                tally.add(seen - told);
                told = seen;
            }
        }
        tally.cut.fetch_add(1, Ordering::Relaxed);
        (connection, seen) = open(&server, &request).await?;
    }
}

/// Begins a watch; gives how many events came with its head.
async fn open(server: &Server, request: &[u8]) -> anyhow::Result<(Connection, usize)> {
    let mut connection = server.connect().await?;
    let mut seen = 0;
    let status = connection.open(request, |data| seen += count(data)).await?;
    anyhow::ensure!(status == 200, "the watch was refused with {status}");
    Ok((connection, seen))
}

/// Events end with lines.
fn count(data: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', data).count()
}
