//! The loads, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::Options;
use crate::connection::{Connection, Server};
use crate::report::{line, memory, milliseconds, per_second, percentiles};

/// Measures everything, then deletes what it made.
pub async fn run(server: &Server, options: &Options) -> anyhow::Result<()> {
    let name = format!("bench-{}", std::process::id());
    let mut connection = server.connect().await?;
    let namespace = format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#);
    connection.call(Method::POST, "/api/v1/namespaces", namespace.into()).await?;
    let bench = Bench { server: server.clone(), options: options.clone(), namespace: name.clone() };
    let measured = bench.measure().await;
    connection.call(Method::DELETE, &format!("/api/v1/namespaces/{name}"), Bytes::new()).await?;
    measured
}

struct Bench {
    server: Server,
    options: Options,
    namespace: String,
}

impl Bench {
    async fn measure(&self) -> anyhow::Result<()> {
        let pid = self.options.pid;
        memory("memory_before_mb", pid);
        self.wait_for_service_account().await?;
        self.fill().await?;
        memory("memory_filled_mb", pid);
        self.list(1).await?;
        self.list(16).await?;
        memory("memory_after_lists_mb", pid);
        self.get(1).await?;
        self.get(64).await?;
        self.create(1).await?;
        self.create(32).await?;
        self.watch_latency().await?;
        self.fan_out().await?;
        memory("memory_end_mb", pid);
        Ok(())
    }

    fn pods(&self) -> String {
        format!("/api/v1/namespaces/{}/pods", self.namespace)
    }

    fn config_maps(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    /// Pods are only admitted once the namespace has its account, where a controller makes it.
    async fn wait_for_service_account(&self) -> anyhow::Result<()> {
        let mut connection = self.server.connect().await?;
        let path = format!("/api/v1/namespaces/{}/serviceaccounts", self.namespace);
        let account = r#"{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}"#;
        // A conflict says that a controller was faster.
        let response = connection.send(Method::POST, &path, account.into()).await?;
        response.into_body().collect().await?;
        Ok(())
    }

    async fn fill(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let next = Arc::new(AtomicUsize::new(0));
        let (count, path) = (self.options.pods, self.pods());
        self.workers(32, move |mut connection, _| {
            let (next, path) = (Arc::clone(&next), path.clone());
            async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok(0);
                    }
                    connection.call(Method::POST, &path, pod(number)).await?;
                }
            }
        })
        .await?;
        line("pods", count);
        line("fill_pods_per_second", per_second(count, begun.elapsed()));
        Ok(())
    }

    async fn list(&self, clients: usize) -> anyhow::Result<()> {
        let path = self.pods();
        let mut connection = self.server.connect().await?;
        if clients == 1 {
            let (mut firsts, mut totals, mut size) = (Vec::new(), Vec::new(), 0);
            for _ in 0..5 {
                let begun = Instant::now();
                let (bytes, first) = connection.call(Method::GET, &path, Bytes::new()).await?;
                firsts.push(first);
                totals.push(begun.elapsed());
                size = bytes;
            }
            line("list_megabytes", format!("{:.1}", size as f64 / 1e6));
            percentiles("list_first_byte", firsts);
            percentiles("list", totals);
            return Ok(());
        }
        let rate = self.repeat(clients, Method::GET, move |_| (path.clone(), Bytes::new())).await?;
        line(&format!("list_per_second_{clients}_clients"), rate);
        Ok(())
    }

    async fn get(&self, clients: usize) -> anyhow::Result<()> {
        let path = format!("{}/pod-0", self.pods());
        let rate = self.repeat(clients, Method::GET, move |_| (path.clone(), Bytes::new())).await?;
        line(&format!("get_per_second_{clients}_connections"), rate);
        Ok(())
    }

    async fn create(&self, writers: usize) -> anyhow::Result<()> {
        let path = self.config_maps();
        let next = Arc::new(AtomicUsize::new(0));
        let make = move |_| (path.clone(), config_map(&format!("w{writers}-{}", next.fetch_add(1, Ordering::Relaxed))));
        let rate = self.repeat(writers, Method::POST, make).await?;
        line(&format!("create_per_second_{writers}_writers"), rate);
        Ok(())
    }

    /// Time from sending a create to its event at a watcher.
    async fn watch_latency(&self) -> anyhow::Result<()> {
        let mut watcher = self.server.connect().await?;
        let selector = "labelSelector=bench%3Dlatency";
        let path = format!("{}?watch=true&{selector}", self.config_maps());
        let mut events = watcher.send(Method::GET, &path, Bytes::new()).await?.into_body();
        let mut writer = self.server.connect().await?;
        let collection = self.config_maps();
        let mut samples = Vec::new();
        for number in 0..200 {
            let body = labelled(&format!("latency-{number}"), "latency");
            let begun = Instant::now();
            let written = writer.call(Method::POST, &collection, body);
            let seen = async {
                let frame = events.frame().await.context("the watch ended")??;
                anyhow::Ok((frame, begun.elapsed()))
            };
            let (written, seen) = tokio::join!(written, seen);
            written?;
            samples.push(seen?.1);
        }
        percentiles("create_to_watch_event", samples);
        Ok(())
    }

    /// Events of some creates delivered to many watchers.
    async fn fan_out(&self) -> anyhow::Result<()> {
        const CREATES: usize = 50;
        let watchers = self.options.watchers;
        let ready = Arc::new(Barrier::new(watchers + 1));
        let mut tasks: JoinSet<anyhow::Result<Instant>> = JoinSet::new();
        let path = format!("{}?watch=true&labelSelector=bench%3Dfanout", self.config_maps());
        for _ in 0..watchers {
            let (server, path, ready) = (self.server.clone(), path.clone(), Arc::clone(&ready));
            tasks.spawn(async move {
                let mut connection = server.connect().await?;
                let mut body = connection.send(Method::GET, &path, Bytes::new()).await?.into_body();
                ready.wait().await;
                let mut lines = 0;
                while lines < CREATES {
                    let frame = body.frame().await.context("the watch ended")??;
                    lines += frame.data_ref().map_or(0, |data| data.iter().filter(|b| **b == b'\n').count());
                }
                Ok(Instant::now())
            });
        }
        ready.wait().await;
        let mut writer = self.server.connect().await?;
        let begun = Instant::now();
        for number in 0..CREATES {
            writer.call(Method::POST, &self.config_maps(), labelled(&format!("fan-{number}"), "fanout")).await?;
        }
        let mut last = begun;
        while let Some(ended) = tasks.join_next().await {
            last = last.max(ended??);
        }
        line("watchers", watchers);
        line("fan_out_events_per_second", per_second(watchers * CREATES, last - begun));
        line("fan_out_total_ms", milliseconds(last - begun));
        Ok(())
    }

    /// Calls as fast as `clients` connections can for the measuring time; gives calls per second.
    async fn repeat(
        &self,
        clients: usize,
        method: Method,
        make: impl Fn(usize) -> (String, Bytes) + Clone + Send + Sync + 'static,
    ) -> anyhow::Result<String> {
        let duration = self.options.duration;
        let total = self
            .workers(clients, move |mut connection, worker| {
                let (make, method) = (make.clone(), method.clone());
                async move {
                    let end = Instant::now() + duration;
                    let mut count = 0;
                    while Instant::now() < end {
                        let (path, body) = make(worker);
                        connection.call(method.clone(), &path, body).await?;
                        count += 1;
                    }
                    Ok(count)
                }
            })
            .await?;
        Ok(per_second(total.0, total.1))
    }

    /// Runs `work` on so many connections at once; gives the sum of its results and the time of all.
    async fn workers<F, Fut>(&self, count: usize, work: F) -> anyhow::Result<(usize, Duration)>
    where
        F: Fn(Connection, usize) -> Fut,
        Fut: Future<Output = anyhow::Result<usize>> + Send + 'static,
    {
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(self.server.connect().await?);
        }
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for (worker, connection) in connections.into_iter().enumerate() {
            tasks.spawn(work(connection, worker));
        }
        let mut total = 0;
        while let Some(done) = tasks.join_next().await {
            total += done??;
        }
        Ok((total, begun.elapsed()))
    }
}

/// A pod of the size that real ones have, about 2.7 KB as stored.
fn pod(number: usize) -> Bytes {
    let environment: Vec<String> = (0..12)
        .map(|i| format!(r#"{{"name":"SETTING_{i}","value":"a value of ordinary length, number {i}"}}"#))
        .collect();
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"pod-{number}","labels":{{"app":"bench","shard":"{}"}},"annotations":{{"bench/note":"{}"}}}},"spec":{{"schedulerName":"none","containers":[{{"name":"main","image":"registry.example/bench/application:1.2.3","command":["/app","--verbose"],"env":[{}],"resources":{{"requests":{{"cpu":"100m","memory":"64Mi"}},"limits":{{"cpu":"1","memory":"128Mi"}}}},"ports":[{{"containerPort":8080,"name":"http"}}]}}]}}}}"#,
        number % 16,
        "n".repeat(200),
        environment.join(",")
    )
    .into()
}

fn config_map(name: &str) -> Bytes {
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"key":"value"}}}}"#)
        .into()
}

fn labelled(name: &str, label: &str) -> Bytes {
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","labels":{{"bench":"{label}"}}}},"data":{{"key":"value"}}}}"#
    )
    .into()
}
