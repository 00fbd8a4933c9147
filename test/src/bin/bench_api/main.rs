//! Measures a Kubernetes apiserver from outside: any one, and a second one in turns, so that their ratios hold on a
//! machine that does other things too.
//!
//! usage: bench_api --server https://HOST:PORT --token TOKEN [--pid PID[,PID]]
//!                  [--against https://HOST:PORT --against-token TOKEN [--against-pid PID[,PID]]]
//!                  [--pods N] [--seconds S] [--rounds R] [--watchers N] [--only PHASE[,PHASE]]
//!
//! Works in a namespace of its own that is deleted at the end. Prints `key: value` lines, the median of all rounds; with
//! two servers also `key_against` and `key_ratio`, how many times better the first one is.

mod answer;
mod connection;
mod fan_out;
mod load;
mod memory;
mod objects;
mod phase;
mod report;

use std::time::Duration;

use anyhow::Context;
use connection::Server;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    pods: usize,
    /// Of one phase of one round.
    duration: Duration,
    rounds: usize,
    watchers: usize,
    /// Phases by name; empty for all.
    only: Vec<String>,
}

/// A server, its processes, and the namespace that is worked in.
pub struct Target {
    server: Server,
    pids: Vec<u32>,
    namespace: String,
}

fn main() -> anyhow::Result<()> {
    let (targets, options) = parse(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(phase::run(&targets, &options))
}

fn parse(args: impl Iterator<Item = String>) -> anyhow::Result<(Vec<Target>, Options)> {
    let mut servers: [(Option<String>, Option<String>, Vec<u32>); 2] = Default::default();
    let mut options =
        Options { pods: 10_000, duration: Duration::from_secs(3), rounds: 3, watchers: 1_000, only: Vec::new() };
    let mut args = args;
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<usize>().with_context(|| format!("{flag} needs a number"));
        let pids = || value.split(',').map(|p| p.parse::<u32>().with_context(|| format!("{flag} needs process ids")));
        match flag.as_str() {
            "--server" => servers[0].0 = Some(value),
            "--token" => servers[0].1 = Some(value),
            "--pid" => servers[0].2 = pids().collect::<Result<_, _>>()?,
            "--against" => servers[1].0 = Some(value),
            "--against-token" => servers[1].1 = Some(value),
            "--against-pid" => servers[1].2 = pids().collect::<Result<_, _>>()?,
            "--pods" => options.pods = number()?,
            "--seconds" => options.duration = Duration::from_secs(number()? as u64),
            "--rounds" => options.rounds = number()?.max(1),
            "--watchers" => options.watchers = number()?,
            "--only" => options.only = value.split(',').map(str::to_owned).collect(),
            _ => anyhow::bail!("unknown flag {flag}"),
        }
    }
    let namespace = format!("bench-{}", std::process::id());
    let [first, second] = servers;
    let mut targets = Vec::new();
    for (url, token, pids) in [first, second] {
        let Some(url) = url else { continue };
        let server = Server::new(&url, &token.context("a token is missing")?)?;
        targets.push(Target { server, pids, namespace: namespace.clone() });
    }
    anyhow::ensure!(!targets.is_empty(), "--server is missing");
    Ok((targets, options))
}
