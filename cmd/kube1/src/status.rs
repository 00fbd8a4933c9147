//! `kube1 status`: what the components of the running node are doing, and until when its certificates are valid.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use kube1_supervisor::{ComponentState, NodeStatus, query_status};

use crate::cli::{GlobalArgs, StatusArgs};
use crate::layout::Layout;

const CERTIFICATES_SHOWN: usize = 4;
/// How long `--wait-node` waits.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// The status socket gives one answer per connection: pause between two of them.
const WAIT_PERIOD: Duration = Duration::from_millis(50);

/// Prints the status; fails if the node is not running or a component is not ready.
pub async fn run(global: &GlobalArgs, args: &StatusArgs) -> anyhow::Result<()> {
    let layout = Layout::new(&global.data_dir);
    if args.wait_node {
        return wait_until_ready(&layout).await;
    }
    let status = query_status(&layout.status_socket()).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status).context("cannot print the status")?);
    } else {
        print_table(&status);
        print_certificates(&layout);
    }
    let failing = not_ready(&status);
    anyhow::ensure!(failing.is_empty(), "not ready: {}", failing.join(", "));
    Ok(())
}

fn not_ready(status: &NodeStatus) -> Vec<&str> {
    status.components.iter().filter(|c| c.state != ComponentState::Ready).map(|c| c.name.as_str()).collect()
}

/// The kubelet is ready when its node is, so all components being ready says it all.
async fn wait_until_ready(layout: &Layout) -> anyhow::Result<()> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let waiting_for = match query_status(&layout.status_socket()).await {
            Ok(status) => match not_ready(&status)[..] {
                [] => return Ok(()),
                ref names => names.join(", "),
            },
            Err(error) => error.to_string(),
        };
        anyhow::ensure!(Instant::now() < deadline, "not ready after {} s: {waiting_for}", WAIT_MAX.as_secs());
        tokio::time::sleep(WAIT_PERIOD).await;
    }
}

fn print_table(status: &NodeStatus) {
    println!("kube1 {} ({}), node {}, process {}", status.version, status.role, status.node_name, status.pid);
    println!("up {}\n", age(status.started));
    let width = status.components.iter().map(|c| c.name.len()).max().unwrap_or(0).max(9);
    println!("{:<width$}  {:<8}  {:>6}  RESTARTS", "COMPONENT", "STATE", "FOR");
    for component in &status.components {
        let state = format!("{:?}", component.state).to_lowercase();
        println!("{:<width$}  {state:<8}  {:>6}  {}", component.name, age(component.since), component.restarts);
        if let Some(error) = &component.last_error {
            println!("{:<width$}  last failure: {error}", "");
        }
    }
}

/// The certificates that end first, so that none ends unnoticed.
fn print_certificates(layout: &Layout) {
    let pki = kube1_pki::Layout::new(layout.root());
    let certificates = kube1_pki::list_expiries(&[&pki.server_tls(), &pki.node_pki()]);
    let now = kube1_pki::clock::unix_now();
    println!("\n{:<28}  VALID FOR", "CERTIFICATE");
    for certificate in certificates.iter().take(CERTIFICATES_SHOWN) {
        let name = certificate.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        println!("{name:<28}  {}d", (certificate.not_after - now) / 86400);
    }
}

/// How long ago, the way kubectl shows ages.
fn age(since: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let seconds = now.saturating_sub(since);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}
