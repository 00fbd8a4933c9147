//! The log of a child process, kept small while the process runs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// A log larger than this is put aside; one old file is kept, `.log.1`.
pub const LOG_MAX: u64 = 8 << 20;
/// How often a log is looked at.
pub const LOOK: Duration = Duration::from_secs(600);

/// Opens a log for a process to append to.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Puts what is in a log aside if that is more than `max` bytes.
///
/// The process has the file open and goes on writing there, so its content is copied and the file emptied; what it writes
/// between the two is lost. The file is emptied even if the copy fails: a full disk is when it matters most.
pub fn keep_small(path: &Path, max: u64) -> io::Result<()> {
    match path.metadata() {
        Ok(metadata) if metadata.len() > max => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => return Ok(()),
    }
    let old = path.with_extension("log.1");
    let copied = std::fs::copy(path, &old);
    OpenOptions::new().write(true).open(path)?.set_len(0)?;
    if copied.is_err() {
        // Half a copy helps nobody; the error that counts is the copy's.
        let _ = std::fs::remove_file(&old);
    }
    copied.map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_in_use_is_put_aside_once_it_is_large() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("child.log");
        keep_small(&path, 8).unwrap();
        let mut log = open(&path).unwrap();
        log.write_all(b"12345678").unwrap();
        keep_small(&path, 8).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"12345678");
        log.write_all(b"9").unwrap();
        keep_small(&path, 8).unwrap();
        log.write_all(b"next").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"next");
        assert_eq!(std::fs::read(dir.path().join("child.log.1")).unwrap(), b"123456789");
    }
}
