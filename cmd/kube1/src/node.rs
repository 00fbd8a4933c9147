//! What server and agent share: who this node is, its status socket, and its end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use kube1_supervisor::{MemoryTrimmer, NodeStatus, Supervisor, serve_status};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::NodeArgs;
use crate::layout::Layout;
use crate::{node_identity, version};

/// A node's identity and place.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub address: IpAddr,
    pub layout: Layout,
    /// Cancelled after all components have stopped: ends what they share.
    pub stop: CancellationToken,
}

impl Node {
    /// Takes name and address from the flags or the host.
    pub fn find(layout: Layout, args: &NodeArgs) -> anyhow::Result<Self> {
        let name = node_identity::node_name(args.node_name.as_deref())?;
        let address = node_identity::node_ip(args.node_ip)?;
        Ok(Self { name, address, layout, stop: CancellationToken::new() })
    }
}

/// Serves the status socket until the process is told to end, then stops every component.
pub async fn run_until_stopped(role: &str, node: &Node, mut supervisor: Supervisor) -> anyhow::Result<()> {
    supervisor.start(Arc::new(MemoryTrimmer));
    let board = supervisor.board();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let status = || NodeStatus {
        role: role.to_owned(),
        node_name: node.name.clone(),
        version: version::LONG.to_owned(),
        pid: std::process::id(),
        started,
        components: board.snapshot(),
    };
    let socket = node.layout.status_socket();
    let serve = serve_status(&socket, status, node.stop.clone());
    tokio::pin!(serve);
    let served = tokio::select! {
        served = &mut serve => served,
        stopped = stop_at_signal() => {
            stopped?;
            Ok(())
        }
    };
    tracing::info!("stopping; containers go on running");
    supervisor.stop().await;
    node.stop.cancel();
    served.context("the status socket failed")
}

/// Waits for SIGTERM or SIGINT.
pub async fn stop_at_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
