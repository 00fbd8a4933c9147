//! Asking a running server for a snapshot, over a Unix socket that only its owner may open.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use kube1_store::Store;
use kube1_supervisor::{BoxError, Component, Context};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::archive::{self, Parts};
use crate::layout::Layout;

/// Longest name that is read.
const NAME_MAX: u64 = 128;
/// How long a client may take to say its name.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Serialize, Deserialize)]
enum Answer {
    Saved(PathBuf),
    Failed(String),
}

/// The server's side.
pub struct SnapshotService {
    layout: Layout,
    store: Arc<dyn Store>,
}

impl SnapshotService {
    pub fn new(layout: Layout, store: Arc<dyn Store>) -> Self {
        Self { layout, store }
    }

    /// One request at a time: a second one waits for the first.
    async fn answer(&self, stream: &mut UnixStream) -> std::io::Result<()> {
        let mut name = String::new();
        let (reader, mut writer) = stream.split();
        let asked = tokio::time::timeout(ASK_TIMEOUT, reader.take(NAME_MAX).read_to_string(&mut name)).await;
        let answer = match asked {
            Ok(Ok(_)) if super::is_file_name(&name) => self.save(&name).await,
            _ => Answer::Failed("the request was no name of a snapshot".into()),
        };
        writer.write_all(&serde_json::to_vec(&answer)?).await
    }

    async fn save(&self, name: &str) -> Answer {
        let parts = Parts::of(&self.layout.server());
        match archive::save(self.store.as_ref(), &parts, &self.layout.snapshots(), name).await {
            Ok(path) => Answer::Saved(path),
            Err(error) => Answer::Failed(format!("{error:#}")),
        }
    }
}

#[async_trait]
impl Component for SnapshotService {
    fn name(&self) -> &str {
        "snapshots"
    }

    async fn run(&self, ctx: Context) -> Result<(), BoxError> {
        let path = self.layout.snapshot_socket();
        // A socket that an earlier process left; its directory is only the owner's.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        ctx.ready();
        loop {
            let accepted = tokio::select! {
                () = ctx.shutdown.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let (mut stream, _) = accepted?;
            if let Err(error) = self.answer(&mut stream).await {
                tracing::debug!(%error, "who asked for a snapshot went away");
            }
        }
    }
}

/// The client's side: gives the path of the new snapshot.
pub async fn save(layout: &Layout, name: &str) -> anyhow::Result<PathBuf> {
    let path = layout.snapshot_socket();
    let stream = UnixStream::connect(&path).await;
    let mut stream = stream.with_context(|| format!("no server runs on {}", layout.root().display()))?;
    stream.write_all(name.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    match serde_json::from_slice(&answer).context("the server gave no answer")? {
        Answer::Saved(path) => Ok(path),
        Answer::Failed(why) => anyhow::bail!("no snapshot was made: {why}"),
    }
}
