//! What hostile input is tried on: image archives that somebody else made.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use kube1_mutate::Target;

use crate::images;

/// All that `fuzz/` runs.
pub fn targets() -> Vec<Target> {
    let words =
        ["index.json", "manifest.json", "blobs/sha256/a", "\"sha256:a\"", "\u{0}ustar  \u{0}", "0000777\u{0}", "L"];
    vec![Target::new("archive", images::hostile, &[], &words).with_seeds(seeds())]
}

/// What `ctr export` writes, what `docker save` wrote, and an index that names itself.
fn seeds() -> Vec<Vec<u8>> {
    const INDEX: &str = r#"{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:a","size":9,"annotations":{"io.containerd.image.name":"x"}}]}"#;
    const MANIFEST: &str = r#"{"config":{"digest":"sha256:b","size":2},"layers":[{"digest":"sha256:c","size":1}]}"#;
    const CONFIG: &str = r#"{"rootfs":{"diff_ids":["sha256:c"]}}"#;
    const DOCKER: &str = r#"[{"Config":"b","RepoTags":["x:1"],"Layers":["c"]}]"#;
    const PLAIN: &str =
        r#"{"manifests":[{"digest":"sha256:m","size":9,"annotations":{"io.containerd.image.name":"x"}}]}"#;
    let archives = [
        archive(&[("index.json", PLAIN), ("blobs/sha256/m", MANIFEST), ("blobs/sha256/b", CONFIG)]),
        archive(&[("index.json", INDEX), ("blobs/sha256/a", INDEX)]),
        archive(&[("manifest.json", DOCKER), ("b", CONFIG), ("c", "layer")]),
    ];
    let packed = packed(&archives[0]);
    archives.into_iter().chain([packed]).collect()
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append_data(&mut header, name, content.as_bytes()).unwrap_or_default();
    }
    archive.into_inner().unwrap_or_default()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    let _ = packed.write_all(bytes);
    packed.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn decoders_survive() {
        kube1_mutate::run(&super::targets());
    }
}
