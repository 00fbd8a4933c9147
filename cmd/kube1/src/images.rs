//! `kube1 images`: the images of this node's container runtime, without a registry.

use std::path::PathBuf;

use anyhow::Context;
use kube1_cri::images;

use crate::cli::{GlobalArgs, ImagesCommand};
use crate::containerd::NAMESPACE;
use crate::layout::Layout;

/// Imports archives or lists what is there; the node must be running.
pub async fn run(global: &GlobalArgs, command: &ImagesCommand) -> anyhow::Result<()> {
    let socket = Layout::new(&global.data_dir).containerd_socket();
    anyhow::ensure!(
        socket.exists(),
        "containerd does not run in {}: start the node first, or name its --data-dir",
        global.data_dir.display()
    );
    match command {
        ImagesCommand::Import { files } => import(&socket, files).await,
        ImagesCommand::List => list(&socket).await,
    }
}

async fn import(socket: &std::path::Path, files: &[PathBuf]) -> anyhow::Result<()> {
    for file in files {
        let names = images::import(socket, file, NAMESPACE)
            .await
            .with_context(|| format!("cannot import {}", file.display()))?;
        for name in names {
            println!("imported {name}");
        }
    }
    Ok(())
}

async fn list(socket: &std::path::Path) -> anyhow::Result<()> {
    let images = images::list(socket).await.context("cannot list the images")?;
    let width = images.iter().flat_map(|i| &i.names).map(String::len).max().unwrap_or(0).max(5);
    println!("{:<width$}  {:<19}  {:>10}", "IMAGE", "ID", "SIZE");
    for image in &images {
        let id: String = image.id.chars().take(19).collect();
        let names = if image.names.is_empty() { &["<none>".to_owned()][..] } else { &image.names };
        for name in names {
            println!("{name:<width$}  {id:<19}  {:>10}", size(image.size));
        }
    }
    Ok(())
}

/// Bytes in decimal units, as other container tools print them.
fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1_000 => return format!("{bytes} B"),
        1_000..1_000_000 => (1e3, "kB"),
        1_000_000..1_000_000_000 => (1e6, "MB"),
        _ => (1e9, "GB"),
    };
    format!("{:.1} {name}", bytes as f64 / unit)
}
