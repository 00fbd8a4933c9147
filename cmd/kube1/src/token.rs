//! `kube1 token`: join tokens of the cluster.

use anyhow::Context;
use kube1_join::{TokenInfo, create_token, delete_token, list_tokens};

use crate::cli::{GlobalArgs, TokenCommand};
use crate::layout::Layout;

/// Runs on a server, as the administrator.
pub async fn run(global: &GlobalArgs, command: &TokenCommand) -> anyhow::Result<()> {
    let path = Layout::new(&global.data_dir).admin_kubeconfig();
    anyhow::ensure!(
        path.exists(),
        "{} does not exist: join tokens are made on a server, with its --data-dir",
        path.display()
    );
    let client = kube1_client::from_kubeconfig(&path).await?;
    match command {
        TokenCommand::Create { ttl, description } => {
            let kubeconfig = kube::config::Kubeconfig::read_from(&path).context("cannot read the kubeconfig")?;
            let cluster = kubeconfig.clusters.into_iter().next().and_then(|c| c.cluster).unwrap_or_default();
            let server = cluster.server.context("the kubeconfig names no server")?;
            let token = create_token(&client, &server, &ca_pem(global)?, *ttl, description).await?;
            println!("{token}");
        }
        TokenCommand::List => print_tokens(&list_tokens(&client).await?),
        TokenCommand::Delete { id } => {
            delete_token(&client, id).await?;
            println!("deleted {id}");
        }
    }
    Ok(())
}

fn ca_pem(global: &GlobalArgs) -> anyhow::Result<String> {
    let path = kube1_pki::Layout::new(&global.data_dir).server_tls().join("ca.crt");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn print_tokens(tokens: &[TokenInfo]) {
    println!("{:<8}  {:<24}  DESCRIPTION", "ID", "EXPIRES");
    for token in tokens {
        let expires = token.expires.as_deref().unwrap_or("never");
        println!("{:<8}  {expires:<24}  {}", token.id, token.description);
    }
}
