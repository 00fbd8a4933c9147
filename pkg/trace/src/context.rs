//! Who belongs to which trace (W3C Trace Context, level 1).

use http::{HeaderMap, HeaderValue};

const HEADER: &str = "traceparent";

/// A span's place in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub trace: [u8; 16],
    pub span: [u8; 8],
    pub sampled: bool,
}

impl Context {
    /// The begin of a trace; `rate` of a million are sampled.
    pub fn root(rate: u32) -> Self {
        let trace: [u8; 16] = rand::random();
        Self { trace, span: rand::random(), sampled: is_sampled(&trace, rate) }
    }

    pub fn child(&self) -> Self {
        Self { span: rand::random(), ..*self }
    }

    /// What a caller says of itself; nothing if that cannot be read.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(HEADER)?.to_str().ok()?;
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let ([version], [flags]) = (bytes::<1>(version)?, bytes::<1>(flags)?);
        let (trace, span) = (bytes::<16>(trace)?, bytes::<8>(span)?);
        let fine = version != 0xff && (version != 0 || parts.next().is_none()) && trace != [0; 16] && span != [0; 8];
        fine.then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    pub fn write(&self, headers: &mut HeaderMap) {
        let text = format!("00-{}-{}-0{}", hex(&self.trace), hex(&self.span), u8::from(self.sampled));
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(HEADER, value);
        }
    }
}

/// By the trace's id, so that all who decide decide alike.
fn is_sampled(trace: &[u8; 16], rate: u32) -> bool {
    let number = trace[8..].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)) >> 1;
    u128::from(number) * 1_000_000 < u128::from(rate) << 63
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_written() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (text, sampled) in [
            (format!("00-{TRACE}-00f067aa0ba902b7-01"), Some(true)),
            (format!("00-{TRACE}-00f067aa0ba902b7-00"), Some(false)),
            (format!("01-{TRACE}-00f067aa0ba902b7-03-more"), Some(true)),
            (format!("00-{TRACE}-00f067aa0ba902b7-01-more"), None),
            (format!("ff-{TRACE}-00f067aa0ba902b7-01"), None),
            (format!("00-{TRACE}-0000000000000000-01"), None),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
            (format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()), None),
            (format!("00-{TRACE}-00f067aa0ba902b-01"), None),
            ("00".to_owned(), None),
            ("ä".to_owned(), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(text.as_bytes()).unwrap_or(HeaderValue::from_static("")));
            let read = Context::read(&headers);
            assert_eq!(read.map(|context| context.sampled), sampled, "{text}");
            if let Some(context) = read {
                let mut written = HeaderMap::new();
                context.write(&mut written);
                assert_eq!(Context::read(&written), Some(context));
            }
        }
    }

    #[test]
    fn the_rate_is_kept() {
        for (rate, least, most) in [(0, 0, 0), (1_000_000, 2000, 2000), (500_000, 800, 1200)] {
            let sampled = (0..2000).filter(|_| Context::root(rate).sampled).count();
            assert!((least..=most).contains(&sampled), "{rate}: {sampled}");
        }
    }
}
