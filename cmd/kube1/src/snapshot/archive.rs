//! The archive: what is in it and how it is written and read.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use kube1_store::{EmbeddedStore, Store};

const STORE: &str = "store.redb";
const SECRETS_KEY: &str = "secrets.key";
const TLS: &str = "tls";

/// Where the parts of a server's state are.
pub struct Parts {
    pub store: PathBuf,
    pub tls: PathBuf,
    pub secrets_key: PathBuf,
}

impl Parts {
    /// Below the server's directory.
    pub fn of(server: &Path) -> Self {
        Self { store: server.join("store"), tls: server.join(TLS), secrets_key: server.join(SECRETS_KEY) }
    }
}

/// Writes `NAME.tar` into `dir` from a store in use. The file appears only when it is complete.
pub async fn save(store: &dyn Store, parts: &Parts, dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    kube1_pki::create_private_dir(dir)?;
    let path = dir.join(format!("{name}.tar"));
    anyhow::ensure!(!path.exists(), "{} exists already: choose another name", path.display());
    let copy = dir.join(format!("{name}.store"));
    let _ = std::fs::remove_file(&copy);
    store.snapshot(&copy).await.context("cannot copy the store")?;
    let partial = dir.join(format!("{name}.partial"));
    let written = pack(&partial, &copy, parts);
    // The copy is in the archive now, or of no use.
    let _ = std::fs::remove_file(&copy);
    written.with_context(|| format!("cannot write {}", partial.display()))?;
    std::fs::rename(&partial, &path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn pack(path: &Path, store: &Path, parts: &Parts) -> std::io::Result<()> {
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut archive = tar::Builder::new(file);
    archive.append_path_with_name(store, STORE)?;
    archive.append_path_with_name(&parts.secrets_key, SECRETS_KEY)?;
    archive.append_dir_all(TLS, &parts.tls)?;
    let mut file = archive.into_inner()?;
    file.flush()?;
    file.sync_all()
}

/// Reads an archive into `parts`, which must not exist yet.
pub fn unpack(path: &Path, parts: &Parts) -> anyhow::Result<()> {
    let wrong = || format!("{} is no snapshot of kube1, or is damaged: nothing was changed", path.display());
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let base = parts.tls.parent().context("the server's directory has no parent")?;
    let store = base.join(STORE);
    for entry in tar::Archive::new(file).entries().with_context(wrong)? {
        let mut entry = entry.with_context(wrong)?;
        let name = entry.path().with_context(wrong)?.into_owned();
        let known = name == Path::new(STORE) || name == Path::new(SECRETS_KEY) || name.starts_with(TLS);
        anyhow::ensure!(known, wrong());
        // Entries that would leave the directory are refused by the library.
        anyhow::ensure!(entry.unpack_in(base).with_context(wrong)?, wrong());
    }
    anyhow::ensure!(parts.tls.is_dir() && parts.secrets_key.is_file() && store.is_file(), wrong());
    EmbeddedStore::restore(&store, &parts.store).with_context(wrong)?;
    std::fs::remove_file(&store).with_context(|| format!("cannot remove {}", store.display()))
}

/// All that `fuzz/` runs.
#[cfg(any(test, fuzzing))]
pub fn targets() -> Vec<kube1_mutate::Target> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [(STORE, &b"redb"[..]), (SECRETS_KEY, b"key"), ("tls/ca.crt", b"pem")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_cksum();
        archive.append_data(&mut header, name, content).unwrap_or_default();
    }
    let words = ["tls/../../x", "/etc/x", "tls/", "\u{0}ustar  \u{0}", "0000777\u{0}", "2", "1"];
    let target = kube1_mutate::Target::new("snapshot", hostile, &[], &words);
    // What a damaged database takes is the database's.
    vec![target.with_seeds(archive.into_inner()).with_memory(4000)]
}

/// What hostile input is tried on: an archive that somebody else made. Nothing may come to be outside its directory.
#[cfg(any(test, fuzzing))]
fn hostile(bytes: &[u8]) {
    let name = format!("kube1-snapshot-{}-{:?}", std::process::id(), std::thread::current().id());
    let base = std::env::temp_dir().join(name);
    let server = base.join("data/server");
    std::fs::create_dir_all(&server).expect("a temporary directory");
    let archive = base.join("archive.tar");
    std::fs::write(&archive, bytes).expect("a temporary file");
    let _ = unpack(&archive, &Parts::of(&server));
    let names = |dir: &Path| -> Vec<_> {
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
    };
    assert_eq!((names(&base).len(), names(&base.join("data")).len()), (2, 1), "files beside the directory");
    std::fs::remove_dir_all(&base).expect("the temporary directory goes");
}

#[cfg(test)]
mod tests {
    #[test]
    fn decoders_survive() {
        kube1_mutate::run(&super::targets());
    }
}
