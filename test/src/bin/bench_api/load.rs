//! Loads of single requests: filling, lists, gets and creates.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::connection::{Accept, Connection};
use crate::report::{Figure, less, more, percentiles};
use crate::{Target, memory, objects};

/// What the calls of all workers of a load took, and it together.
struct Load {
    samples: Vec<Duration>,
    bytes: usize,
    took: Duration,
    /// CPU time of the server, in seconds.
    cpu: Option<f64>,
}

impl Load {
    fn per_second(&self, count: usize) -> f64 {
        count as f64 / self.took.as_secs_f64()
    }
}

impl Target {
    pub async fn fill(&self, pods: usize) -> anyhow::Result<Vec<Figure>> {
        let before = memory::read(&self.pids);
        let next = Arc::new(AtomicUsize::new(0));
        let (server, path) = (self.server.clone(), self.path("pods"));
        let make = move || {
            let number = next.fetch_add(1, Ordering::Relaxed);
            (number < pods).then(|| server.post(&path, &objects::pod(number)))
        };
        let load = self.load(32, Duration::MAX, make).await?;
        let mut figures = vec![more("fill_pods_per_second", load.per_second(pods))];
        // What was only needed to write them is given back after a while.
        tokio::time::sleep(Duration::from_secs(3)).await;
        if let (Some(before), Some(after)) = (before, memory::read(&self.pids)) {
            figures.push(less("memory_before_mb", before));
            figures.push(less("memory_filled_mb", after));
            figures.push(less("memory_per_pod_kb", (after - before) * 1024.0 / pods as f64));
        }
        Ok(figures)
    }

    pub async fn list_latency(&self, name: &str, accept: Accept, time: Duration) -> anyhow::Result<Vec<Figure>> {
        let request = self.server.request("GET", &self.path("pods"), accept, "");
        let mut connection = self.server.connect().await?;
        let end = Instant::now() + time;
        let (mut firsts, mut totals, mut size) = (Vec::new(), Vec::new(), 0);
        while Instant::now() < end || totals.len() < 5 {
            let answer = connection.call(&request).await?;
            firsts.push(answer.first);
            totals.push(answer.total);
            size = answer.size;
        }
        let mut figures = vec![less(format!("{name}_megabytes"), size as f64 / 1e6)];
        figures.extend(percentiles(&format!("{name}_first_byte"), firsts));
        figures.extend(percentiles(name, totals));
        Ok(figures)
    }

    pub async fn list(
        &self,
        name: &str,
        clients: usize,
        accept: Accept,
        time: Duration,
    ) -> anyhow::Result<Vec<Figure>> {
        let request = self.server.request("GET", &self.path("pods"), accept, "");
        let load = self.load(clients, time, move || Some(request.clone()));
        let (load, peak) = memory::peak(&self.pids, load).await;
        let load = load?;
        let mut figures = rates(name, &load);
        figures.push(more(format!("{name}_megabytes_per_second"), load.per_second(load.bytes) / 1e6));
        figures.extend(peak.map(|mb| less(format!("memory_{name}_peak_mb"), mb)));
        Ok(figures)
    }

    pub async fn get(
        &self,
        name: &str,
        connections: usize,
        accept: Accept,
        time: Duration,
    ) -> anyhow::Result<Vec<Figure>> {
        let request = self.server.request("GET", &format!("{}/pod-0", self.path("pods")), accept, "");
        Ok(rates(name, &self.load(connections, time, move || Some(request.clone())).await?))
    }

    pub async fn create(
        &self,
        name: &str,
        unique: &str,
        writers: usize,
        time: Duration,
    ) -> anyhow::Result<Vec<Figure>> {
        let next = Arc::new(AtomicUsize::new(0));
        let (server, path, unique) = (self.server.clone(), self.path("configmaps"), unique.to_owned());
        let make = move || {
            let name = format!("{unique}-{}", next.fetch_add(1, Ordering::Relaxed));
            Some(server.post(&path, &objects::config_map(&name, "create")))
        };
        Ok(rates(name, &self.load(writers, time, make).await?))
    }

    /// Time from sending a create to its event at a watcher.
    pub async fn watch_latency(&self, name: &str, unique: &str) -> anyhow::Result<Vec<Figure>> {
        let mut watcher = self.server.connect().await?;
        let path = format!("{}?watch=true&labelSelector=bench%3D{unique}", self.path("configmaps"));
        watcher.open(&self.server.get(&path), |_| {}).await?;
        let mut writer = self.server.connect().await?;
        let mut samples = Vec::new();
        for number in 0..100 {
            let body = objects::config_map(&format!("{unique}-{number}"), unique);
            let request = self.server.post(&self.path("configmaps"), &body);
            let begun = Instant::now();
            let seen = async {
                let mut whole = false;
                while !whole {
                    watcher.more(|data| whole = data.ends_with(b"\n")).await?;
                }
                anyhow::Ok(begun.elapsed())
            };
            let (written, seen) = tokio::join!(writer.call(&request), seen);
            written?;
            samples.push(seen?);
        }
        Ok(percentiles(name, samples))
    }

    /// Sends what `make` gives as fast as `clients` connections can, until the time is over or nothing is left.
    async fn load(
        &self,
        clients: usize,
        time: Duration,
        make: impl Fn() -> Option<Vec<u8>> + Clone + Send + 'static,
    ) -> anyhow::Result<Load> {
        let mut connections: Vec<Connection> = Vec::new();
        for _ in 0..clients {
            connections.push(self.server.connect().await?);
        }
        let cpu = memory::cpu(&self.pids);
        let begun = Instant::now();
        let mut workers: JoinSet<anyhow::Result<(Vec<Duration>, usize)>> = JoinSet::new();
        for mut connection in connections {
            let make = make.clone();
            workers.spawn(async move {
                let (mut samples, mut bytes) = (Vec::new(), 0);
                while begun.elapsed() < time {
                    let Some(request) = make() else { break };
                    let answer = connection.call(&request).await?;
                    samples.push(answer.total);
                    bytes += answer.size;
                }
                Ok((samples, bytes))
            });
        }
        let mut load = Load { samples: Vec::new(), bytes: 0, took: Duration::ZERO, cpu: None };
        while let Some(done) = workers.join_next().await {
            let (samples, bytes) = done??;
            load.samples.extend(samples);
            load.bytes += bytes;
        }
        load.took = begun.elapsed();
        load.cpu = cpu.zip(memory::cpu(&self.pids)).map(|(before, after)| after - before);
        Ok(load)
    }
}

fn rates(name: &str, load: &Load) -> Vec<Figure> {
    let mut figures = vec![more(format!("{name}_per_second"), load.per_second(load.samples.len()))];
    figures.extend(percentiles(name, load.samples.clone()));
    let each = |cpu: f64| less(format!("{name}_server_cpu_us"), cpu * 1e6 / load.samples.len() as f64);
    figures.extend(load.cpu.map(each));
    figures
}
