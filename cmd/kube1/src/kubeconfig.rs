//! `kube1 kubeconfig`: the administrator's kubeconfig, for this or another address of the server.

use std::io::Write;

use anyhow::Context;

use crate::cli::{GlobalArgs, KubeconfigArgs};
use crate::layout::Layout;

/// Prints the kubeconfig or writes it to a file of mode 0600.
pub fn run(global: &GlobalArgs, args: &KubeconfigArgs) -> anyhow::Result<()> {
    let path = Layout::new(&global.data_dir).admin_kubeconfig();
    let mut text = std::fs::read_to_string(&path)
        .with_context(|| format!("no kubeconfig at {}: has a server been started here?", path.display()))?;
    if let Some(server) = &args.server {
        text = with_server(&text, server)?;
    }
    match &args.output {
        Some(file) => {
            kube1_pki::write_private(file, text.as_bytes()).with_context(|| format!("cannot write {}", file.display()))
        }
        None => std::io::stdout().write_all(text.as_bytes()).context("cannot print the kubeconfig"),
    }
}

fn with_server(text: &str, server: &str) -> anyhow::Result<String> {
    let valid = server.starts_with("https://") && !server.contains(char::is_whitespace) && server.len() > 8;
    anyhow::ensure!(valid, "{server:?} is no server address: give one such as https://192.168.1.10:6443");
    let replace = |line: &str| match line.split_once("server: ") {
        Some((indent, _)) if indent.trim().is_empty() => {
            format!("{indent}server: {}\n", serde_json::Value::from(server))
        }
        _ => format!("{line}\n"),
    };
    Ok(text.lines().map(replace).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_address_changes() {
        let text = "clusters:\n- cluster:\n    server: \"https://a:1\"\n    x: y\n";
        let expected = "clusters:\n- cluster:\n    server: \"https://b:2\"\n    x: y\n";
        assert_eq!(with_server(text, "https://b:2").unwrap(), expected);
        assert!(with_server(text, "b:2").is_err());
    }
}
