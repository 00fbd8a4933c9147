//! The client's side of SPDY/3.1, as far as the streams of commands in containers need it.
//!
//! Headers are sent in a zlib stream of stored blocks, which every inflater takes; the answers' headers say nothing
//! that is needed and are not read. There is no flow control: the servers that Kubernetes has do not use it.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const CONTROL: u8 = 0x80;
const VERSION: u8 = 3;
const SYN_STREAM: u8 = 1;
const SYN_REPLY: u8 = 2;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const FIN: u8 = 1;
/// What of a frame is handed on at once.
const CHUNK: usize = 32 << 10;
/// Start of a zlib stream that uses no dictionary.
const ZLIB: [u8; 2] = [0x78, 0x01];
/// An empty stored block, at which an inflater hands out all it has.
const FLUSH: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// Writes frames.
pub struct Writer<W> {
    to: W,
    next: u32,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub fn new(to: W) -> Self {
        Self { to, next: 1 }
    }

    /// Opens a stream with one header and returns its number. The value must be short.
    pub async fn open(&mut self, name: &str, value: &str) -> io::Result<u32> {
        let number = self.next;
        let mut block = 1u32.to_be_bytes().to_vec();
        for text in [name, value] {
            block.extend_from_slice(&(text.len() as u32).to_be_bytes());
            block.extend_from_slice(text.as_bytes());
        }
        let mut payload = number.to_be_bytes().to_vec();
        // No stream that it belongs to, the first priority, no slot.
        payload.extend_from_slice(&[0; 6]);
        if number == 1 {
            payload.extend_from_slice(&ZLIB);
        }
        let length = u16::try_from(block.len()).map_err(io::Error::other)?;
        payload.push(0);
        payload.extend_from_slice(&length.to_le_bytes());
        payload.extend_from_slice(&(!length).to_le_bytes());
        payload.extend_from_slice(&block);
        payload.extend_from_slice(&FLUSH);
        self.control(SYN_STREAM, &payload).await?;
        self.next += 2;
        Ok(number)
    }

    /// Sends data of a stream; `last` ends this side of it.
    pub async fn data(&mut self, stream: u32, data: &[u8], last: bool) -> io::Result<()> {
        let mut chunks = data.chunks(CHUNK).peekable();
        if chunks.peek().is_none() && last {
            self.frame(stream.to_be_bytes(), FIN, &[]).await?;
        }
        while let Some(chunk) = chunks.next() {
            let flags = if last && chunks.peek().is_none() { FIN } else { 0 };
            self.frame(stream.to_be_bytes(), flags, chunk).await?;
        }
        self.to.flush().await
    }

    /// Answers a ping.
    pub async fn pong(&mut self, id: u32) -> io::Result<()> {
        self.control(PING, &id.to_be_bytes()).await
    }

    async fn control(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        self.frame([CONTROL, VERSION, 0, kind], 0, payload).await?;
        self.to.flush().await
    }

    async fn frame(&mut self, start: [u8; 4], flags: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = BytesMut::with_capacity(8 + payload.len());
        frame.extend_from_slice(&start);
        let length = (payload.len() as u32).to_be_bytes();
        frame.extend_from_slice(&[flags, length[1], length[2], length[3]]);
        frame.extend_from_slice(payload);
        self.to.write_all(&frame).await
    }
}

/// What the other side says.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Data(u32, Bytes),
    /// The other side of a stream has ended.
    Ended(u32),
    Ping(u32),
}

/// Reads frames. A read that is given up loses its place.
pub struct Reader<R> {
    from: R,
    /// What is still to come of a frame of data: its stream, bytes, and whether it is the stream's last.
    data: Option<(u32, usize, bool)>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(from: R) -> Self {
        Self { from, data: None }
    }

    /// The next that matters, or nothing at the end of the connection.
    pub async fn next(&mut self) -> io::Result<Option<Said>> {
        loop {
            if let Some((stream, left, last)) = self.data.take() {
                if left == 0 {
                    if last {
                        return Ok(Some(Said::Ended(stream)));
                    }
                    continue;
                }
                let mut chunk = BytesMut::zeroed(left.min(CHUNK));
                self.from.read_exact(&mut chunk).await?;
                self.data = Some((stream, left - chunk.len(), last));
                return Ok(Some(Said::Data(stream, chunk.freeze())));
            }
            let mut head = [0; 8];
            match self.from.read_exact(&mut head).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                read => read?,
            };
            let [a, b, c, kind, flags, length @ ..] = head;
            let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
            if a & CONTROL == 0 {
                self.data = Some((u32::from_be_bytes([a, b, c, kind]), length, flags & FIN != 0));
            } else if let Some(said) = self.control(kind, flags, length).await? {
                return Ok(Some(said));
            }
        }
    }

    async fn control(&mut self, kind: u8, flags: u8, length: usize) -> io::Result<Option<Said>> {
        let mut number = [0; 4];
        let known = length.min(number.len());
        self.from.read_exact(&mut number[..known]).await?;
        let rest = (length - known) as u64;
        tokio::io::copy(&mut (&mut self.from).take(rest), &mut tokio::io::sink()).await?;
        let number = u32::from_be_bytes(number);
        Ok(match kind {
            SYN_REPLY if flags & FIN != 0 => Some(Said::Ended(number)),
            RST_STREAM => Some(Said::Ended(number)),
            PING => Some(Said::Ping(number)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn headers_can_be_inflated_frame_by_frame() {
        let mut sent = Vec::new();
        let mut writer = Writer::new(&mut sent);
        assert_eq!(writer.open("streamtype", "error").await.expect("written"), 1);
        assert_eq!(writer.open("streamtype", "stdin").await.expect("written"), 3);
        writer.data(3, b"abc", true).await.expect("written");
        let mut zlib = Vec::new();
        let mut rest = &sent[..];
        for (number, value) in [(1, "error"), (3, "stdin")] {
            assert_eq!(rest[..4], [0x80, 3, 0, 1]);
            let length = usize::from(u16::from_be_bytes([rest[6], rest[7]]));
            assert_eq!(rest[8..12], u32::to_be_bytes(number));
            zlib.extend_from_slice(&rest[18..8 + length]);
            rest = &rest[8 + length..];
            let mut headers = vec![0; 4 + 4 + 10 + 4 + 5];
            let mut inflater = flate2::read::ZlibDecoder::new(&zlib[..]);
            if number == 3 {
                let mut first = vec![0; headers.len()];
                inflater.read_exact(&mut first).expect("the first block");
            }
            inflater.read_exact(&mut headers).expect("whole at the end of its frame");
            assert_eq!(headers, [b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05", value.as_bytes()].concat());
        }
        assert_eq!(rest, b"\0\0\0\x03\x01\0\0\x03abc");
    }

    #[tokio::test]
    async fn what_matters_of_the_other_side_is_read() {
        let frames: [&[u8]; 7] = [
            b"\x80\x03\0\x04\0\0\0\x0c\0\0\0\x01\0\0\0\x04\0\0\0\x64",
            b"\x80\x03\0\x02\0\0\0\x04\0\0\0\x01",
            b"\0\0\0\x05\0\0\0\x02hi",
            b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x09",
            b"\0\0\0\x05\x01\0\0\x01!",
            b"\x80\x03\0\x03\0\0\0\x08\0\0\0\x07\0\0\0\x05",
            b"\0\0\0\x05\x01\0\0\x00",
        ];
        let bytes = frames.concat();
        let mut reader = Reader::new(&bytes[..]);
        let expected = [
            Said::Data(5, Bytes::from_static(b"hi")),
            Said::Ping(9),
            Said::Data(5, Bytes::from_static(b"!")),
            Said::Ended(5),
            Said::Ended(7),
            Said::Ended(5),
        ];
        for said in expected {
            assert_eq!(reader.next().await.expect("read"), Some(said));
        }
        assert_eq!(reader.next().await.expect("read"), None);
    }
}
