//! JSON text read once from its begin to its end, without copying: what is encoded from the bytes that are stored.

use std::borrow::Cow;

/// A place in compact JSON that this program wrote.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

/// A string without its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted<'a> {
    pub inner: &'a [u8],
    /// Whether some of it is written in other characters than it means.
    escaped: bool,
}

impl<'a> Quoted<'a> {
    /// What the string means, as UTF-8; `None` for escapes that mean nothing.
    #[inline]
    pub fn meaning(self) -> Option<Cow<'a, [u8]>> {
        if self.escaped { self.unescaped() } else { Some(self.inner.into()) }
    }

    #[cold]
    fn unescaped(self) -> Option<Cow<'a, [u8]>> {
        let quoted = [b"\"", self.inner, b"\""].concat();
        serde_json::from_slice::<String>(&quoted).ok().map(|text| text.into_bytes().into())
    }
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    pub fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    pub fn at(&self) -> usize {
        self.at
    }

    /// What comes from here on.
    pub fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// What was passed since the scanner was at `start`.
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.text[start..self.at]
    }

    /// Passes so many bytes, which are known to be a value.
    pub fn advance(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.text.len());
    }

    /// Goes into an array or object; whether something is in it.
    pub fn enter(&mut self, close: u8) -> Option<bool> {
        self.at += 1;
        if self.peek()? == close {
            self.at += 1;
            return Some(false);
        }
        Some(true)
    }

    /// After a value: whether another one follows in the array or object.
    pub fn has_more(&mut self, close: u8) -> Option<bool> {
        let next = self.peek()?;
        self.at += 1;
        match next {
            b',' => Some(true),
            _ => (next == close).then_some(false),
        }
    }

    /// The name of a member, with the colon passed.
    #[inline(always)]
    pub fn key(&mut self) -> Option<Quoted<'a>> {
        if self.peek()? != b'"' {
            return None;
        }
        let key = self.string()?;
        (self.peek()? == b':').then_some(())?;
        self.at += 1;
        Some(key)
    }

    /// The string that begins here.
    #[inline(always)]
    pub fn string(&mut self) -> Option<Quoted<'a>> {
        let start = self.at + 1;
        let (mut at, mut escaped) = (start, false);
        loop {
            let rest = self.text.get(at..)?;
            at += match rest.first_chunk() {
                Some(word) => match first_special(*word) {
                    Some(found) => found,
                    None => {
                        at += 8;
                        continue;
                    }
                },
                None => rest.iter().position(|b| matches!(b, b'"' | b'\\'))?,
            };
            if self.text[at] == b'"' {
                break;
            }
            escaped = true;
            at += 2;
        }
        self.at = at + 1;
        Some(Quoted { inner: &self.text[start..at], escaped })
    }

    /// The number or constant that begins here.
    pub fn literal(&mut self) -> &'a [u8] {
        let rest = self.rest();
        let length = rest.iter().position(|b| matches!(b, b',' | b'}' | b']')).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Passes any value; gives its text.
    pub fn skip(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        match self.peek()? {
            b'"' => {
                self.string()?;
            }
            b'{' | b'[' => self.at += nested_length(self.rest())?,
            _ => {
                self.literal();
            }
        }
        Some(self.since(start))
    }
}

/// How long the array or object at the begin of the text is: brackets are counted 64 bytes at a time.
fn nested_length(text: &[u8]) -> Option<usize> {
    let (mut depth, mut inside, mut escape) = (0_u32, 0_u64, 0_u64);
    let (blocks, rest) = text.as_chunks::<64>();
    let mut last = [b' '; 64];
    last[..rest.len()].copy_from_slice(rest);
    for (index, block) in blocks.iter().chain(std::iter::once(&last)).enumerate() {
        let Masks { mut quotes, mut backslashes, opens, closes } = Masks::of(block);
        // What follows a backslash is no quote, and no backslash of its own.
        quotes &= !escape;
        backslashes &= !escape;
        escape = 0;
        while backslashes != 0 {
            let found = backslashes & backslashes.wrapping_neg();
            quotes &= !(found << 1);
            backslashes &= !(found | found << 1);
            escape = found >> 63;
        }
        // Each bit is the parity of the quotes up to it: set from an opening one up to before the closing one.
        let mut within = quotes;
        for shift in [1, 2, 4, 8, 16, 32] {
            within ^= within << shift;
        }
        within ^= inside;
        inside = 0_u64.wrapping_sub(within >> 63);
        let (opens, mut closes) = (opens & !within, closes & !within);
        let (opened, closed) = (opens.count_ones(), closes.count_ones());
        if depth > closed {
            depth = depth + opened - closed;
            continue;
        }
        let mut passed = 0;
        while closes != 0 {
            let place = closes.trailing_zeros();
            passed += 1;
            if depth + (opens & ((1 << place) - 1)).count_ones() <= passed {
                let length = index * 64 + place as usize + 1;
                return (length <= text.len()).then_some(length);
            }
            closes &= closes - 1;
        }
        depth = depth + opened - closed;
    }
    None
}

/// Where certain bytes of a block are, as bits.
#[derive(Default)]
struct Masks {
    quotes: u64,
    backslashes: u64,
    opens: u64,
    closes: u64,
}

const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);

impl Masks {
    fn of(block: &[u8; 64]) -> Self {
        let mut found = Self::default();
        for (index, word) in block.as_chunks::<8>().0.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            // Square and curly brackets differ in one bit.
            let brackets = word | LOW << 5;
            found.quotes |= bits(word, b'"') << (8 * index);
            found.backslashes |= bits(word, b'\\') << (8 * index);
            found.opens |= bits(brackets, b'{') << (8 * index);
            found.closes |= bits(brackets, b'}') << (8 * index);
        }
        found
    }
}

/// One bit for each byte of a word, set for those that are `byte`.
fn bits(word: u64, byte: u8) -> u64 {
    let other = word ^ (LOW * u64::from(byte));
    // The highest bit of each byte stays clear for those that are zero.
    let equal = !(((other & !HIGH) + !HIGH) | other) & HIGH;
    (equal >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// Where the first quote or backslash is.
fn first_special(word: [u8; 8]) -> Option<usize> {
    let word = u64::from_le_bytes(word);
    // The lowest byte that is zero gets its highest bit set, and none below it does.
    let zeros = |x: u64| x.wrapping_sub(LOW) & !x & HIGH;
    let found = zeros(word ^ (LOW * u64::from(b'"'))) | zeros(word ^ (LOW * u64::from(b'\\')));
    (found != 0).then(|| (found.trailing_zeros() / 8) as usize)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_every_length_end_where_they_do() {
        for length in 0..70 {
            for (inner, escaped) in [
                ("x".repeat(length), false),
                (format!("{}\\\\", "ü".repeat(length)), true),
                (format!("{}\\\"{}", "x".repeat(length), "[{".repeat(length)), true),
            ] {
                let text = format!("\"{inner}\",7]");
                let mut scanner = Scanner::new(text.as_bytes());
                let found = scanner.string().unwrap();
                assert_eq!((found.inner, found.escaped, scanner.rest()), (inner.as_bytes(), escaped, &b",7]"[..]));
                let meaning = serde_json::from_str::<String>(&format!("\"{inner}\"")).unwrap();
                assert_eq!(found.meaning().unwrap(), meaning.as_bytes());
            }
        }
        for cut in ["\"", "\"\\", "\"abc", "\"0123456789abcdef\\"] {
            assert!(Scanner::new(cut.as_bytes()).string().is_none(), "{cut}");
        }
    }

    #[test]
    fn values_of_every_length_end_where_they_do() {
        for length in 0..150 {
            let inner = "x\\\"}]\\\\".repeat(length / 7) + &"y".repeat(length % 7);
            for value in [
                format!(r#"{{"k:{{\"name\":\"{inner}\"}}":{{".":{{}},"f:a":[[{{}}],1]}}}}"#),
                format!(r#"[{}"{inner}"{}]"#, "[".repeat(length), "]".repeat(length)),
                format!("\"{inner}\""),
                "-12.5e3".into(),
                "null".into(),
            ] {
                let text = format!("{value},\"}}\"");
                assert_eq!(Scanner::new(text.as_bytes()).skip(), Some(value.as_bytes()), "{text}");
                if value.starts_with(['{', '[']) {
                    let cut = &value[..value.len() - 1];
                    assert_eq!(Scanner::new(cut.as_bytes()).skip(), None, "{cut}");
                }
            }
        }
    }
}
