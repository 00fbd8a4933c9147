//! The node's own log files, below `/var/log`.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio_util::io::ReaderStream;

use super::{Reply, reply, text};

const ROOT: &str = "/var/log";

/// A file, or an index of a directory. Links out of `/var/log` count as missing: pods may be able to make links in it.
pub(super) async fn serve(parts: &[&str]) -> Reply {
    match answer(Path::new(ROOT), parts).await {
        Ok(reply) => reply,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => text(StatusCode::FORBIDDEN, "403 Forbidden\n"),
        Err(_) => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

async fn answer(root: &Path, parts: &[&str]) -> io::Result<Reply> {
    let path = resolve(root, parts).await?;
    let kind = tokio::fs::metadata(&path).await?.file_type();
    if kind.is_dir() {
        return Ok(reply(StatusCode::OK, "text/html; charset=utf-8", index(&path).await?));
    }
    // Reading a pipe or a device may never end.
    if !kind.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let chunks = ReaderStream::new(tokio::fs::File::open(&path).await?);
    let frames = futures::StreamExt::map(chunks, |chunk| chunk.map(Frame::data));
    let mut reply = Response::new(StreamBody::new(frames).boxed());
    reply.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(reply)
}

/// The text of a regular file in the folder.
pub(super) async fn text_of(path: &Path) -> io::Result<Vec<u8>> {
    let path = resolve(Path::new(ROOT), &[&path.to_string_lossy()]).await?;
    if !tokio::fs::metadata(&path).await?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    tokio::fs::read(path).await
}

async fn resolve(root: &Path, parts: &[&str]) -> io::Result<PathBuf> {
    let root = tokio::fs::canonicalize(root).await?;
    let path = tokio::fs::canonicalize(root.join(parts.join("/").trim_start_matches('/'))).await?;
    if path.starts_with(&root) { Ok(path) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// One link per entry, directories with a slash at the end.
async fn index(dir: &Path) -> io::Result<String> {
    let mut names = Vec::new();
    let mut entries = tokio::fs::read_dir(dir).await?;
    while let Some(entry) = entries.next_entry().await? {
        let slash = if entry.file_type().await?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    let mut page = String::from("<!doctype html>\n<pre>\n");
    for name in names {
        let link = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC).to_string();
        let shown = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(page, "<a href=\"{}\">{shown}</a>", link.replace("%2F", "/"));
    }
    page.push_str("</pre>\n");
    Ok(page)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_lies_in_the_folder_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("log");
        std::fs::create_dir_all(root.join("pods")).unwrap();
        std::fs::write(root.join("pods/a&b.log"), "line\n").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("out")).unwrap();
        std::os::unix::fs::symlink("pods/a&b.log", root.join("in")).unwrap();
        let cases: [(&[&str], Option<&str>); 8] = [
            (
                &[],
                Some(
                    "<!doctype html>\n<pre>\n<a href=\"in\">in</a>\n<a href=\"out\">out</a>\n<a href=\"pods/\">pods/</a>\n</pre>\n",
                ),
            ),
            (&["pods"], Some("<!doctype html>\n<pre>\n<a href=\"a%26b%2Elog\">a&amp;b.log</a>\n</pre>\n")),
            (&["pods", "a&b.log"], Some("line\n")),
            (&["in"], Some("line\n")),
            (&["out"], None),
            (&["..", "secret"], None),
            (&["/secret"], None),
            (&["none"], None),
        ];
        for (parts, expected) in cases {
            let found = match answer(&root, parts).await {
                Ok(reply) => Some(reply.into_body().collect().await.unwrap().to_bytes()),
                Err(_) => None,
            };
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{parts:?}");
        }
    }
}
