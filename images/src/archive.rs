//! Writes OCI image archives (image-spec 1.1 layout in a tar) that containerd and others import.

use std::io::{self, Write};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A file of an image's single layer.
#[derive(Clone, Debug)]
pub struct ImageFile {
    /// Without a leading slash.
    pub path: String,
    pub mode: u32,
    pub content: Vec<u8>,
}

/// An image of one layer for this machine's architecture.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Full reference with its tag.
    pub name: String,
    pub files: Vec<ImageFile>,
    /// Path and target of symbolic links.
    pub links: Vec<(String, String)>,
    /// Empty directories, with their mode.
    pub directories: Vec<(String, u32)>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub exposed_ports: Vec<String>,
}

/// Writes `image` as an OCI archive. Times are zero, so equal images give equal bytes.
pub fn write_archive(image: &Image, out: impl Write) -> io::Result<()> {
    let layer = layer(image)?;
    let layer_digest = digest(&layer);
    let config = serde_json::to_vec(&config(image, &layer_digest))?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = serde_json::to_vec(&manifest)?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    let tag = image.name.rsplit(':').next().unwrap_or_default();
    entry["annotations"] = json!({
        "io.containerd.image.name": image.name,
        "org.opencontainers.image.ref.name": tag,
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });

    let mut tar = tar::Builder::new(out);
    append(&mut tar, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut tar, "index.json", 0o644, &serde_json::to_vec(&index)?)?;
    for blob in [&layer, &config, &manifest] {
        append(&mut tar, &format!("blobs/sha256/{}", digest(blob)), 0o644, blob)?;
    }
    tar.finish()
}

fn layer(image: &Image) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode) in &image.directories {
        let mut header = header(tar::EntryType::Directory, *mode, 0);
        tar.append_data(&mut header, format!("{path}/"), io::empty())?;
    }
    for file in &image.files {
        append(&mut tar, &file.path, file.mode, &file.content)?;
    }
    for (path, target) in &image.links {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, path, target)?;
    }
    tar.into_inner()
}

fn config(image: &Image, layer_digest: &str) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let ports: serde_json::Map<String, Value> = image.exposed_ports.iter().map(|p| (p.clone(), json!({}))).collect();
    let mut env = image.env.clone();
    if !env.iter().any(|e| e.starts_with("PATH=")) {
        env.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    }
    json!({
        "architecture": architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": image.user,
            "Env": env,
            "Entrypoint": image.entrypoint,
            "Cmd": image.cmd,
            "WorkingDir": "/",
            "ExposedPorts": ports,
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "kube1 images"}],
    })
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", digest(blob)), "size": blob.len()})
}

fn digest(blob: &[u8]) -> String {
    hex::encode(Sha256::digest(blob))
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append(tar: &mut tar::Builder<impl Write>, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
    tar.append_data(&mut header, path, content)
}
