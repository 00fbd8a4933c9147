//! Publishing a set of files so that a reader sees either all old or all new ones.
//!
//! The files lie in a directory named by time; `..data` is a link to it, and each visible name a link through `..data`.
//! An update writes a new directory and renames the link.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// A file to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadFile {
    pub content: Vec<u8>,
    pub mode: u32,
    /// Owner, where it is not root.
    pub uid: Option<u32>,
}

/// Files by their path below the volume.
pub type Payload = BTreeMap<String, PayloadFile>;

/// Makes `dir` hold exactly `payload`. Says whether anything changed.
pub fn publish(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    for path in payload.keys() {
        check_path(path)?;
    }
    let current = fs::read_link(dir.join(DATA)).ok();
    if let Some(current) = &current
        && same(&dir.join(current), payload)
    {
        return Ok(false);
    }
    let stamp = Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let name = format!("{stamp}.{:09}", rand::random_range(0..1_000_000_000_u32));
    write_files(&dir.join(&name), payload, group)?;
    let link = dir.join(DATA_NEW);
    remove_if_there(&link)?;
    symlink(&name, &link)?;
    fs::rename(&link, dir.join(DATA))?;
    let visible: BTreeSet<&str> = payload.keys().filter_map(|p| p.split('/').next()).collect();
    link_visible(dir, &visible)?;
    if let Some(old) = current {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

/// A path must stay in the volume and must not look like this writer's own names.
fn check_path(path: &str) -> io::Result<()> {
    let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !plain || path.starts_with("..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {path:?} in a volume")));
    }
    Ok(())
}

fn same(dir: &Path, payload: &Payload) -> bool {
    let mut found = Vec::new();
    if list_files(dir, dir, &mut found).is_err() || found.len() != payload.len() {
        return false;
    }
    found.iter().all(|path| {
        let Some(wanted) = path.to_str().and_then(|p| payload.get(p)) else { return false };
        let file = dir.join(path);
        let mode = file.metadata().map(|m| m.permissions().mode() & 0o777);
        // The group's bits may have been added for the pod's fsGroup.
        mode.is_ok_and(|m| m & !0o040 == wanted.mode & 0o737 || m == wanted.mode & 0o777)
            && fs::read(file).is_ok_and(|content| content == wanted.content)
    })
}

fn list_files(root: &Path, dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            list_files(root, &path, found)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.push(relative.to_owned());
        }
    }
    Ok(())
}

fn write_files(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    make_dir(dir, group)?;
    for (path, file) in payload {
        let target = dir.join(path);
        let mut parent = dir.to_owned();
        for part in Path::new(path).parent().iter().flat_map(|p| p.components()) {
            parent.push(part);
            make_dir(&parent, group)?;
        }
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode } & 0o777;
        let opened = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&target)?;
        io::Write::write_all(&mut &opened, &file.content)?;
        // The process's umask must not narrow what the pod asked for.
        opened.set_permissions(fs::Permissions::from_mode(mode))?;
        std::os::unix::fs::fchown(&opened, file.uid, group)?;
    }
    Ok(())
}

fn make_dir(dir: &Path, group: Option<u32>) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mode = if group.is_some() { 0o2775 } else { 0o755 };
    std::os::unix::fs::chown(dir, None, group)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

fn link_visible(dir: &Path, visible: &BTreeSet<&str>) -> io::Result<()> {
    for name in visible {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !visible.contains(name.as_ref()) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| PayloadFile { content: text.into(), mode: 0o644, uid: None };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    #[test]
    fn an_update_swaps_all_files_and_drops_what_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).ok();
        assert!(publish(dir.path(), &payload(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        assert_eq!((read("a").as_deref(), read("d/b").as_deref()), (Some("1"), Some("2")));
        assert!(!publish(dir.path(), &payload(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        assert!(publish(dir.path(), &payload(&[("a", "3")]), None).unwrap());
        assert_eq!((read("a").as_deref(), read("d/b")), (Some("3"), None));
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "data, its link and the file's link: {left:?}");
    }

    #[test]
    fn paths_that_leave_the_volume_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "..data", ""] {
            assert!(publish(dir.path(), &payload(&[(path, "")]), None).is_err(), "{path}");
        }
    }
}
