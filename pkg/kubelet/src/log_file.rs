//! Containers' log files in the runtime's format: `TIME STREAM P|F TEXT`.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kube1_cri::Runtime;

use crate::settings::Settings;

const BLOCK: u64 = 64 << 10;

/// One entry of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub time: &'a str,
    pub stream: &'a str,
    /// Whether the entry ends a line of the container's output.
    pub ends_line: bool,
    pub text: &'a [u8],
}

/// Parses one line of a log file, without its newline.
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tags = parts.next()?;
    let text = parts.next().unwrap_or_default();
    Some(Entry { time, stream, ends_line: tags.split(|b| *b == b':').next() == Some(b"F"), text })
}

impl Entry<'_> {
    pub fn at(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// Where the last `lines` lines of a log file begin.
pub fn tail_offset(file: &mut File, lines: usize) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if lines == 0 {
        return Ok(length);
    }
    let (mut end, mut seen) = (length, 0);
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.take(end - start).read_to_end(&mut block)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let next = start + at as u64 + 1;
            if next == length {
                continue;
            }
            seen += 1;
            if seen == lines {
                return Ok(next);
            }
        }
        end = start;
    }
    Ok(0)
}

/// The end of what a container wrote, without the times.
pub fn tail(path: &Path, lines: usize, max: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let offset = tail_offset(&mut file, lines)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut raw = Vec::new();
    file.take(1 << 20).read_to_end(&mut raw)?;
    let mut text = Vec::new();
    for entry in raw.split(|b| *b == b'\n').filter_map(parse) {
        text.extend_from_slice(entry.text);
        if entry.ends_line {
            text.push(b'\n');
        }
    }
    let start = text.len().saturating_sub(max);
    Ok(String::from_utf8_lossy(&text[start..]).into_owned())
}

/// Removes the files of one attempt of a container.
pub fn remove(dir: &Path, attempt: u32) {
    let current = format!("{attempt}.log");
    let rotated = format!("{current}.");
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == current || name.starts_with(&rotated) {
            // A file that stays goes with the pod's directory.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Puts a running container's log aside when it has grown large, and drops its oldest files.
pub async fn rotate(runtime: &Runtime, settings: &Settings, container_id: &str, log: &Path) -> io::Result<()> {
    if fs::metadata(log).map(|m| m.len()).unwrap_or(0) < settings.container_log_max_size {
        return Ok(());
    }
    let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let aside = PathBuf::from(format!("{}.{stamp}", log.display()));
    fs::rename(log, &aside)?;
    if let Err(error) = runtime.reopen_container_log(container_id).await {
        // The runtime goes on writing to the old file: it must keep its name.
        fs::rename(&aside, log)?;
        return Err(io::Error::other(error));
    }
    let prefix = format!("{}.", log.file_name().unwrap_or_default().to_string_lossy());
    let dir = log.parent().unwrap_or(Path::new("/"));
    let entries = fs::read_dir(dir)?.flatten();
    let mut old: Vec<PathBuf> =
        entries.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).map(|e| e.path()).collect();
    old.sort();
    // The file being written is one of those kept.
    for path in old.iter().rev().skip(settings.container_log_max_files - 1) {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_parsed_and_tails_joined() {
        let entry = parse(b"2026-01-02T03:04:05.6Z stderr P part of it").unwrap();
        assert_eq!((entry.stream, entry.ends_line, entry.text), ("stderr", false, &b"part of it"[..]));
        assert!(parse(b"nonsense").is_none());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let lines: Vec<String> = (0..5000).map(|n| format!("2026-01-02T03:04:05Z stdout F line {n}\n")).collect();
        fs::write(&path, lines.concat()).unwrap();
        assert_eq!(tail(&path, 2, 1000).unwrap(), "line 4998\nline 4999\n");
        assert_eq!(tail(&path, 2, 5).unwrap(), "4999\n");
        let mut file = File::open(&path).unwrap();
        assert_eq!(tail_offset(&mut file, 9000).unwrap(), 0);
        assert_eq!(tail_offset(&mut file, 0).unwrap(), file.metadata().unwrap().len());
    }
}
