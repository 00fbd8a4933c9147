//! JSON text taken apart in one pass and without copying: what is encoded from the bytes that are stored.

use std::borrow::Cow;

/// Values may be nested this deep, as for the parser that accepted them.
const DEPTH: usize = 128;
/// The one member whose objects are large and always passed on as they are: what is inside is not looked at.
const OPAQUE: &str = "\"fieldsV1\"";

/// Values in the order of the text; the keys of an object's members are values too. One tape serves many texts.
#[derive(Debug, Default)]
pub(super) struct Tape {
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// Where in the text it is.
    start: u32,
    length: u32,
    /// How many nodes this one and all inside it are.
    end: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Number,
    Text,
    /// A text with escapes.
    Escaped,
    Array,
    Object,
}

/// One value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Json<'t, 'a> {
    text: &'a str,
    /// This value's node and those after it.
    nodes: &'t [Node],
}

impl Tape {
    /// `None` for what is not one compact JSON value.
    pub fn parse<'t, 'a>(&'t mut self, text: &'a str) -> Option<Json<'t, 'a>> {
        u32::try_from(text.len()).ok()?;
        self.nodes.clear();
        self.nodes.reserve(text.len() / 16);
        let mut parser = Parser { text: text.as_bytes(), at: 0, nodes: &mut self.nodes };
        parser.value(DEPTH)?;
        (parser.at == text.len()).then_some(Json { text, nodes: &self.nodes })
    }
}

impl<'t, 'a> Json<'t, 'a> {
    /// What a member that is missing is.
    pub const NULL: Json<'static, 'static> =
        Json { text: "null", nodes: &[Node { start: 0, length: 4, end: 1, kind: Kind::Null }] };

    fn kind(self) -> Kind {
        self.nodes[0].kind
    }

    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    pub fn is_object(self) -> bool {
        self.kind() == Kind::Object
    }

    pub fn is_array(self) -> bool {
        self.kind() == Kind::Array
    }

    /// The value as it is written.
    pub fn text(self) -> &'a str {
        let Node { start, length, .. } = self.nodes[0];
        &self.text[start as usize..(start + length) as usize]
    }

    pub fn as_str(self) -> Option<Cow<'a, str>> {
        let text = self.text();
        match self.kind() {
            Kind::Text => Some(text[1..text.len() - 1].into()),
            Kind::Escaped => serde_json::from_str::<String>(text).ok().map(Cow::Owned),
            _ => None,
        }
    }

    pub fn as_bool(self) -> Option<bool> {
        (self.kind() == Kind::Bool).then(|| self.text() == "true")
    }

    pub fn as_i64(self) -> Option<i64> {
        if self.kind() == Kind::Number { self.text().parse().ok() } else { None }
    }

    pub fn as_f64(self) -> Option<f64> {
        if self.kind() == Kind::Number { self.text().parse().ok() } else { None }
    }

    /// The elements of an array, or keys and values of an object in turns; nothing of other values.
    pub fn inside(self) -> impl Iterator<Item = Json<'t, 'a>> {
        // Ends count from the begin of the value that they are in; those of plain values have nothing inside.
        let mut rest = &self.nodes[1..self.nodes[0].end as usize];
        std::iter::from_fn(move || {
            let next = Json { text: self.text, nodes: rest };
            rest = &rest[rest.first()?.end as usize..];
            Some(next)
        })
    }

    /// Keys, as they are written with their quotes, and values of an object.
    pub fn members(self) -> impl Iterator<Item = (Json<'t, 'a>, Json<'t, 'a>)> {
        let mut inside = if self.is_object() { Some(self.inside()) } else { None };
        std::iter::from_fn(move || {
            let inside = inside.as_mut()?;
            Some((inside.next()?, inside.next()?))
        })
    }

    /// How far inside this value one that [`Self::inside`] gave is; see [`Self::at`].
    pub fn distance(self, inside: Self) -> u32 {
        self.nodes[0].end - inside.nodes.len() as u32
    }

    pub fn at(self, distance: u32) -> Self {
        Json { text: self.text, nodes: &self.nodes[distance as usize..] }
    }
}

struct Parser<'t, 'a> {
    text: &'a [u8],
    at: usize,
    nodes: &'t mut Vec<Node>,
}

impl Parser<'_, '_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        let (start, index) = (self.at, self.nodes.len());
        self.nodes.push(Node { start: start as u32, length: 0, end: 1, kind: Kind::Null });
        let kind = match self.peek()? {
            b'"' => self.string()?,
            b'{' => self.inside(b'}', depth.checked_sub(1)?)?,
            b'[' => self.inside(b']', depth.checked_sub(1)?)?,
            first => {
                let rest = &self.text[self.at..];
                self.at += rest.iter().position(|b| matches!(b, b',' | b'}' | b']')).unwrap_or(rest.len());
                match first {
                    b'n' => Kind::Null,
                    b't' | b'f' => Kind::Bool,
                    _ => Kind::Number,
                }
            }
        };
        let end = (self.nodes.len() - index) as u32;
        self.nodes[index] = Node { start: start as u32, length: (self.at - start) as u32, end, kind };
        Some(())
    }

    /// Passes a string. Most are short, so that a search that is made for long ones costs more than it saves.
    fn string(&mut self) -> Option<Kind> {
        let mut kind = Kind::Text;
        self.at += 1;
        loop {
            self.at += match first_special(self.text.get(self.at..)?) {
                Some(found) => found,
                None => 16 + memchr::memchr2(b'"', b'\\', self.text.get(self.at + 16..)?)?,
            };
            if self.peek()? == b'"' {
                self.at += 1;
                return Some(kind);
            }
            kind = Kind::Escaped;
            self.at += 2;
        }
    }

    /// The inside of an array or object, up to and with its closing bracket.
    fn inside(&mut self, close: u8, depth: usize) -> Option<Kind> {
        let object = close == b'}';
        self.at += 1;
        if self.peek()? != close {
            loop {
                let start = self.at;
                if object {
                    if self.peek()? != b'"' {
                        return None;
                    }
                    let kind = self.string()?;
                    self.nodes.push(Node { start: start as u32, length: (self.at - start) as u32, end: 1, kind });
                    if self.peek()? != b':' {
                        return None;
                    }
                    self.at += 1;
                }
                if object && &self.text[start..self.at - 1] == OPAQUE.as_bytes() && self.peek()? == b'{' {
                    self.opaque()?;
                } else {
                    self.value(depth)?;
                }
                match self.peek()? {
                    b',' => self.at += 1,
                    end if end == close => break,
                    _ => return None,
                }
            }
        }
        self.at += 1;
        Some(if object { Kind::Object } else { Kind::Array })
    }

    /// Passes an object without a look at what is in it.
    fn opaque(&mut self) -> Option<()> {
        let (start, mut depth) = (self.at, 0);
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                let length = (self.at - start) as u32;
                self.nodes.push(Node { start: start as u32, length, end: 1, kind: Kind::Object });
                return Some(());
            }
        }
    }
}

/// Where the first quote or backslash is, if it is among the first 16 bytes.
fn first_special(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    let (words, _) = text.as_chunks::<8>();
    if words.len() < 2 {
        return text.iter().take(16).position(|b| matches!(b, b'"' | b'\\'));
    }
    words[..2].iter().enumerate().find_map(|(index, word)| {
        let word = u64::from_le_bytes(*word);
        // The lowest byte that is zero gets its highest bit set, and none below it does.
        let zeros = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
        let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        (found != 0).then(|| index * 8 + (found.trailing_zeros() / 8) as usize)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_as_they_are_written() {
        let text = r#"{"a":[1,-2.5,"x\n\"y",null],"b":{"c":true,"d":{}},"e":[]}"#;
        let mut tape = Tape::default();
        let root = tape.parse(text).unwrap();
        let members: Vec<(Cow<'_, str>, &str)> = root.members().map(|(k, v)| (k.as_str().unwrap(), v.text())).collect();
        assert_eq!(
            members,
            [("a".into(), r#"[1,-2.5,"x\n\"y",null]"#), ("b".into(), r#"{"c":true,"d":{}}"#), ("e".into(), "[]")]
        );
        let a: Vec<Json<'_, '_>> = root.members().next().unwrap().1.inside().collect();
        assert_eq!((a[0].as_i64(), a[1].as_f64(), a[1].as_i64()), (Some(1), Some(-2.5), None));
        assert_eq!((a[2].as_str().unwrap(), a[3].is_null(), a.len()), ("x\n\"y".into(), true, 4));
        assert_eq!(root.members().nth(1).unwrap().1.members().next().unwrap().1.as_bool(), Some(true));
        assert!(Json::NULL.is_null() && Json::NULL.members().next().is_none());
        for bad in ["", "{", r#"{"a"}"#, r#"{"a":1"#, "[1,]x", r#"{"a":1}}"#, r#"{1:2}"#, &"[".repeat(200)] {
            assert!(Tape::default().parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn strings_of_every_length_end_where_they_do() {
        let mut tape = Tape::default();
        for length in 0..40 {
            let text = format!("[\"{}\",\"{}\\\\\",\"\\\"\",7]", "x".repeat(length), "ü".repeat(length));
            let parts: Vec<_> = tape.parse(&text).unwrap().inside().map(|v| v.text().len()).collect();
            assert_eq!(parts, [length + 2, 2 * length + 4, 4, 1], "{text}");
        }
    }

    #[test]
    fn field_sets_are_passed_whole() {
        let set = r#"{"f:metadata":{"k:{\"a\":\"}\"}":{},"v:[]":[{}]}}"#;
        let text = format!(r#"{{"fieldsV1":{set},"manager":"m"}}"#);
        let mut tape = Tape::default();
        let members: Vec<_> =
            tape.parse(&text).unwrap().members().map(|(_, v)| (v.text(), v.inside().count())).collect();
        assert_eq!(members, [(set, 0), ("\"m\"", 0)]);
        assert!(tape.parse(r#"{"fieldsV1":{"a":{}"#).is_none());
    }
}
