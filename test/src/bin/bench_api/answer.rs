//! Answers of HTTP/1.1, looked at piece by piece as they come.

use anyhow::{Context, ensure};

/// The longest line.
const LINE_MAX: usize = 64 * 1024;

/// Where one answer is.
#[derive(Default)]
pub struct Parser {
    state: State,
    status: Option<u16>,
    length: Length,
    /// The beginning of a line that came in parts.
    line: Vec<u8>,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Head,
    /// So much is left of the body.
    Sized(usize),
    ChunkSize,
    /// So much is left of the chunk.
    Chunk(usize),
    ChunkEnd,
    Trailers,
    Done,
}

/// What the head tells of the body.
#[derive(Clone, Copy, Default)]
enum Length {
    #[default]
    Empty,
    Sized(usize),
    Chunked,
}

impl Parser {
    /// Once the head was seen.
    pub fn status(&self) -> Option<u16> {
        self.status.filter(|_| !matches!(self.state, State::Head))
    }

    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes what comes next of an answer; gives the parts of its body to `take`.
    pub fn feed(&mut self, mut data: &[u8], take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        while !data.is_empty() {
            match self.state {
                State::Sized(left) | State::Chunk(left) => {
                    let (piece, rest) = data.split_at(left.min(data.len()));
                    take(piece);
                    data = rest;
                    let left = left - piece.len();
                    self.state = match self.state {
                        State::Sized(_) if left == 0 => State::Done,
                        State::Sized(_) => State::Sized(left),
                        _ if left == 0 => State::ChunkEnd,
                        _ => State::Chunk(left),
                    };
                }
                _ => match memchr::memchr(b'\n', data) {
                    Some(end) if self.line.is_empty() => {
                        self.line(&data[..end])?;
                        data = &data[end + 1..];
                    }
                    Some(end) => {
                        let mut line = std::mem::take(&mut self.line);
                        line.extend_from_slice(&data[..end]);
                        self.line(&line)?;
                        data = &data[end + 1..];
                    }
                    None => {
                        ensure!(self.line.len() + data.len() <= LINE_MAX, "the server sent a line that is too long");
                        self.line.extend_from_slice(data);
                        return Ok(());
                    }
                },
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let line = std::str::from_utf8(line)?.trim_ascii_end();
        self.state = match self.state {
            State::Head if self.status.is_none() => {
                let code = line.split(' ').nth(1).and_then(|code| code.parse().ok());
                self.status = Some(code.context("this is no HTTP answer")?);
                State::Head
            }
            State::Head if line.is_empty() => match self.length {
                Length::Empty | Length::Sized(0) => State::Done,
                Length::Sized(size) => State::Sized(size),
                Length::Chunked => State::ChunkSize,
            },
            State::Head => {
                if let Some(size) = header(line, "content-length:") {
                    self.length = Length::Sized(size.parse()?);
                } else if header(line, "transfer-encoding:").is_some() {
                    self.length = Length::Chunked;
                }
                State::Head
            }
            State::ChunkSize => {
                match usize::from_str_radix(line, 16).with_context(|| format!("{line:?} is no chunk's size"))? {
                    0 => State::Trailers,
                    size => State::Chunk(size),
                }
            }
            State::ChunkEnd => State::ChunkSize,
            State::Trailers if line.is_empty() => State::Done,
            State::Trailers => State::Trailers,
            State::Sized(_) | State::Chunk(_) | State::Done => anyhow::bail!("the server sent more than its answer"),
        };
        Ok(())
    }
}

/// The value of a header line of this name.
fn header<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (found, value) = line.split_at_checked(name.len())?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood_however_they_are_cut() {
        for (answer, status, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx: y\r\n\r\na\nb\nc", 200, "a\nb\nc"),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", 404, ""),
            (
                "HTTP/1.1 201 C\r\ntransfer-encoding: chunked\r\n\r\n3\r\na\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
                201,
                "a\r\n0123456789",
            ),
        ] {
            for size in 1..=answer.len() {
                let (mut parser, mut seen) = (Parser::default(), Vec::new());
                for piece in answer.as_bytes().chunks(size) {
                    assert!(!parser.is_done());
                    parser.feed(piece, &mut |data| seen.extend_from_slice(data)).unwrap();
                }
                assert!(parser.is_done());
                assert_eq!((parser.status(), std::str::from_utf8(&seen)), (Some(status), Ok(body)));
                assert!(parser.feed(b"\n", &mut |_| {}).is_err());
            }
        }
    }
}
