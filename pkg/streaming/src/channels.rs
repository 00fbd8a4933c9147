//! The fifth version of the streaming protocol, for clients: websockets in which a client can end its input (KEP-4006).
//! Runtimes need not know it, as they are spoken to in SPDY.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt};
use kube1_api::status::Status;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::spdy::{Reader, Said, Writer};

/// The version that clients offer for it.
pub const V5: &str = "v5.channel.k8s.io";
/// What the other side is offered in SPDY; each knows at least one that reports how a command ended.
pub const BACKEND_VERSIONS: [&str; 2] = [V5, "v4.channel.k8s.io"];

/// The streams by the numbers of their channels.
const NAMES: [&str; 5] = ["stdin", "stdout", "stderr", "error", "resize"];
const STDIN: usize = 0;
const STDOUT: usize = 1;
const STDERR: usize = 2;
const ERROR: usize = 3;
const RESIZE: usize = 4;
/// A message on this channel names a channel that the client ends.
const CLOSE: u8 = 255;
/// How long a client may take to answer the end.
const LINGER: Duration = Duration::from_secs(5);
/// The order in which streams are opened.
const ORDER: [usize; 5] = [ERROR, STDIN, STDOUT, STDERR, RESIZE];

/// The streams that a client asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Wanted {
    fn has(self, channel: usize) -> bool {
        match channel {
            STDIN => self.stdin,
            STDOUT => self.stdout,
            // A terminal has one output.
            STDERR => self.stderr && !self.tty,
            RESIZE => self.tty,
            _ => true,
        }
    }
}

type Streams = [Option<u32>; NAMES.len()];

/// Translates between a client's websocket and the SPDY connection to the container until one of them ends.
pub async fn translate<C, B>(client: WebSocketStream<C>, backend: B, wanted: Wanted) -> Result<(), Error>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (from, to) = tokio::io::split(backend);
    let mut writer = Writer::new(to);
    let mut streams = Streams::default();
    for channel in ORDER.into_iter().filter(|c| wanted.has(*c)) {
        // A connection that is broken already is reported by the reader.
        streams[channel] = Some(writer.open("streamtype", NAMES[channel]).await.unwrap_or_default());
    }
    let (messages, mut said) = client.split();
    // One ping at a time is answered; more of them say nothing more.
    let (pings, pinged) = mpsc::channel(1);
    tokio::select! {
        ended = give(&mut said, writer, streams, pinged) => return ended,
        ended = take(messages, Reader::new(from), streams, pings) => ended?,
    }
    // A connection that is closed over bytes not read may lose the last ones sent, so the client has the last word.
    let leaving = async { while let Some(Ok(_)) = said.next().await {} };
    let _ = tokio::time::timeout(LINGER, leaving).await;
    Ok(())
}

/// Passes on what the client says, until it leaves. What the command does not take any more is dropped.
async fn give<W: AsyncWrite + Unpin>(
    said: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
    mut writer: Writer<W>,
    streams: Streams,
    mut pinged: mpsc::Receiver<u32>,
) -> Result<(), Error> {
    // Only these are the client's to write.
    let stream = |channel: u8| match usize::from(channel) {
        channel @ (STDIN | RESIZE) => streams[channel],
        _ => None,
    };
    loop {
        let message = tokio::select! {
            message = said.next() => message.transpose()?,
            Some(id) = pinged.recv() => {
                let _ = writer.pong(id).await;
                continue;
            }
        };
        let data = match message {
            None | Some(Message::Close(_)) => return Ok(()),
            Some(message @ (Message::Binary(_) | Message::Text(_))) => message.into_data(),
            Some(_) => continue,
        };
        let (channel, data, last) = match data.split_first() {
            Some((&CLOSE, [channel, ..])) => (*channel, &[][..], true),
            Some((channel, data)) => (*channel, data, false),
            None => continue,
        };
        if let Some(stream) = stream(channel) {
            // A command may end before its input does; what it said is still on its way to the client.
            let _ = writer.data(stream, data, last).await;
        }
    }
}

/// Passes on what the container says, until all its streams have ended.
async fn take<R: AsyncRead + Unpin>(
    mut messages: impl Sink<Message, Error = Error> + Unpin,
    mut reader: Reader<R>,
    mut streams: Streams,
    pings: mpsc::Sender<u32>,
) -> Result<(), Error> {
    streams[STDIN] = None;
    streams[RESIZE] = None;
    let mut judged = false;
    while streams.iter().any(Option::is_some) {
        let said = match reader.next().await {
            Ok(Some(said)) => said,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "the connection to the container broke");
                break;
            }
        };
        let channel = |stream: u32| streams.iter().position(|s| *s == Some(stream));
        match said {
            Said::Data(stream, data) => {
                if let Some(channel) = channel(stream) {
                    judged |= channel == ERROR;
                    messages.send(message(channel, &data)).await?;
                }
            }
            Said::Ended(stream) => {
                if let Some(channel) = channel(stream) {
                    streams[channel] = None;
                }
            }
            Said::Ping(id) => {
                // If one waits already, that is answer enough.
                let _ = pings.try_send(id);
            }
        }
    }
    if !judged {
        let lost = io::Error::other("the connection to the container ended before its command did");
        messages.send(verdict(&Status::internal(lost))).await?;
    }
    messages.send(finished()).await
}

/// How a stream ends that is complete. Clients take any other end for a failure.
pub fn finished() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Default::default() }))
}

/// How a stream that could not be opened is reported.
pub fn verdict(status: &Status) -> Message {
    message(ERROR, status.to_json().to_string().as_bytes())
}

fn message(channel: usize, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(1 + data.len());
    // There are five channels.
    bytes.put_u8(channel as u8);
    bytes.put_slice(data);
    Message::binary(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    const FIN: u8 = 1;

    /// A client's websocket and a kubelet's connection, joined.
    async fn joined(wanted: Wanted) -> (WebSocketStream<DuplexStream>, DuplexStream, JoinHandle<Result<(), Error>>) {
        let ((ours, theirs), (backend, kubelet)) = (duplex(4096), duplex(64 << 10));
        let server = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
        let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        (client, kubelet, tokio::spawn(translate(server, backend, wanted)))
    }

    /// Reads a frame: its first four bytes as a number, flags and payload.
    async fn frame(kubelet: &mut DuplexStream) -> (u32, u8, Vec<u8>) {
        let (start, length) = (kubelet.read_u32().await.expect("read"), kubelet.read_u32().await.expect("read"));
        let mut payload = vec![0; (length & 0xff_ffff) as usize];
        kubelet.read_exact(&mut payload).await.expect("read");
        (start, (length >> 24) as u8, payload)
    }

    async fn heard(client: &mut WebSocketStream<DuplexStream>) -> Vec<u8> {
        client.next().await.expect("a message").expect("read").into_data().to_vec()
    }

    #[tokio::test]
    async fn a_command_gets_its_input_and_its_end_and_is_heard_to_the_last() {
        let wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
        let (mut client, mut kubelet, translating) = joined(wanted).await;
        for said in [&b"\0in"[..], b"\x01not the client's", b"\xff\0"] {
            client.send(Message::binary(said.to_vec())).await.expect("sent");
        }
        for number in [1u8, 3, 5, 7] {
            let (start, _, payload) = frame(&mut kubelet).await;
            assert_eq!((start, payload[3]), (0x8003_0001, number));
        }
        assert_eq!(frame(&mut kubelet).await, (3, 0, b"in".to_vec()));
        assert_eq!(frame(&mut kubelet).await, (3, FIN, Vec::new()));
        let frames: [&[u8]; 6] = [
            b"\0\0\0\x05\0\0\0\x03out\0\0\0\x07\0\0\0\x03err",
            b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x01",
            b"\0\0\0\x01\0\0\0\x02{}",
            b"\x80\x03\0\x03\0\0\0\x08\0\0\0\x01\0\0\0\x05",
            b"\0\0\0\x05\x01\0\0\x05 last",
            b"\x80\x03\0\x03\0\0\0\x08\0\0\0\x07\0\0\0\x05",
        ];
        kubelet.write_all(&frames.concat()).await.expect("written");
        for expected in [&b"\x01out"[..], b"\x02err", b"\x03{}", b"\x01 last"] {
            assert_eq!(heard(&mut client).await, expected);
        }
        assert_eq!(client.next().await.expect("an end").expect("read"), finished());
        drop(client);
        translating.await.expect("no panic").expect("a good end");
    }

    #[tokio::test]
    async fn a_broken_connection_is_reported_as_a_failure() {
        let (mut client, kubelet, _translating) = joined(Wanted { stdout: true, ..Wanted::default() }).await;
        drop(kubelet);
        let said = heard(&mut client).await;
        assert_eq!(said[0], 3);
        let status: serde_json::Value = serde_json::from_slice(&said[1..]).expect("a Status");
        assert_eq!((&status["status"], &status["reason"]), (&"Failure".into(), &"InternalError".into()));
    }
}
