//! What a process tells of itself: tracing set-up (what is logged, in which form), its own metrics, and the ports where
//! such things are asked for.

mod build;
mod meters;
pub mod metrics;
mod pages;
mod plain;
pub mod port;
mod process;

pub use meters::{Counters, Histogram, Histograms, SECONDS, write_histograms};
pub use pages::Pages;
pub use plain::{PlainWriter, log_works, plain};

use std::io::IsTerminal;

pub use build::{Build, platform};
pub use process::{build_metrics, process_metrics};
use tracing_subscriber::EnvFilter;

/// Form of the log on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Crates that follow the verbosity; all others say warnings only, below trace.
const CRATES: [&str; 18] = [
    "kube1",
    "kube1_api",
    "kube1_apiserver",
    "kube1_client",
    "kube1_controllers",
    "kube1_cri",
    "kube1_dns",
    "kube1_join",
    "kube1_kubelet",
    "kube1_network",
    "kube1_pki",
    "kube1_proxy",
    "kube1_scheduler",
    "kube1_store",
    "kube1_streaming",
    "kube1_supervisor",
    "kube1_telemetry",
    "kube1_images",
];

/// Starts logging; the first call wins. `verbosity` is 0 for info, 1 for debug, more for trace; `RUST_LOG` overrides it.
pub fn start_logging(format: LogFormat, verbosity: u8) {
    let fallback = match verbosity {
        0 => ours("info"),
        1 => ours("debug"),
        _ => "trace".to_owned(),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(fallback));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| PlainWriter(std::io::stderr()));
    // A second start, as in tests, keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

fn ours(level: &str) -> String {
    let ours = CRATES.map(|name| format!("{name}={level}")).join(",");
    format!("warn,{ours}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_understood() {
        assert!(EnvFilter::try_new(ours("debug")).is_ok());
    }
}
