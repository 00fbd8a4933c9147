//! Container images made without a container engine: the pause image that ships in the binary, and those that tests run.

mod archive;

pub use archive::{Image, ImageFile, write_archive};

/// Name of the sandbox image that kube1 imports into containerd.
pub const PAUSE_IMAGE: &str = "kube1.local/pause:1";

/// The static binary in the pause image.
const PAUSE_BINARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The pause image as an OCI archive of a few kilobytes; the same bytes at every call.
pub fn pause_archive() -> Vec<u8> {
    let files = vec![ImageFile { path: "pause".into(), mode: 0o755, content: PAUSE_BINARY.to_vec() }];
    let image = Image { name: PAUSE_IMAGE.into(), files, entrypoint: vec!["/pause".into()], ..Image::default() };
    let mut archive = Vec::new();
    // Writing to memory cannot fail, so an error leaves an archive that the import refuses with a clear message.
    let _ = write_archive(&image, &mut archive);
    archive
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_archive_is_small_and_reproducible() {
        let archive = pause_archive();
        assert_eq!(archive, pause_archive());
        assert!(archive.len() < 64 << 10, "{} bytes", archive.len());
        let mut tar = tar::Archive::new(&archive[..]);
        let names: Vec<String> =
            tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert!(names.contains(&"index.json".to_owned()) && names.contains(&"oci-layout".to_owned()), "{names:?}");
        assert_eq!(names.iter().filter(|n| n.starts_with("blobs/sha256/")).count(), 3);
    }

    #[test]
    fn pause_ends_on_sigterm() {
        let dir = std::env::temp_dir().join(format!("kube1-pause-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("pause");
        std::fs::write(&path, PAUSE_BINARY).unwrap();
        let mut permissions = path.metadata().unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
        std::fs::set_permissions(&path, permissions).unwrap();
        let mut child = std::process::Command::new(&path).spawn().unwrap();
        let waits = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            status.contains("State:\tS") && status.contains("Name:\tpause")
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !waits() {
            assert!(std::time::Instant::now() < deadline, "pause never waited for signals");
            std::thread::yield_now();
        }
        assert!(child.try_wait().unwrap().is_none());
        let kill = std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(kill.success());
        assert_eq!(child.wait().unwrap().code(), Some(0));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
