//! `/logs/`: the files of this machine's log directory, for those who may read the path.

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use kube1_api::status::Status;
use tokio_util::io::ReaderStream;

use super::body::{BoxError, ResponseBody};
use super::respond::{self, Reply, TEXT};

const ROOT: &str = "/var/log";
const HTML: &str = "text/html; charset=utf-8";
/// Names of a directory that are listed.
const NAMES: usize = 10_000;

/// Answers the decoded rest of a path behind `/logs`.
pub async fn answer(rest: &str) -> Result<Reply, Status> {
    below(Path::new(ROOT), rest).await
}

async fn below(root: &Path, rest: &str) -> Result<Reply, Status> {
    let Some(path) = inside(root, rest) else { return Ok(respond::page_not_found()) };
    // Links may lead out of the directory; what they lead to is none of the reader's business.
    let real = async {
        Ok::<_, std::io::Error>((tokio::fs::canonicalize(&path).await?, tokio::fs::canonicalize(root).await?))
    };
    match real.await {
        Ok((real, root)) if real.starts_with(&root) => read(&real).await,
        _ => Ok(respond::page_not_found()),
    }
}

/// The path, if it has no parts that lead upwards.
fn inside(root: &Path, rest: &str) -> Option<PathBuf> {
    let rest = Path::new(rest.trim_start_matches('/'));
    let plain = rest.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    (plain && !rest.as_os_str().as_encoded_bytes().contains(&0)).then(|| root.join(rest))
}

async fn read(path: &Path) -> Result<Reply, Status> {
    let failed = |e: std::io::Error| Status::internal(format!("cannot read the log: {e}"));
    let metadata = tokio::fs::metadata(path).await.map_err(failed)?;
    if metadata.is_dir() {
        return list(path).await.map_err(failed);
    }
    if !metadata.is_file() {
        return Ok(respond::page_not_found());
    }
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut reply = respond::bytes(StatusCode::OK, TEXT, Bytes::new());
    let chunks = ReaderStream::new(tokio::io::AsyncReadExt::take(file, metadata.len()));
    *reply.body_mut() = ResponseBody::stream(chunks.map(|chunk| chunk.map_err(BoxError::from)));
    Ok(reply)
}

async fn list(path: &Path) -> std::io::Result<Reply> {
    let mut names = Vec::new();
    let mut entries = tokio::fs::read_dir(path).await?;
    while let Some(entry) = entries.next_entry().await?.filter(|_| names.len() < NAMES) {
        let slash = if entry.file_type().await?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    let line = |name: &String| {
        let url = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string();
        let text = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        format!("<a href=\"{}\">{text}</a>\n", url.replace("%2F", "/"))
    };
    let page = format!("<pre>\n{}</pre>\n", names.iter().map(line).collect::<String>());
    Ok(respond::bytes(StatusCode::OK, HTML, page))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn only_what_lies_inside_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("log");
        std::fs::create_dir_all(root.join("pods")).unwrap();
        std::fs::write(root.join("a<b"), "line\n").unwrap();
        std::fs::write(dir.path().join("secret"), "no").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("link")).unwrap();
        for (rest, code, expected) in [
            (
                "/",
                200,
                "<pre>\n<a href=\"a%3Cb\">a&lt;b</a>\n<a href=\"link\">link</a>\n<a href=\"pods/\">pods/</a>\n</pre>\n",
            ),
            ("/a<b", 200, "line\n"),
            ("/pods", 200, "<pre>\n</pre>\n"),
            ("/../secret", 404, "404 page not found\n"),
            ("/link", 404, "404 page not found\n"),
            ("/none", 404, "404 page not found\n"),
            ("/a\0", 404, "404 page not found\n"),
        ] {
            let reply = below(&root, rest).await.unwrap();
            assert_eq!(reply.status(), code, "{rest}");
            let body = reply.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(String::from_utf8_lossy(&body), expected, "{rest}");
        }
    }
}
