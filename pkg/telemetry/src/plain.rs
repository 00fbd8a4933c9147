//! Refusals of API servers in plain words.
//!
//! kube shows a refusal as `ApiError: MESSAGE: REASON (Status { …all of it… })`, wherever an error is part of a text.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

const BEFORE: &str = "ApiError: ";
const STATUS: &str = " (Status { ";

/// The text with only the messages of such refusals. Also for texts inside JSON, where quotes are escaped.
pub fn plain(text: &str) -> Cow<'_, str> {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((at, status)) = rest.find(BEFORE).and_then(|at| Some((at, at + rest[at..].find(STATUS)?))) {
        let Some(end) = closing(&rest[status + 1..]) else { break };
        let said = &rest[at + BEFORE.len()..status];
        // The reason is one word behind the message.
        let message = said.rsplit_once(": ").filter(|(_, reason)| !reason.contains(' ')).map_or(said, |(m, _)| m);
        plain.push_str(&rest[..at]);
        plain.push_str(message.trim_end_matches(':'));
        rest = &rest[status + 1 + end..];
    }
    if plain.is_empty() {
        return Cow::Borrowed(text);
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// The end of what the parenthesis opens that `text` begins with; brackets inside quotes do not count.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut slashes) = (0, 0);
    // How many backslashes a quote has before it that opened a string.
    let mut quoted: Option<usize> = None;
    for (index, c) in text.char_indices() {
        match c {
            '\\' => {
                slashes += 1;
                continue;
            }
            '"' if quoted.is_none() => quoted = Some(slashes),
            '"' if quoted == Some(slashes) => quoted = None,
            '(' if quoted.is_none() => depth += 1,
            ')' if quoted.is_none() => {
                depth -= 1;
                if depth == 0 {
                    return Some(index + 1);
                }
            }
            _ => {}
        }
        slashes = 0;
    }
    None
}

static BROKEN: AtomicBool = AtomicBool::new(false);

/// Whether the last line of the log could be written.
pub fn log_works() -> bool {
    !BROKEN.load(Ordering::Relaxed)
}

/// Writes lines of the log in plain words.
pub struct PlainWriter<W>(pub W);

impl<W: Write> Write for PlainWriter<W> {
    /// The log writes whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = match std::str::from_utf8(line).map(plain) {
            Ok(Cow::Owned(plain)) => self.0.write_all(plain.as_bytes()),
            _ => self.0.write_all(line),
        };
        BROKEN.store(written.is_err(), Ordering::Relaxed);
        written.map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = r#"ApiError: pods "a" is forbidden: no (way): Forbidden (Status { status: Some(Failure), code: 403, message: "pods \"a\" is forbidden: no (way", metadata: Some(ListMeta { self_link: None }), reason: "Forbidden", details: None })"#;

    #[test]
    fn a_log_that_cannot_be_written_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(PlainWriter(Full).write(b"line\n").is_err() && !log_works());
        assert!(PlainWriter(Vec::new()).write(b"line\n").is_ok() && log_works());
    }

    #[test]
    fn refusals_are_told_by_their_message() {
        let message = r#"pods "a" is forbidden: no (way)"#;
        for (text, expected) in [
            (format!("WARN binding rejected: {SHOWN} pod=x"), format!("WARN binding rejected: {message} pod=x")),
            (format!("{SHOWN}; {SHOWN}"), format!("{message}; {message}")),
            ("ApiError: cut (Status { status: Some(".to_owned(), "ApiError: cut (Status { status: Some(".to_owned()),
            ("nothing (of it)".to_owned(), "nothing (of it)".to_owned()),
        ] {
            assert_eq!(plain(&text), expected);
            let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            assert_eq!(plain(&escaped(&text)), escaped(&expected), "in JSON");
            let mut written = Vec::new();
            assert_eq!(PlainWriter(&mut written).write(text.as_bytes()).ok(), Some(text.len()));
            assert_eq!(String::from_utf8_lossy(&written), expected);
        }
    }
}
