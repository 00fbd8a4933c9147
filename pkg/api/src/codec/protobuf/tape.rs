//! JSON text taken apart in one pass and without copying: what is encoded from the bytes that are stored.

use std::borrow::Cow;

/// Values may be nested this deep, as for the parser that accepted them.
const DEPTH: usize = 128;

/// Values in the order of the text; the keys of an object's members are values too.
#[derive(Debug, Default)]
pub(super) struct Tape<'a> {
    nodes: Vec<Node<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Node<'a> {
    /// As it is written.
    text: &'a str,
    /// The node after this one and all inside it.
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
    /// This value's node and those after it.
    nodes: &'t [Node<'a>],
}

impl<'a> Tape<'a> {
    /// `None` for what is not one compact JSON value.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parser = Parser { text, at: 0, nodes: Vec::with_capacity(text.len() / 12 + 4) };
        parser.value(DEPTH)?;
        (parser.at == text.len()).then_some(Self { nodes: parser.nodes })
    }

    pub fn root(&self) -> Json<'_, 'a> {
        Json { nodes: &self.nodes }
    }
}

impl<'t, 'a: 't> Json<'t, 'a> {
    /// What a member that is missing is.
    pub const NULL: Json<'static, 'static> = Json { nodes: &[Node { text: "null", end: 1, kind: Kind::Null }] };

    fn node(self) -> Node<'a> {
        self.nodes[0]
    }

    pub fn is_null(self) -> bool {
        self.node().kind == Kind::Null
    }

    pub fn is_object(self) -> bool {
        self.node().kind == Kind::Object
    }

    pub fn is_array(self) -> bool {
        self.node().kind == Kind::Array
    }

    /// The value as it is written.
    pub fn text(self) -> &'a str {
        self.node().text
    }

    pub fn as_str(self) -> Option<Cow<'a, str>> {
        let node = self.node();
        match node.kind {
            Kind::Text => Some(node.text[1..node.text.len() - 1].into()),
            Kind::Escaped => serde_json::from_str::<String>(node.text).ok().map(Cow::Owned),
            _ => None,
        }
    }

    pub fn as_bool(self) -> Option<bool> {
        (self.node().kind == Kind::Bool).then(|| self.text() == "true")
    }

    pub fn as_i64(self) -> Option<i64> {
        if self.node().kind == Kind::Number { self.text().parse().ok() } else { None }
    }

    pub fn as_f64(self) -> Option<f64> {
        if self.node().kind == Kind::Number { self.text().parse().ok() } else { None }
    }

    /// The elements of an array, or keys and values of an object in turns; nothing of other values.
    pub fn inside(self) -> impl Iterator<Item = Json<'t, 'a>> {
        let whole = matches!(self.node().kind, Kind::Array | Kind::Object);
        // Ends count from the begin of the value that they are in.
        let mut rest = if whole { &self.nodes[1..self.node().end as usize] } else { &[] };
        std::iter::from_fn(move || {
            let next = Json { nodes: rest };
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
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    nodes: Vec<Node<'a>>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        let (start, index) = (self.at, self.nodes.len());
        self.nodes.push(Node { text: "", end: 0, kind: Kind::Null });
        let kind = match self.peek()? {
            b'"' => self.string()?,
            b'{' => self.inside(b'}', depth.checked_sub(1)?)?,
            b'[' => self.inside(b']', depth.checked_sub(1)?)?,
            first => {
                let rest = &self.text.as_bytes()[self.at..];
                self.at += rest.iter().position(|b| matches!(b, b',' | b'}' | b']')).unwrap_or(rest.len());
                match first {
                    b'n' => Kind::Null,
                    b't' | b'f' => Kind::Bool,
                    _ => Kind::Number,
                }
            }
        };
        let end = u32::try_from(self.nodes.len() - index).ok()?;
        self.nodes[index] = Node { text: self.text.get(start..self.at)?, end, kind };
        Some(())
    }

    fn string(&mut self) -> Option<Kind> {
        let mut kind = Kind::Text;
        self.at += 1;
        loop {
            self.at += memchr::memchr2(b'"', b'\\', self.text.as_bytes().get(self.at..)?)?;
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
                if object {
                    let (start, index) = (self.at, self.nodes.len());
                    if self.peek()? != b'"' {
                        return None;
                    }
                    self.nodes.push(Node { text: "", end: 1, kind: Kind::Text });
                    let kind = self.string()?;
                    self.nodes[index] = Node { text: self.text.get(start..self.at)?, end: 1, kind };
                    if self.peek()? != b':' {
                        return None;
                    }
                    self.at += 1;
                }
                self.value(depth)?;
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
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_as_they_are_written() {
        let text = r#"{"a":[1,-2.5,"x\n\"y",null],"b":{"c":true,"d":{}},"e":[]}"#;
        let tape = Tape::parse(text).unwrap();
        let root = tape.root();
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
            assert!(Tape::parse(bad).is_none(), "{bad}");
        }
    }
}
