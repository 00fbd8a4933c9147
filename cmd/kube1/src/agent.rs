//! `kube1 agent`: a worker that joins a cluster.

use std::sync::Arc;

use anyhow::Context;
use kube1_join::{AgentPki, Joined};
use kube1_supervisor::Supervisor;

use crate::cli::{AgentArgs, GlobalArgs};
use crate::layout::Layout;
use crate::node::{Node, run_until_stopped};
use crate::process_guard::ProcessGuard;
use crate::worker::{self, Worker, WorkerCredentials};

/// Runs until SIGTERM or SIGINT. The token is needed once; later starts use what was issued then, server or not.
pub async fn run(global: &GlobalArgs, args: &AgentArgs) -> anyhow::Result<()> {
    let layout = Layout::new(&global.data_dir);
    let node = Node::find(layout.clone(), &args.node)?;
    let programs = worker::prepare_host(&args.node)?;
    let _guard = ProcessGuard::take(&layout)?;
    let joined = join(&layout, &node, args.join.as_deref()).await?;

    let mut supervisor = Supervisor::new();
    let credentials = WorkerCredentials {
        client: kube1_client::from_kubeconfig(&layout.kubelet_kubeconfig()).await?,
        pki: joined.pki,
    };
    supervisor.start(Arc::new(AgentPki::new(&layout, &node)));
    Worker { node: &node, args: &args.node, programs: &programs, credentials }.start(&mut supervisor)?;
    run_until_stopped("agent", &node, supervisor).await
}
