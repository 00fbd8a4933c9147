//! `kube1 snapshot`: one self-contained file with everything that a server cannot make again, and the way back.
//!
//! A snapshot is a tar archive of mode 0600: the store's consistent copy, the key that Secrets are encrypted with, and
//! the certificate authorities and keys, without which the copy would be a cluster that nobody may enter.

mod archive;
mod request;

pub use request::SnapshotService;

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::{GlobalArgs, SnapshotCommand};
use crate::layout::Layout;
use crate::process_guard::ProcessGuard;
use archive::Parts;

/// Saves from a running server, lists, or restores to a stopped one.
pub async fn run(global: &GlobalArgs, command: &SnapshotCommand) -> anyhow::Result<()> {
    let layout = Layout::new(&global.data_dir);
    match command {
        SnapshotCommand::Save { name } => {
            let name = name.clone().unwrap_or_else(|| format!("snapshot-{}", kube1_pki::clock::unix_now()));
            anyhow::ensure!(
                is_file_name(&name),
                "{name:?} cannot be the name of a snapshot: use letters, digits, '-', '_', '.'"
            );
            let path = request::save(&layout, &name).await?;
            println!("{}", path.display());
        }
        SnapshotCommand::List => list(&layout.snapshots())?,
        SnapshotCommand::Restore { file } => {
            let _guard = ProcessGuard::take(&layout).context("the server must be stopped before a restore")?;
            let kept = restore(&layout, file)?;
            println!("restored {}", file.display());
            if let Some(kept) = kept {
                println!("the state of before is in {}: remove it when all is well", kept.display());
            }
        }
    }
    Ok(())
}

fn is_file_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(fits)
}

fn list(dir: &Path) -> anyhow::Result<()> {
    let mut files: Vec<(String, u64)> = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".tar") {
            files.push((name, entry.metadata().with_context(|| format!("cannot look at {}", dir.display()))?.len()));
        }
    }
    files.sort();
    println!("{:<40}  {:>12}", "SNAPSHOT", "BYTES");
    for (name, size) in files {
        println!("{name:<40}  {size:>12}");
    }
    Ok(())
}

/// Puts a snapshot in place. What was there before is moved aside, whole, and its new place returned; nothing is
/// changed when the file is no usable snapshot.
fn restore(layout: &Layout, file: &Path) -> anyhow::Result<Option<PathBuf>> {
    let server = layout.server();
    let prepared = layout.root().join("server.restoring");
    // What an interrupted restore left.
    let _ = std::fs::remove_dir_all(&prepared);
    kube1_pki::create_private_dir(&prepared)?;
    let parts = Parts::of(&prepared);
    let unpacked = archive::unpack(file, &parts);
    if let Err(error) = unpacked {
        let _ = std::fs::remove_dir_all(&prepared);
        return Err(error);
    }
    let mut kept = None;
    if server.exists() {
        let aside = layout.root().join(format!("server.before-{}", kube1_pki::clock::unix_now()));
        std::fs::rename(&server, &aside).context("cannot move the present state aside")?;
        let snapshots = aside.join("snapshots");
        if snapshots.exists() {
            std::fs::rename(snapshots, prepared.join("snapshots")).context("cannot keep the snapshots")?;
        }
        kept = Some(aside);
    }
    std::fs::rename(&prepared, &server).context("cannot put the snapshot in place")?;
    Ok(kept)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use kube1_store::{EmbeddedStore, Range, Store, Txn};

    use super::*;

    #[tokio::test]
    async fn a_restored_snapshot_is_the_server_of_then() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        let parts = Parts::of(&layout.server());
        std::fs::create_dir_all(&parts.tls).unwrap();
        std::fs::write(parts.tls.join("ca.key"), "a key").unwrap();
        std::fs::write(&parts.secrets_key, "another").unwrap();
        let store = EmbeddedStore::open(&parts.store).unwrap();
        store.txn(Txn::new().put("k", "then")).await.unwrap();
        let file = archive::save(&store, &parts, &layout.snapshots(), "s").await.unwrap();
        store.txn(Txn::new().put("k", "later")).await.unwrap();
        drop(store);
        std::fs::write(parts.tls.join("ca.key"), "a new key").unwrap();

        let kept = restore(&layout, &file).unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(parts.tls.join("ca.key")).unwrap(), "a key");
        assert_eq!(std::fs::read_to_string(kept.join("tls/ca.key")).unwrap(), "a new key");
        let store = EmbeddedStore::open(&parts.store).unwrap();
        let page = store.range(Range::key("k")).await.unwrap();
        assert_eq!(page.items[0].value, "then");
        assert!(layout.snapshots().join("s.tar").exists());

        std::fs::write(dir.path().join("bad.tar"), "no archive").unwrap();
        assert!(restore(&layout, &dir.path().join("bad.tar")).is_err());
        assert!(parts.tls.join("ca.key").exists(), "nothing is changed by a bad file");
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        assert!(is_file_name("before-upgrade_1.2"));
        for bad in ["", "../x", "a/b", ".hidden"] {
            assert!(!is_file_name(bad), "{bad}");
        }
    }
}
