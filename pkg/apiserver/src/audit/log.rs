//! The log file of audit events, begun anew when it grows too large.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::form::Format;

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// `-` for standard output.
    pub path: PathBuf,
    /// Days that old files are kept; 0 for as long as their number allows.
    pub max_age: u64,
    /// Old files that are kept; 0 for all.
    pub max_backups: usize,
    /// Size in megabytes at which a new file is begun.
    pub max_size: u64,
    /// Old files are compressed by gzip.
    pub compress: bool,
    pub format: Format,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { path: PathBuf::new(), max_age: 0, max_backups: 0, max_size: 100, compress: false, format: Format::Json }
    }
}

/// The open log.
pub struct LogFile {
    options: LogOptions,
    file: Option<std::fs::File>,
    size: u64,
}

impl LogFile {
    pub fn open(options: LogOptions) -> io::Result<Self> {
        if options.path == Path::new("-") {
            return Ok(Self { options, file: None, size: 0 });
        }
        let file = open(&options.path)?;
        let size = file.metadata()?.len();
        Ok(Self { options, file: Some(file), size })
    }

    /// Writes events, a line each. Blocks for as long as the disk takes.
    pub fn write_events(&mut self, events: Vec<String>) -> io::Result<()> {
        let format = self.options.format;
        let lines: Vec<String> = events.into_iter().map(|event| format.line(event)).collect();
        self.write(lines.iter().map(String::as_str))
    }

    /// Writes whole lines; before a line that would not fit, a new file is begun. Blocks for as long as the disk takes.
    fn write<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
        let mut pending = String::new();
        for line in lines {
            let length = line.len() as u64 + 1;
            if self.file.is_some() && self.size > 0 && self.size + length > self.limit() {
                self.flush(&mut pending)?;
                self.rotate()?;
            }
            self.size += length;
            pending.push_str(line);
            pending.push('\n');
        }
        self.flush(&mut pending)
    }

    fn limit(&self) -> u64 {
        self.options.max_size.max(1) << 20
    }

    fn flush(&mut self, pending: &mut String) -> io::Result<()> {
        let written = match &mut self.file {
            Some(file) => file.write_all(pending.as_bytes()),
            None => io::stdout().lock().write_all(pending.as_bytes()),
        };
        pending.clear();
        written
    }

    /// Puts the file aside under the time, opens a new one and removes what is too old or too much.
    fn rotate(&mut self) -> io::Result<()> {
        let aside = backup_name(&self.options.path);
        std::fs::rename(&self.options.path, &aside)?;
        self.file = Some(open(&self.options.path)?);
        self.size = 0;
        if self.options.compress {
            compress(&aside)?;
        }
        self.prune()
    }

    fn prune(&self) -> io::Result<()> {
        let (stem, extension) = parts(&self.options.path);
        let dir = directory(&self.options.path);
        let mut old: Vec<(String, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let plain = name.strip_suffix(".gz").unwrap_or(&name);
            let middle = plain.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&extension));
            if let Some(time) = middle.filter(|t| t.starts_with(|c: char| c.is_ascii_digit())) {
                old.push((time.to_owned(), entry.path()));
            }
        }
        old.sort();
        old.reverse();
        let kept = if self.options.max_backups == 0 { old.len() } else { self.options.max_backups };
        let oldest = match self.options.max_age {
            0 => None,
            days => Some(Duration::from_secs(days.saturating_mul(86400))),
        };
        for (index, (_, path)) in old.iter().enumerate() {
            let age = std::fs::metadata(path).and_then(|m| m.modified()).ok().and_then(|m| m.elapsed().ok());
            let outdated = oldest.zip(age).is_some_and(|(limit, age)| age > limit);
            if index >= kept || outdated {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<std::fs::File> {
    std::fs::create_dir_all(directory(path))?;
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Name and extension, the dot with the latter.
fn parts(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    (stem, extension)
}

/// `audit.log` put aside as `audit-2026-01-02T15-04-05.000.log`; a further one of the same instant gets the next.
fn backup_name(path: &Path) -> PathBuf {
    let (stem, extension) = parts(path);
    let mut at = jiff::Timestamp::now();
    loop {
        let aside = directory(path).join(format!("{stem}-{}{extension}", at.strftime("%Y-%m-%dT%H-%M-%S.%3f")));
        if !aside.exists() && !with_gz(&aside).exists() {
            return aside;
        }
        at += jiff::SignedDuration::from_millis(1);
    }
}

fn with_gz(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

fn compress(path: &Path) -> io::Result<()> {
    let mut source = std::fs::File::open(path)?;
    let target = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(with_gz(path))?;
    let mut encoder = GzEncoder::new(target, Compression::fast());
    io::copy(&mut source, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    std::fs::remove_file(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_put_aside_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/audit.log");
        let options =
            LogOptions { path: path.clone(), max_backups: 2, max_size: 1, compress: true, ..LogOptions::default() };
        let mut log = LogFile::open(options).unwrap();
        let line = "x".repeat(600 << 10);
        for _ in 0..5 {
            log.write([line.as_str()]).unwrap();
        }
        let mut names: Vec<String> = std::fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0].starts_with("audit-20") && names[0].ends_with(".log.gz"), "{names:?}");
        assert_eq!(names[2], "audit.log");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), line.len() as u64 + 1);
    }
}
