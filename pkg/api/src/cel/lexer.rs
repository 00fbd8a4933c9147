//! The words of CEL.

use std::sync::Arc;

use super::ast::Literal;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Operators, brackets and `in`.
    Symbol(&'static str),
    Ident(Arc<str>),
    Literal(Literal),
    /// A literal that is none, and why.
    Wrong(String),
    End,
}

/// A token, its place in characters from the start, and its text.
#[derive(Clone, Debug)]
pub(super) struct Lexeme {
    pub token: Token,
    pub at: usize,
    pub text: Arc<str>,
}

/// Longer ones first.
const SYMBOLS: [&str; 27] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*",
    "/", "%", "in", "=", "`",
];

struct Lexer<'a> {
    text: &'a [char],
    at: usize,
    found: Vec<Lexeme>,
    /// Places and texts of characters that begin no token.
    strange: Vec<(usize, String)>,
}

/// All tokens and an end, and what is none.
pub(super) fn tokens(text: &[char]) -> (Vec<Lexeme>, Vec<(usize, String)>) {
    let mut lexer = Lexer { text, at: 0, found: Vec::new(), strange: Vec::new() };
    while lexer.at < text.len() {
        lexer.next();
    }
    lexer.push(Token::End, text.len());
    (lexer.found, lexer.strange)
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.text.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn text_from(&self, start: usize) -> String {
        self.text[start..self.at].iter().collect()
    }

    fn push(&mut self, token: Token, start: usize) {
        let text = if token == Token::End { "<EOF>".into() } else { self.text_from(start) };
        self.found.push(Lexeme { token, at: start, text: text.into() });
    }

    fn next(&mut self) {
        let start = self.at;
        let character = self.peek(0);
        if matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0c') {
            self.at += 1;
        } else if character == '/' && self.peek(1) == '/' {
            while self.at < self.text.len() && self.peek(0) != '\n' {
                self.at += 1;
            }
        } else if let Some(quote) = self.string_start() {
            self.string(quote);
        } else if character.is_ascii_alphabetic() || character == '_' {
            while is_word(self.peek(0)) {
                self.at += 1;
            }
            let token = match self.text_from(start).as_str() {
                "in" => Token::Symbol("in"),
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                name => Token::Ident(name.into()),
            };
            self.push(token, start);
        } else if character.is_ascii_digit() || (character == '.' && self.peek(1).is_ascii_digit()) {
            self.number();
        } else {
            let fits = |symbol: &&&str| symbol.chars().enumerate().all(|(i, c)| self.peek(i) == c);
            let symbol = SYMBOLS.iter().find(fits).filter(|s| !matches!(**s, "=" | "`"));
            match symbol {
                Some(symbol) => {
                    self.at += symbol.len();
                    self.push(Token::Symbol(symbol), start);
                }
                None => {
                    self.at += 1;
                    self.strange.push((start, character.to_string()));
                }
            }
        }
    }

    fn number(&mut self) {
        let start = self.at;
        let digits = |lexer: &mut Self| {
            while lexer.peek(0).is_ascii_digit() {
                lexer.at += 1;
            }
        };
        if self.peek(0) == '0' && self.peek(1) == 'x' && self.peek(2).is_ascii_hexdigit() {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() {
                self.at += 1;
            }
            return self.integer(start);
        }
        digits(self);
        let mut whole = true;
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            whole = false;
            self.at += 1;
            digits(self);
        }
        let sign = usize::from(matches!(self.peek(1), '+' | '-'));
        if matches!(self.peek(0), 'e' | 'E') && self.peek(1 + sign).is_ascii_digit() {
            whole = false;
            self.at += 1 + sign;
            digits(self);
        }
        if whole {
            return self.integer(start);
        }
        let parsed = self.text_from(start).parse().map(Literal::Double);
        self.push(parsed.map_or_else(|_| Token::Wrong("invalid double literal".into()), Token::Literal), start);
    }

    fn integer(&mut self, start: usize) {
        let text = self.text_from(start);
        let (digits, radix) = text.strip_prefix("0x").map_or((text.as_str(), 10), |hex| (hex, 16));
        let token = if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            u64::from_str_radix(digits, radix).map(Literal::Uint).map_err(|_| "invalid uint literal")
        } else {
            // The least integer has a larger amount than the greatest; its sign is seen by the parser.
            let least = u64::from_str_radix(digits, radix) == Ok(i64::MIN.unsigned_abs());
            let negated = matches!(self.found.last(), Some(Lexeme { token: Token::Symbol("-"), .. }));
            if least && negated {
                Ok(Literal::Int(i64::MIN))
            } else {
                i64::from_str_radix(digits, radix).map(Literal::Int).map_err(|_| "invalid int literal")
            }
        };
        self.push(token.map_or_else(|why| Token::Wrong(why.into()), Token::Literal), start);
    }

    /// How many characters come before the quote of the string that begins here.
    fn string_start(&self) -> Option<usize> {
        let quote = |at: usize| matches!(self.peek(at), '"' | '\'');
        let raw = |at: usize| matches!(self.peek(at), 'r' | 'R');
        let bytes = |at: usize| matches!(self.peek(at), 'b' | 'B');
        if quote(0) {
            Some(0)
        } else if (raw(0) || bytes(0)) && quote(1) {
            Some(1)
        } else {
            (((raw(0) && bytes(1)) || (bytes(0) && raw(1))) && quote(2)).then_some(2)
        }
    }

    fn string(&mut self, prefix: usize) {
        let start = self.at;
        let marks: Vec<char> = self.text[start..start + prefix].iter().map(char::to_ascii_lowercase).collect();
        let quote = self.peek(prefix);
        let triple = self.peek(prefix + 1) == quote && self.peek(prefix + 2) == quote;
        let quotes = if triple { 3 } else { 1 };
        self.at += prefix + quotes;
        let inner = self.at;
        loop {
            let character = self.peek(0);
            let ended = self.at >= self.text.len() || (!triple && matches!(character, '\n' | '\r'));
            if ended {
                self.at = self.at.min(self.text.len());
                let text = self.text_from(start);
                self.strange.push((start, text));
                return;
            }
            if (0..quotes).all(|i| self.peek(i) == quote) {
                break;
            }
            self.at += if character == '\\' && !marks.contains(&'r') { 2 } else { 1 };
        }
        let body: Vec<char> = self.text[inner..self.at.min(self.text.len())].to_vec();
        self.at += quotes;
        let bytes = marks.contains(&'b');
        let literal = if marks.contains(&'r') {
            let text: String = body.into_iter().collect();
            Ok(if bytes { Literal::Bytes(text.as_bytes().into()) } else { Literal::String(text.into()) })
        } else {
            unescape(&body, bytes)
        };
        self.push(literal.map_or_else(Token::Wrong, Token::Literal), start);
    }
}

fn unescape(body: &[char], bytes: bool) -> Result<Literal, String> {
    let mut out = Vec::new();
    let mut rest = body.iter().copied();
    while let Some(character) = rest.next() {
        let mut buffer = [0; 4];
        if character != '\\' {
            out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
            continue;
        }
        let wrong = || "unable to unescape string".to_owned();
        let escape = rest.next().ok_or("unable to unescape string, found '\\' as last character")?;
        let mut number = |first: &str, digits: usize, radix: u32| -> Result<u32, String> {
            let text: String = first.chars().chain(rest.by_ref().take(digits)).collect();
            let complete = text.chars().count() == first.chars().count() + digits;
            complete.then_some(()).ok_or_else(wrong)?;
            u32::from_str_radix(&text, radix).map_err(|_| wrong())
        };
        let code = match escape {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            '\\' | '\'' | '"' | '`' | '?' => u32::from(escape),
            'x' | 'X' => number("", 2, 16)?,
            'u' if !bytes => number("", 4, 16)?,
            'U' if !bytes => number("", 8, 16)?,
            '0'..='3' => number(&escape.to_string(), 2, 8)?,
            _ => return Err(wrong()),
        };
        match u8::try_from(code) {
            Ok(byte) if bytes => out.push(byte),
            _ => out.extend_from_slice(char::from_u32(code).ok_or_else(wrong)?.encode_utf8(&mut buffer).as_bytes()),
        }
    }
    if bytes {
        return Ok(Literal::Bytes(out.into()));
    }
    String::from_utf8(out).map(|text| Literal::String(text.into())).map_err(|_| "invalid UTF-8".into())
}
