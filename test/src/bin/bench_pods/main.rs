//! Measures how long a node takes from a pod's creation to Ready, and beside it, in turns, how long the container runtime
//! alone takes for the same sandbox and container when the CRI calls are made by hand. Then many at once, and their end.
//!
//! usage: bench_pods --kubeconfig FILE --socket CRI_SOCKET --image IMAGE [--pods N] [--at-once N]
//!
//! Must run on the node itself, in its mount namespace, as it makes the files that containers mount. The image needs a
//! shell. Works in a namespace of its own that is deleted at the end. Prints `key: value` lines; a ratio says how many
//! times longer the pods took.

mod by_api;
mod by_hand;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use by_api::Pods;
use by_hand::Hand;

/// Ends at SIGTERM, as a well-behaved program does.
const COMMAND: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"];
/// No phase takes longer on a machine that works.
const LIMIT: Duration = Duration::from_secs(600);

/// What to measure.
struct Options {
    kubeconfig: PathBuf,
    socket: PathBuf,
    image: String,
    pods: usize,
    at_once: usize,
}

fn main() -> anyhow::Result<()> {
    let options = parse(std::env::args().skip(1))?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(&options))
}

fn parse(mut args: impl Iterator<Item = String>) -> anyhow::Result<Options> {
    let (mut kubeconfig, mut socket, mut image, mut pods, mut at_once) = (None, None, None, 20, 100);
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<usize>().with_context(|| format!("{flag} needs a number"));
        match flag.as_str() {
            "--kubeconfig" => kubeconfig = Some(value.into()),
            "--socket" => socket = Some(value.into()),
            "--image" => image = Some(value),
            "--pods" => pods = number()?.max(1),
            "--at-once" => at_once = number()?,
            _ => anyhow::bail!("unknown flag {flag}"),
        }
    }
    Ok(Options {
        kubeconfig: kubeconfig.context("--kubeconfig is missing")?,
        socket: socket.context("--socket is missing")?,
        image: image.context("--image is missing")?,
        pods,
        at_once,
    })
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let mut pods = Pods::new(&options.kubeconfig, &options.image).await?;
    let measured = tokio::time::timeout(LIMIT, measure(options, &mut pods)).await;
    pods.clean_up().await?;
    measured.context("the benchmark took too long")?
}

async fn measure(options: &Options, pods: &mut Pods) -> anyhow::Result<()> {
    // The first of each fills caches.
    pods.make(&["warm".to_owned()]).await?;
    let hand = Hand::new(&options.socket, &options.image, &pods.uid("warm").await?).await?;
    let measured = compare(options, &hand, pods).await;
    hand.end_all().await?;
    measured
}

async fn compare(options: &Options, hand: &Hand, pods: &mut Pods) -> anyhow::Result<()> {
    hand.make("warm").await?;
    let (mut alone, mut whole) = (Vec::new(), Vec::new());
    for number in 0..options.pods {
        let name = format!("single-{number}");
        alone.push(timed(hand.make(&name)).await?);
        whole.push(timed(pods.make(&[name])).await?);
    }
    for (key, part) in [("p50", 50), ("p99", 99)] {
        print_pair(&format!("pod_ready_{key}"), percentile(&mut whole, part), percentile(&mut alone, part));
    }
    hand.end_all().await?;
    pods.end_all().await?;
    if options.at_once == 0 {
        return Ok(());
    }
    let names: Vec<String> = (0..options.at_once).map(|number| format!("many-{number}")).collect();
    println!("pods_at_once: {}", names.len());
    let alone = timed(hand.make_all(&names)).await?;
    let alone_end = timed(hand.end_all()).await?;
    print_pair("pods_at_once_ready", timed(pods.make(&names)).await?, alone);
    print_pair("pods_at_once_gone", timed(pods.end_all()).await?, alone_end);
    Ok(())
}

async fn timed(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<f64> {
    let start = Instant::now();
    work.await?;
    Ok(start.elapsed().as_secs_f64())
}

fn percentile(times: &mut [f64], part: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    times[(times.len() * part).div_ceil(100).clamp(1, times.len()) - 1]
}

fn print_pair(key: &str, whole: f64, alone: f64) {
    println!("{key}_seconds: {whole:.3}\n{key}_cri_by_hand_seconds: {alone:.3}\n{key}_ratio: {:.2}", whole / alone);
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_measured_values() {
        let mut times: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!([50, 99, 0].map(|part| percentile(&mut times, part) as u32), [10, 20, 1]);
        assert_eq!(percentile(&mut [7.0], 50) as u32, 7);
    }
}
