//! Reading image archives: OCI layouts (with or without nested indexes) and what `docker save` writes.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use containerd_client::types::Descriptor;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::ImportError;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Manifests, indexes and configurations are small; more is an attack or damage.
const JSON_MAX: u64 = 8 << 20;
/// Indexes within indexes; real archives have two.
const NESTED_MAX: usize = 8;

/// An opened archive: where each of its files lies.
pub(super) struct Archive {
    path: PathBuf,
    source: Source,
    files: HashMap<String, (u64, u64)>,
}

enum Source {
    File(File),
    Memory(Vec<u8>),
}

/// One image of an archive.
pub(super) struct ArchiveImage {
    pub name: String,
    pub target: Descriptor,
    /// Children before parents.
    pub blobs: Vec<Blob>,
    /// The manifests for this machine's platform.
    pub manifests: Vec<Manifest>,
}

pub(super) struct Blob {
    pub digest: String,
    pub content: BlobContent,
    /// Digests that this blob refers to, by the name of the reference.
    pub children: Vec<(String, String)>,
    /// Whether the blob is an image's configuration, with its layers' chain id.
    pub chain_id: Option<String>,
}

pub(super) enum BlobContent {
    File(String),
    Bytes(Vec<u8>),
}

pub(super) struct Manifest {
    pub layers: Vec<Descriptor>,
    pub diff_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default)]
    annotations: HashMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct ManifestFile {
    config: Entry,
    layers: Vec<Entry>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Entry {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: self.size,
            annotations: HashMap::new(),
        }
    }

    fn is_index(&self) -> bool {
        self.media_type.ends_with("image.index.v1+json") || self.media_type.ends_with("manifest.list.v2+json")
    }

    fn fits_this_machine(&self) -> bool {
        self.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture())
    }

    /// The image's full name; an archive by `docker save` or `ctr export` gives it as an annotation.
    fn name(&self) -> Option<String> {
        let name = self.annotations.get("io.containerd.image.name");
        let reference = self.annotations.get("org.opencontainers.image.ref.name").filter(|r| r.contains('/'));
        name.or(reference).map(|n| normalize(n))
    }
}

impl Archive {
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let read_error = |source| ImportError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(read_error)?;
        let mut magic = [0; 2];
        let gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
        file.rewind().map_err(read_error)?;
        let source = if gzip {
            // Images are large when unpacked: on disk, not in memory.
            let mut plain = tempfile::tempfile().map_err(read_error)?;
            io::copy(&mut flate2::read::MultiGzDecoder::new(file), &mut plain).map_err(read_error)?;
            plain.rewind().map_err(read_error)?;
            Source::File(plain)
        } else {
            Source::File(file)
        };
        Self::scan(path.to_owned(), source)
    }

    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ImportError> {
        Self::scan(PathBuf::from("the built-in archive"), Source::Memory(bytes))
    }

    fn scan(path: PathBuf, source: Source) -> Result<Self, ImportError> {
        let files = match &source {
            Source::File(file) => file_positions(file),
            Source::Memory(bytes) => file_positions(io::Cursor::new(bytes)),
        };
        let files = files.map_err(|e| ImportError::Format { path: path.clone(), reason: e.to_string() })?;
        Ok(Self { path, source, files })
    }

    fn format_error(&self, reason: impl Into<String>) -> ImportError {
        ImportError::Format { path: self.path.clone(), reason: reason.into() }
    }

    pub fn size(&self, content: &BlobContent) -> u64 {
        match content {
            BlobContent::File(name) => self.files.get(name).map_or(0, |(_, size)| *size),
            BlobContent::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Reads at most `max` bytes of a blob from an offset on.
    pub fn read(&self, content: &BlobContent, offset: u64, max: usize) -> Result<Vec<u8>, ImportError> {
        let length = usize::try_from(self.size(content).saturating_sub(offset)).unwrap_or(max).min(max);
        let read_error = |source| ImportError::Read { path: self.path.clone(), source };
        let slice = |bytes: &[u8], start: u64| {
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            bytes.get(start..start.saturating_add(length)).map(<[u8]>::to_vec)
        };
        match content {
            BlobContent::Bytes(bytes) => slice(bytes, offset).ok_or_else(|| self.format_error("short blob")),
            BlobContent::File(name) => {
                let (start, _) =
                    *self.files.get(name).ok_or_else(|| self.format_error(format!("{name} is missing")))?;
                match &self.source {
                    Source::Memory(bytes) => slice(bytes, start.saturating_add(offset))
                        .ok_or_else(|| self.format_error("the archive is cut off")),
                    Source::File(file) => {
                        let mut buffer = vec![0; length];
                        std::os::unix::fs::FileExt::read_exact_at(file, &mut buffer, start.saturating_add(offset))
                            .map_err(read_error)?;
                        Ok(buffer)
                    }
                }
            }
        }
    }

    fn json<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<T, ImportError> {
        let content = BlobContent::File(name.to_owned());
        if self.size(&content) > JSON_MAX {
            return Err(self.format_error(format!("{name} is too large")));
        }
        let bytes = self.read(&content, 0, JSON_MAX as usize)?;
        serde_json::from_slice(&bytes).map_err(|e| self.format_error(format!("{name}: {e}")))
    }

    pub fn images(&self) -> Result<Vec<ArchiveImage>, ImportError> {
        let images = if self.files.contains_key("index.json") {
            self.oci_images()?
        } else if self.files.contains_key("manifest.json") {
            self.docker_images()?
        } else {
            return Err(self.format_error("it has neither index.json nor manifest.json"));
        };
        if images.is_empty() {
            return Err(self.format_error("no image in it has a name"));
        }
        Ok(images)
    }

    fn oci_images(&self) -> Result<Vec<ArchiveImage>, ImportError> {
        let index: Index = self.json("index.json")?;
        let mut images = Vec::new();
        for entry in &index.manifests {
            let Some(name) = entry.name() else { continue };
            let mut image = ArchiveImage { name, target: entry.descriptor(), blobs: Vec::new(), manifests: Vec::new() };
            self.walk(entry, &mut image, &mut HashSet::new(), 0)?;
            images.push(image);
        }
        Ok(images)
    }

    /// Collects what a manifest or an index refers to, as far as the archive has it, each once.
    fn walk(
        &self,
        entry: &Entry,
        image: &mut ArchiveImage,
        seen: &mut HashSet<String>,
        depth: usize,
    ) -> Result<(), ImportError> {
        if depth > NESTED_MAX {
            return Err(self.format_error("its indexes are nested too deeply"));
        }
        if !seen.insert(entry.digest.clone()) {
            return Ok(());
        }
        let file = blob_file(&entry.digest);
        let mut children = Vec::new();
        if entry.is_index() {
            let index: Index = self.json(&file)?;
            // An archive for one platform names the others' manifests without having them.
            for child in index.manifests.iter().filter(|child| self.files.contains_key(&blob_file(&child.digest))) {
                children.push((format!("m.{}", children.len()), child.digest.clone()));
                self.walk(child, image, seen, depth + 1)?;
            }
        } else {
            let manifest: ManifestFile = self.json(&file)?;
            let config: Result<Config, _> = self.json(&blob_file(&manifest.config.digest));
            let diff_ids = config.map(|c| c.rootfs.diff_ids).unwrap_or_default();
            for (number, layer) in manifest.layers.iter().enumerate() {
                children.push((format!("l.{number}"), layer.digest.clone()));
                image.push_blob(&layer.digest, Vec::new(), None);
            }
            children.push(("config".to_owned(), manifest.config.digest.clone()));
            let fits = entry.fits_this_machine() && diff_ids.len() == manifest.layers.len();
            let chain = if fits { chain_ids(&diff_ids).pop() } else { None };
            image.push_blob(&manifest.config.digest, Vec::new(), chain);
            if fits {
                let layers = manifest.layers.iter().map(Entry::descriptor).collect();
                image.manifests.push(Manifest { layers, diff_ids });
            }
        }
        image.push_blob(&entry.digest, children, None);
        Ok(())
    }

    /// `docker save` before version 25: an OCI manifest is made from the list of layer files.
    fn docker_images(&self) -> Result<Vec<ArchiveImage>, ImportError> {
        let mut images = Vec::new();
        for docker in self.json::<Vec<DockerImage>>("manifest.json")? {
            let config: Config = self.json(&docker.config)?;
            let diff_ids = config.rootfs.diff_ids;
            if diff_ids.len() != docker.layers.len() {
                return Err(self.format_error("layers and configuration do not agree"));
            }
            let config = self.docker_blob(&docker.config, OCI_CONFIG)?;
            let layers: Result<Vec<_>, _> = docker.layers.iter().map(|l| self.docker_blob(l, OCI_LAYER)).collect();
            let layers = layers?;
            let manifest = docker_manifest(&config, &layers);
            let target = descriptor(OCI_MANIFEST, digest_of(&manifest), manifest.len() as u64);
            for tag in docker.repo_tags.iter().flatten() {
                let from_file = |file: &String, of: &Descriptor, chain_id| Blob {
                    digest: of.digest.clone(),
                    content: BlobContent::File(file.clone()),
                    children: Vec::new(),
                    chain_id,
                };
                let mut children = vec![("config".to_owned(), config.digest.clone())];
                let mut blobs = vec![from_file(&docker.config, &config, chain_ids(&diff_ids).pop())];
                for (number, (file, layer)) in docker.layers.iter().zip(&layers).enumerate() {
                    children.push((format!("l.{number}"), layer.digest.clone()));
                    blobs.push(from_file(file, layer, None));
                }
                let content = BlobContent::Bytes(manifest.clone());
                blobs.push(Blob { digest: target.digest.clone(), content, children, chain_id: None });
                let manifests = vec![Manifest { layers: layers.clone(), diff_ids: diff_ids.clone() }];
                images.push(ArchiveImage { name: normalize(tag), target: target.clone(), blobs, manifests });
            }
        }
        Ok(images)
    }

    fn docker_blob(&self, file: &str, media_type: &str) -> Result<Descriptor, ImportError> {
        let content = BlobContent::File(file.to_owned());
        let size = self.size(&content);
        let mut hasher = Sha256::new();
        let mut offset = 0;
        while offset < size {
            let chunk = self.read(&content, offset, 1 << 20)?;
            offset += chunk.len() as u64;
            hasher.update(&chunk);
        }
        Ok(descriptor(media_type, format!("sha256:{}", hex::encode(hasher.finalize())), size))
    }
}

fn descriptor(media_type: &str, digest: String, size: u64) -> Descriptor {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    Descriptor { media_type: media_type.to_owned(), digest, size, annotations: HashMap::new() }
}

impl ArchiveImage {
    fn push_blob(&mut self, digest: &str, children: Vec<(String, String)>, chain_id: Option<String>) {
        let content = BlobContent::File(blob_file(digest));
        self.blobs.push(Blob { digest: digest.to_owned(), content, children, chain_id });
    }
}

fn docker_manifest(config: &Descriptor, layers: &[Descriptor]) -> Vec<u8> {
    let entry = |d: &Descriptor| serde_json::json!({"mediaType": d.media_type, "digest": d.digest, "size": d.size});
    let layers: Vec<_> = layers.iter().map(entry).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entry(config), "layers": layers,
    });
    manifest.to_string().into_bytes()
}

fn file_positions(reader: impl Read) -> io::Result<HashMap<String, (u64, u64)>> {
    let mut tar = tar::Archive::new(reader);
    let mut files = HashMap::new();
    for entry in tar.entries()? {
        let entry = entry?;
        if entry.header().entry_type().is_file() {
            let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            files.insert(name, (entry.raw_file_position(), entry.size()));
        }
    }
    Ok(files)
}

fn blob_file(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The snapshot name of each layer on top of those below it, as the OCI image specification defines.
pub(super) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for id in diff_ids {
        let next = match chain.last() {
            Some(parent) => digest_of(format!("{parent} {id}").as_bytes()),
            None => id.clone(),
        };
        chain.push(next);
    }
    chain
}

/// The architecture in the names that images use.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A name as the runtime stores it: with registry and tag.
fn normalize(name: &str) -> String {
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    let is_host = first.contains('.') || first.contains(':') || first == "localhost";
    let full = match (first, is_host) {
        ("", _) => format!("docker.io/library/{rest}"),
        (_, true) => name.to_owned(),
        (_, false) => format!("docker.io/{name}"),
    };
    let last = full.rsplit('/').next().unwrap_or_default();
    if last.contains(':') || last.contains('@') { full } else { format!("{full}:latest") }
}

/// What hostile input is tried on: a whole archive, and all that it refers to.
#[cfg(any(test, fuzzing))]
pub(crate) fn hostile(bytes: &[u8]) {
    use io::Write;
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(bytes).is_err() {
        return;
    }
    for archive in [Archive::from_bytes(bytes.to_vec()), Archive::open(file.path())].into_iter().flatten() {
        for image in archive.images().into_iter().flatten() {
            for blob in &image.blobs {
                let _ = archive.read(&blob.content, 0, 1 << 20).map(|bytes| bytes.len());
            }
        }
    }
}

#[cfg(test)]
mod tests;
