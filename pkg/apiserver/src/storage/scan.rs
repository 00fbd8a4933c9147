//! Finds members of the compact JSON that this server itself wrote, without parsing all of it.

/// A part of a byte string; empty when nothing was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    fn new(start: usize, end: usize) -> Self {
        // Objects are at most a few MiB.
        Self { start: start as u32, end: end as u32 }
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The span after `delta` bytes were added at `at`.
    pub fn shifted(self, at: u32, delta: i64) -> Self {
        let moved = |x: u32| if x > at { (i64::from(x) + delta) as u32 } else { x };
        Self { start: moved(self.start), end: moved(self.end) }
    }
}

/// A member to be found: the keys that lead to it, and where its span goes.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub path: &'a [String],
    pub index: usize,
}

/// Writes the spans of the wanted members of the object at `at` to `found`. Strings come with their quotes.
///
/// Returns where the object ends; `None` when it is not one.
pub fn find(bytes: &[u8], at: usize, wanted: &[Wanted<'_>], found: &mut [Span]) -> Option<usize> {
    let mut members = Members::new(bytes, at)?;
    while let Some((key, start)) = members.next_key() {
        let mut deeper: smallvec::SmallVec<[Wanted<'_>; 12]> = smallvec::SmallVec::new();
        let mut here: smallvec::SmallVec<[usize; 2]> = smallvec::SmallVec::new();
        for want in wanted {
            match want.path {
                [only] if only.as_bytes() == key => here.push(want.index),
                [first, rest @ ..] if !rest.is_empty() && first.as_bytes() == key => {
                    deeper.push(Wanted { path: rest, index: want.index });
                }
                _ => {}
            }
        }
        let end = if deeper.is_empty() || bytes.get(start) != Some(&b'{') {
            value_end(bytes, start)?
        } else {
            find(bytes, start, &deeper, found)?
        };
        for index in here {
            found[index] = Span::new(start, end);
        }
        members.at = end;
    }
    members.end()
}

/// Walks over the members of an object.
pub struct Members<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Members<'a> {
    pub fn new(bytes: &'a [u8], at: usize) -> Option<Self> {
        (bytes.get(at) == Some(&b'{')).then_some(Self { bytes, at: at + 1 })
    }

    /// The next key, still escaped, and where its value begins. The caller then moves on to the value's end.
    fn next_key(&mut self) -> Option<(&'a [u8], usize)> {
        if self.bytes.get(self.at) == Some(&b',') {
            self.at += 1;
        }
        if self.bytes.get(self.at) != Some(&b'"') {
            return None;
        }
        let end = string_end(self.bytes, self.at)?;
        let key = &self.bytes[self.at + 1..end - 1];
        (self.bytes.get(end) == Some(&b':')).then_some((key, end + 1))
    }

    fn end(&self) -> Option<usize> {
        (self.bytes.get(self.at) == Some(&b'}')).then_some(self.at + 1)
    }
}

/// Keys and values, still escaped; values of strings without their quotes.
impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, start) = self.next_key()?;
        let end = value_end(self.bytes, start)?;
        self.at = end;
        let value = &self.bytes[start..end];
        Some((key, value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value)))
    }
}

fn value_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_u32;
    loop {
        match *bytes.get(at)? {
            b'"' => at = string_end(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' => {
                at += 1;
                continue;
            }
            _ => at += bytes[at..].iter().position(|b| matches!(b, b',' | b'}' | b']'))?,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The end of the string that begins at `at`, behind its closing quote.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_path() {
        let text = r#"{"a":{"b":[1,{"x":"}\""}],"c":"d\\"},"e":true,"f":{},"g":-1.5}"#;
        let paths: Vec<Vec<String>> = ["a.c", "e", "f", "g", "a.b", "a.b.x", "a.none", "f.x"]
            .iter()
            .map(|p| p.split('.').map(str::to_owned).collect())
            .collect();
        let wanted: Vec<Wanted<'_>> = paths.iter().enumerate().map(|(index, path)| Wanted { path, index }).collect();
        let mut found = vec![Span::default(); paths.len()];
        assert_eq!(find(text.as_bytes(), 0, &wanted, &mut found), Some(text.len()));
        let texts: Vec<&str> = found.iter().map(|s| std::str::from_utf8(s.of(text.as_bytes())).unwrap()).collect();
        assert_eq!(texts, [r#""d\\""#, "true", "{}", "-1.5", r#"[1,{"x":"}\""}]"#, "", "", ""]);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["", "[]", "{", r#"{"a"}"#, r#"{"a":"#, r#"{"a":"x}"#, r#"{"a":[}"#] {
            assert_eq!(find(text.as_bytes(), 0, &[], &mut []), None, "{text}");
        }
    }
}
