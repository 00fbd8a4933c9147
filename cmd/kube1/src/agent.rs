//! `kube1 agent`: a worker that joins a cluster.

use std::sync::Arc;

use anyhow::Context;
use kube1_join::{CertificateRotation, JoinConfig, JoinToken, join};
use kube1_supervisor::Supervisor;

use crate::cli::{AgentArgs, GlobalArgs};
use crate::layout::Layout;
use crate::node::{Node, run_until_stopped, stop_at_signal};
use crate::process_guard::ProcessGuard;
use crate::worker::{Runtime, Worker, WorkerCredentials};

/// Runs until SIGTERM or SIGINT. The token is needed once; later starts use what was issued then, server or not.
pub async fn run(global: &GlobalArgs, args: &AgentArgs) -> anyhow::Result<()> {
    let token = args.join.as_deref().map(str::parse::<JoinToken>).transpose().context("--join")?;
    let layout = Layout::new(&global.data_dir);
    let node = Node::find(layout.clone(), &args.node)?;
    let runtime = Runtime::prepare(&args.node)?;
    let _guard = ProcessGuard::take(&layout)?;
    let config = JoinConfig { data_dir: layout.root().to_owned(), node_name: node.name.clone(), token };
    let joined = tokio::select! {
        joined = join(&config, &node.stop) => joined.context("cannot join the cluster")?,
        stopped = stop_at_signal() => return stopped,
    };

    let mut supervisor = Supervisor::new();
    let credentials = WorkerCredentials {
        client: joined.client.clone(),
        serving: joined.serving.clone(),
        ca_pem: joined.ca_pem.clone(),
    };
    supervisor.start(Arc::new(CertificateRotation::new(joined, vec![node.address])));
    Worker { node: &node, args: &args.node, runtime: &runtime, credentials }.start(&mut supervisor)?;
    run_until_stopped("agent", &node, supervisor).await
}
