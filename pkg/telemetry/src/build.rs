//! What this program was built from.

use std::sync::OnceLock;

static BUILD: OnceLock<Build> = OnceLock::new();

/// The source and the compiler of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// Empty where the source came without its history.
    pub git_commit: &'static str,
    /// `clean`, `dirty` or `archive`.
    pub git_tree_state: &'static str,
    /// The date of the source in seconds since 1970: not when it was built, so that builds of one source are alike.
    pub epoch: i64,
    pub compiler_version: &'static str,
}

impl Build {
    const UNKNOWN: Self = Self { git_commit: "", git_tree_state: "archive", epoch: 0, compiler_version: "" };

    /// Says what runs; the first call wins.
    pub fn tell(self) {
        let _ = BUILD.set(self);
    }

    /// What was told, or that nothing is known.
    pub fn told() -> Self {
        BUILD.get().copied().unwrap_or(Self::UNKNOWN)
    }

    /// The date as RFC 3339 has it.
    pub fn date(&self) -> String {
        jiff::Timestamp::from_second(self.epoch).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// The compiler as `goVersion`, which clients show as it is.
    pub fn compiler(&self) -> String {
        format!("rustc{}", self.compiler_version)
    }
}

/// The system and processor as Kubernetes names them, such as `linux/amd64`.
pub fn platform() -> String {
    let processor = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{processor}", std::env::consts::OS)
}
