//! Containers' logs.

use std::collections::HashMap;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use jiff::{SignedDuration, Timestamp};
use kube1_cri::v1::{Container, ContainerState};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

use super::stream::query;
use super::{Reply, Server, text};
use crate::dir_watch::DirWatch;
use crate::node::Node;
use crate::pod::{self, PodExt};
use crate::{labels, log_file};

/// While a log is followed, the container's end is looked for this often where no event told of it.
const LOOK: Duration = Duration::from_secs(5);
/// Chunks that may wait for a slow reader.
const AHEAD: usize = 16;
const CHUNK: usize = 32 << 10;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<usize>,
    since: Option<Timestamp>,
    limit: Option<u64>,
    /// `stdout` or `stderr`, where only one is wanted.
    stream: Option<String>,
}

impl Options {
    pub fn parse(pairs: &[(String, String)], now: Timestamp) -> Result<Self, String> {
        let mut options = Self::default();
        for (key, value) in pairs {
            let bad = || format!("invalid value {value:?} of {key}");
            // Clients write it their own way, such as Python's `True`.
            let on = !(value.eq_ignore_ascii_case("false") || value == "0");
            match key.as_str() {
                "follow" => options.follow = on,
                "previous" => options.previous = on,
                "timestamps" => options.timestamps = on,
                "tailLines" => options.tail = Some(value.parse().map_err(|_| bad())?),
                "limitBytes" => options.limit = Some(value.parse().map_err(|_| bad())?),
                "sinceSeconds" => {
                    let seconds: i64 = value.parse().map_err(|_| bad())?;
                    // Before all time is since ever.
                    options.since = now.checked_sub(SignedDuration::from_secs(seconds)).ok();
                }
                "sinceTime" => options.since = Some(value.parse().map_err(|_| bad())?),
                "stream" if value != "All" => options.stream = Some(value.to_lowercase()),
                _ => {}
            }
        }
        Ok(options)
    }
}

pub(super) async fn serve(
    server: &Arc<Server>,
    request: &Request<Incoming>,
    namespace: &str,
    name: &str,
    container: &str,
) -> Reply {
    let options = match Options::parse(&query(request), Timestamp::now()) {
        Ok(options) => options,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let node = Arc::clone(&server.node);
    let Some(entry) = node.pods.by_name(namespace, name) else {
        return text(StatusCode::NOT_FOUND, format!("pod \"{name}\" not found\n"));
    };
    let pod = entry.pod();
    if !pod::containers(pod.spec()).iter().any(|(_, c)| c.name == container) {
        return text(StatusCode::NOT_FOUND, format!("container \"{container}\" not found in pod \"{name}\"\n"));
    }
    let chosen = match choose(&node, pod.uid(), container, options.previous).await {
        Ok(Some(chosen)) => chosen,
        Ok(None) if options.previous => {
            let message = format!("previous terminated container \"{container}\" in pod \"{name}\" not found");
            return text(StatusCode::BAD_REQUEST, message);
        }
        Ok(None) => {
            let status = entry.status.lock().clone().unwrap_or_default();
            let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
            let why =
                all.filter(|s| s.name == container).find_map(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone());
            let why = why.unwrap_or_else(|| "ContainerCreating".to_owned());
            let message = format!("container \"{container}\" in pod \"{name}\" is waiting to start: {why}");
            return text(StatusCode::BAD_REQUEST, message);
        }
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let attempt = chosen.metadata.as_ref().map_or(0, |m| m.attempt);
    let dir = node.config.pod_log_dir(pod.namespace(), pod.name(), pod.uid()).join(container);
    let path = dir.join(format!("{attempt}.log"));
    let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
    let stop = server.stop.clone();
    server.tracker.spawn(async move {
        let reader = Reader {
            node,
            id: chosen.id,
            path,
            options,
            sender: sender.clone(),
            pending: Vec::new(),
            line_open: false,
            left: None,
        };
        let read = async {
            if let Err(error) = reader.run().await {
                // The reader's client may be gone already.
                let _ = sender.send(Err(error)).await;
            }
        };
        tokio::select! {
            () = read => {}
            () = sender.closed() => {}
            () = stop.cancelled() => {}
        }
    });
    let frames = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).map_frames();
    let mut reply = Response::new(StreamBody::new(frames).boxed());
    reply.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    reply
}

trait MapFrames: futures::Stream<Item = io::Result<Bytes>> + Sized {
    fn map_frames(self) -> impl futures::Stream<Item = io::Result<Frame<Bytes>>> {
        futures::StreamExt::map(self, |chunk| chunk.map(Frame::data))
    }
}

impl<S: futures::Stream<Item = io::Result<Bytes>>> MapFrames for S {}

/// The newest container of a name, or the one before it.
async fn choose(node: &Node, uid: &str, name: &str, previous: bool) -> Result<Option<Container>, kube1_cri::CriError> {
    let wanted = HashMap::from([
        (labels::POD_UID.to_owned(), uid.to_owned()),
        (labels::CONTAINER_NAME.to_owned(), name.to_owned()),
    ]);
    let mut found = node.runtime.list_containers(wanted).await?;
    found.retain(|c| matches!(c.state(), ContainerState::ContainerRunning | ContainerState::ContainerExited));
    found.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.metadata.as_ref().map_or(0, |m| m.attempt))));
    if previous {
        // What ended last, whether or not something runs in its place.
        let running = found.first().is_some_and(|c| c.state() == ContainerState::ContainerRunning);
        let skip = if running || found.len() > 1 { 1 } else { 0 };
        return Ok(found.into_iter().skip(skip).find(|c| c.state() == ContainerState::ContainerExited));
    }
    Ok(found.into_iter().next())
}

/// Sends one log to one client.
struct Reader {
    node: Arc<Node>,
    id: String,
    path: PathBuf,
    options: Options,
    sender: mpsc::Sender<io::Result<Bytes>>,
    pending: Vec<u8>,
    /// The last entry sent did not end its line.
    line_open: bool,
    left: Option<u64>,
}

impl Reader {
    async fn run(mut self) -> io::Result<()> {
        self.left = self.options.limit;
        let watch = match self.options.follow {
            true => Some(DirWatch::new(self.path.parent().unwrap_or(Path::new("/")), DirWatch::WRITES)?),
            false => None,
        };
        let mut file = self.open().await?;
        let mut line = Vec::new();
        loop {
            // Asked before reading, so that what was written before the end is not missed.
            let running = self.options.follow && self.is_running().await;
            while file.read_until(b'\n', &mut line).await? > 0 {
                if line.last() != Some(&b'\n') {
                    break;
                }
                line.pop();
                if !self.take(&line).await {
                    return Ok(());
                }
                line.clear();
            }
            if !self.flush().await {
                return Ok(());
            }
            let Some(watch) = watch.as_ref().filter(|_| running) else { return Ok(()) };
            if self.was_rotated(file.get_ref()).await {
                file = BufReader::new(File::open(&self.path).await?);
                continue;
            }
            tokio::select! {
                changed = watch.changed() => changed?,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn open(&self) -> io::Result<BufReader<File>> {
        let (path, tail) = (self.path.clone(), self.options.tail);
        let opened = tokio::task::spawn_blocking(move || {
            let mut file = std::fs::File::open(path)?;
            let offset = match tail {
                Some(lines) => log_file::tail_offset(&mut file, lines)?,
                None => 0,
            };
            Ok::<_, io::Error>((file, offset))
        });
        let (file, offset) = opened.await.map_err(io::Error::other)??;
        let mut file = File::from_std(file);
        file.seek(SeekFrom::Start(offset)).await?;
        Ok(BufReader::with_capacity(CHUNK, file))
    }

    async fn is_running(&self) -> bool {
        if self.node.owners.has_ended(&self.id) {
            return false;
        }
        let status = self.node.runtime.container_status(&self.id).await;
        status.is_ok_and(|s| s.state() == ContainerState::ContainerRunning)
    }

    /// Whether the path is another file by now.
    async fn was_rotated(&self, file: &File) -> bool {
        let (Ok(open), Ok(named)) = (file.metadata().await, tokio::fs::metadata(&self.path).await) else {
            return false;
        };
        open.ino() != named.ino()
    }

    /// Takes one entry. Says whether more is wanted.
    async fn take(&mut self, line: &[u8]) -> bool {
        let Some(entry) = log_file::parse(line) else { return true };
        let too_old = self.options.since.is_some_and(|since| entry.at().is_some_and(|at| at < since));
        let other = self.options.stream.as_deref().is_some_and(|stream| stream != entry.stream);
        if too_old || other {
            return true;
        }
        if self.options.timestamps && !self.line_open {
            self.pending.extend_from_slice(entry.time.as_bytes());
            self.pending.push(b' ');
        }
        self.pending.extend_from_slice(entry.text);
        self.line_open = !entry.ends_line;
        if entry.ends_line {
            self.pending.push(b'\n');
        }
        self.pending.len() < CHUNK || self.flush().await
    }

    /// Sends what is pending. Says whether the client wants more.
    async fn flush(&mut self) -> bool {
        if let Some(left) = &mut self.left {
            self.pending.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= self.pending.len() as u64;
        }
        if !self.pending.is_empty() {
            let chunk = Bytes::from(std::mem::take(&mut self.pending));
            if self.sender.send(Ok(chunk)).await.is_err() {
                return false;
            }
        }
        self.left != Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_parsed_or_refused() {
        let parse = |text: &str| {
            let pairs: Vec<_> =
                text.split('&').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            Options::parse(&pairs, Timestamp::UNIX_EPOCH + SignedDuration::from_secs(100))
        };
        let options = parse("follow=true&tailLines=5&sinceSeconds=40&limitBytes=9&timestamps=1").expect("options");
        assert!(options.follow && options.timestamps && !options.previous);
        assert_eq!((options.tail, options.limit), (Some(5), Some(9)));
        assert_eq!(options.since.map(|s| s.as_second()), Some(60));
        let options = parse("follow=True&timestamps=&previous=False");
        assert!(options.as_ref().is_ok_and(|o| o.follow && o.timestamps && !o.previous), "{options:?}");
        assert_eq!(parse(&format!("sinceSeconds={}", i64::MAX)).expect("options").since, None);
        assert!(parse("tailLines=-1").is_err() && parse("sinceTime=yesterday").is_err());
    }
}
