//! `kube1 token`: join tokens of the cluster.

use anyhow::Context;
use kube1_join::{NewToken, TokenInfo, create_token, delete_token, list_tokens};
use kube1_pki::Authority;

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
            let server = server.trim_start_matches("https://").trim_end_matches('/').to_owned();
            let new = NewToken {
                description: description.clone(),
                ttl: Some(*ttl),
                servers: vec![server],
                ca_hash: ca_hash(global)?,
            };
            println!("{}", create_token(&client, &new).await?);
        }
        TokenCommand::List => print_tokens(&list_tokens(&client).await?),
        TokenCommand::Delete { id } => {
            delete_token(&client, id).await?;
            println!("deleted {id}");
        }
    }
    Ok(())
}

/// What joining nodes know the cluster by.
fn ca_hash(global: &GlobalArgs) -> anyhow::Result<String> {
    let dir = kube1_pki::Layout::new(&global.data_dir).server_tls();
    let ca = Authority::load_or_create(&dir, "ca", "kubernetes-ca");
    Ok(ca.with_context(|| format!("cannot read the CA in {}", dir.display()))?.hash())
}

fn print_tokens(tokens: &[TokenInfo]) {
    println!("{:<8}  {:<24}  DESCRIPTION", "ID", "EXPIRES");
    for token in tokens.iter().filter(|token| token.for_joining) {
        let expires = token.expires.as_deref().unwrap_or("never");
        let expires = if token.is_expired { "expired" } else { expires };
        println!("{:<8}  {expires:<24}  {}", token.id, token.description);
    }
}
