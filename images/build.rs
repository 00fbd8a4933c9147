//! Builds the pause binary: static, without a C library, for the architecture of the product.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=pause/pause.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out = PathBuf::from(variable("OUT_DIR")).join("pause");
    let status = Command::new(variable("RUSTC"))
        .args(["--edition", "2024", "--crate-type", "bin", "--crate-name", "pause"])
        .args(["--target", &variable("TARGET"), "-C", "panic=abort", "-C", "opt-level=s", "-C", "strip=symbols"])
        .args(["-C", "relocation-model=static", "-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib"])
        .args(["-C", "link-arg=-static", "-C", "link-arg=-Wl,-z,noseparate-code,--build-id=none"])
        .arg("-o")
        .arg(&out)
        .arg("pause/pause.rs")
        .status();
    match status {
        Ok(status) if status.success() => {}
        other => panic!("the pause binary could not be built: {other:?}"),
    }
}
