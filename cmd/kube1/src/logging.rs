//! The log on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::{GlobalArgs, LogFormat};

/// Starts logging; the first call wins. `RUST_LOG` overrides the flags.
pub fn start(global: &GlobalArgs) {
    let ours = match global.verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let fallback = if global.verbose > 1 { ours.to_owned() } else { format!("warn,{}", kube1_crates(ours)) };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(fallback));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start, as in tests, keeps the first subscriber.
    let _ = match global.log_format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

fn kube1_crates(level: &str) -> String {
    const CRATES: [&str; 15] = [
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
        "kube1_supervisor",
    ];
    CRATES.map(|name| format!("{name}={level}")).join(",")
}
