//! `kube1-image`: writes the test images as OCI archives.
//!
//! `kube1-image busybox BUSYBOX OUT` makes an image of a static busybox with all its applets;
//! `kube1-image static NAME BINARY OUT` one of a single static binary.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use kube1_images::{Image, ImageFile, pause_archive, write_archive};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["busybox", binary, out] => write(&busybox(Path::new(binary))?, out),
        ["static", name, binary, out] => write(&single(name, Path::new(binary))?, out),
        ["pause", out] => std::fs::write(out, pause_archive()).with_context(|| format!("cannot write {out}")),
        _ => bail!("usage: kube1-image busybox BINARY OUT | static NAME BINARY OUT | pause OUT"),
    }
}

fn write(image: &Image, out: &str) -> anyhow::Result<()> {
    let file = File::create(out).with_context(|| format!("cannot create {out}"))?;
    let mut writer = BufWriter::new(file);
    write_archive(image, &mut writer).and_then(|()| writer.flush()).with_context(|| format!("cannot write {out}"))
}

fn read(binary: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))
}

fn busybox(binary: &Path) -> anyhow::Result<Image> {
    let listed = Command::new(binary).arg("--list-full").output().context("cannot run busybox")?;
    let applets = String::from_utf8(listed.stdout)?;
    let links = applets.lines().filter(|path| *path != "bin/busybox").map(|path| {
        let up = "../".repeat(path.matches('/').count());
        (path.to_owned(), format!("{up}bin/busybox"))
    });
    let text = |path: &str, content: &str| ImageFile { path: path.into(), mode: 0o644, content: content.into() };
    Ok(Image {
        name: "kube1.local/busybox:1".into(),
        files: vec![
            ImageFile { path: "bin/busybox".into(), mode: 0o755, content: read(binary)? },
            text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
            text("etc/group", "root:x:0:\nnobody:x:65534:\n"),
        ],
        links: links.collect(),
        directories: vec![
            ("tmp".into(), 0o1777),
            ("root".into(), 0o700),
            ("var/www".into(), 0o755),
            ("proc".into(), 0o555),
            ("sys".into(), 0o555),
            ("dev".into(), 0o755),
        ],
        cmd: vec!["sh".into()],
        ..Image::default()
    })
}

fn single(name: &str, binary: &Path) -> anyhow::Result<Image> {
    let file = binary.file_name().and_then(|f| f.to_str()).context("the binary has no name")?;
    Ok(Image {
        name: name.into(),
        files: vec![ImageFile { path: file.into(), mode: 0o755, content: read(binary)? }],
        directories: vec![("tmp".into(), 0o1777)],
        entrypoint: vec![format!("/{file}")],
        ..Image::default()
    })
}
