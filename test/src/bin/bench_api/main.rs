//! Measures a Kubernetes apiserver from outside, any one, so that two can be compared in one run.
//!
//! usage: bench_api --server https://HOST:PORT --token TOKEN [--pods N] [--seconds S] [--watchers N] [--pid PID]
//!
//! Works in a namespace of its own that is deleted at the end, and prints `key: value` lines.

mod connection;
mod load;
mod report;

use std::time::Duration;

use anyhow::Context;
use connection::Server;

/// What to measure.
#[derive(Clone, Debug)]
struct Options {
    pods: usize,
    duration: Duration,
    watchers: usize,
    /// The server's process, for its memory.
    pid: Option<u32>,
}

fn main() -> anyhow::Result<()> {
    let (server, options) = parse(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(load::run(&server, &options))
}

fn parse(mut args: impl Iterator<Item = String>) -> anyhow::Result<(Server, Options)> {
    let (mut url, mut token) = (None, None);
    let mut options = Options { pods: 10_000, duration: Duration::from_secs(5), watchers: 1_000, pid: None };
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--server" => url = Some(value),
            "--token" => token = Some(value),
            "--pods" => options.pods = value.parse().context("--pods")?,
            "--seconds" => options.duration = Duration::from_secs(value.parse().context("--seconds")?),
            "--watchers" => options.watchers = value.parse().context("--watchers")?,
            "--pid" => options.pid = Some(value.parse().context("--pid")?),
            _ => anyhow::bail!("unknown flag {flag}"),
        }
    }
    let server = Server::new(&url.context("--server is missing")?, &token.context("--token is missing")?)?;
    Ok((server, options))
}
