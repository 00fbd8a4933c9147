//! From text to expressions.

use std::sync::Arc;

use super::ast::{Comprehension, Entry, Expr, Field, Id, Item, Kind, Literal};
use super::issue::{Found, Issues};
use super::lexer::{Lexeme, Token, tokens};
use super::macros;

/// Characters of the longest expression.
const TEXT_MAX: usize = 100_000;
/// Expressions within each other, as they are written.
const NESTED_MAX: usize = 250;
/// Levels of a tree. Every way through it takes stack for each.
const DEPTH_MAX: u32 = 1000;
/// Expressions of a tree. Macros that copy what they are given could make many of few.
const NODES_MAX: usize = 100_000;

const STARTS: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, \
                      BYTES, IDENTIFIER}";
const RESERVED: [&str; 18] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
    "in",
];
const RELATIONS: [(&str, &str); 7] =
    [("<", "_<_"), ("<=", "_<=_"), (">", "_>_"), (">=", "_>=_"), ("==", "_==_"), ("!=", "_!=_"), ("in", "@in")];
const SUMS: [(&str, &str); 2] = [("+", "_+_"), ("-", "_-_")];
const PRODUCTS: [(&str, &str); 3] = [("*", "_*_"), ("/", "_/_"), ("%", "_%_")];

/// A tree and where its expressions are in the text.
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    pub root: Expr,
    pub places: Vec<usize>,
}

/// Makes expressions; also for macros.
pub(super) struct Parser<'t> {
    lexemes: Vec<Lexeme>,
    next: usize,
    nested: usize,
    pub places: Vec<usize>,
    pub found: Found<'t>,
    /// Nothing after a syntax error says anything.
    lost: bool,
    pub binds: bool,
}

/// `binds` says whether there is the macro `cel.bind`.
pub(super) fn parse(text: &[char], binds: bool) -> Result<Parsed, Issues> {
    if text.len() > TEXT_MAX {
        let size = text.len();
        return Err(Issues::plain(format!("expression code point size exceeds limit: size: {size}, limit {TEXT_MAX}")));
    }
    let (lexemes, strange) = tokens(text);
    let (places, found) = (Vec::new(), Found::new(text));
    let mut parser = Parser { lexemes, next: 0, nested: 0, places, found, lost: false, binds };
    for (at, what) in strange {
        parser.found.report(at, format!("Syntax error: token recognition error at: '{what}'"));
    }
    let root = parser.expr();
    if parser.peek().token != Token::End {
        let alone = parser.next + 2 == parser.lexemes.len();
        let what = if alone { "extraneous" } else { "mismatched" };
        parser.unexpected(what, "<EOF>");
    }
    let Parser { places, found, .. } = parser;
    found.into_result()?;
    Ok(Parsed { root, places })
}

impl Parser<'_> {
    pub fn make(&mut self, at: usize, kind: Kind) -> Expr {
        let mut made = Expr { id: self.places.len(), depth: 0, kind };
        self.places.push(at);
        let mut below = 0;
        made.each_child(&mut |child| below = below.max(child.depth));
        made.depth = below + 1;
        let deep = made.depth > DEPTH_MAX;
        if (deep || self.places.len() > NODES_MAX) && !self.lost {
            self.lost = true;
            let what = if deep {
                format!("recursion limit exceeded: {DEPTH_MAX}")
            } else {
                format!("count exceeds limit of {NODES_MAX}")
            };
            self.found.report(at, format!("expression {what}"));
        }
        if self.lost {
            // Small, so that it takes nothing to go on and to drop it.
            made.kind = Kind::Broken;
            made.depth = 1;
        }
        made
    }

    pub fn ident(&mut self, at: usize, name: &str) -> Expr {
        self.make(at, Kind::Ident(name.into()))
    }

    pub fn literal(&mut self, at: usize, literal: Literal) -> Expr {
        self.make(at, Kind::Literal(literal))
    }

    pub fn call(&mut self, at: usize, function: &str, args: Vec<Expr>) -> Expr {
        self.make(at, Kind::Call { target: None, function: function.into(), args })
    }

    pub fn member(&mut self, at: usize, target: Expr, function: &str, args: Vec<Expr>) -> Expr {
        self.make(at, Kind::Call { target: Some(Box::new(target)), function: function.into(), args })
    }

    pub fn comprehension(&mut self, at: usize, of: Comprehension) -> Expr {
        self.make(at, Kind::Comprehension(Box::new(of)))
    }

    /// The same with names of its own.
    pub fn copy(&mut self, of: &Expr) -> Expr {
        let mut copied = of.clone();
        self.rename(&mut copied);
        if self.places.len() > NODES_MAX && !self.lost {
            self.lost = true;
            self.found.report(self.places[of.id], format!("expression count exceeds limit of {NODES_MAX}"));
        }
        copied
    }

    fn fresh(&mut self, id: Id) -> Id {
        self.places.push(self.places[id]);
        self.places.len() - 1
    }

    fn rename(&mut self, expr: &mut Expr) {
        expr.id = self.fresh(expr.id);
        match &mut expr.kind {
            Kind::Literal(_) | Kind::Ident(_) | Kind::Broken => {}
            Kind::Select { operand, .. } => self.rename(operand),
            Kind::Call { target, args, .. } => {
                target.iter_mut().for_each(|t| self.rename(t));
                args.iter_mut().for_each(|a| self.rename(a));
            }
            Kind::List(items) => items.iter_mut().for_each(|i| self.rename(&mut i.value)),
            Kind::Map(entries) => entries.iter_mut().for_each(|e| {
                self.rename(&mut e.key);
                self.rename(&mut e.value);
            }),
            Kind::Struct { fields, .. } => fields.iter_mut().for_each(|f| {
                f.id = self.fresh(f.id);
                self.rename(&mut f.value);
            }),
            Kind::Comprehension(c) => {
                let c = c.as_mut();
                for part in [&mut c.range, &mut c.start, &mut c.condition, &mut c.step, &mut c.result] {
                    self.rename(part);
                }
            }
        }
    }

    fn peek(&self) -> &Lexeme {
        &self.lexemes[self.next.min(self.lexemes.len() - 1)]
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek().token, Token::Symbol(s) if s == symbol)
    }

    fn advance(&mut self) -> Lexeme {
        let lexeme = self.peek().clone();
        self.next += 1;
        lexeme
    }

    fn take(&mut self, symbol: &str) -> Option<usize> {
        self.is(symbol).then(|| self.advance().at)
    }

    fn need(&mut self, symbol: &str) {
        if self.take(symbol).is_none() {
            let what = if self.peek().token == Token::End { "missing" } else { "mismatched" };
            if what == "missing" {
                let at = self.peek().at;
                self.fail(at, format!("Syntax error: missing '{symbol}' at '<EOF>'"));
            } else {
                self.unexpected(what, &format!("'{symbol}'"));
            }
        }
    }

    fn fail(&mut self, at: usize, message: String) {
        if !self.lost {
            self.found.report(at, message);
        }
        self.lost = true;
        self.next = self.lexemes.len() - 1;
    }

    fn unexpected(&mut self, how: &str, expected: &str) {
        let lexeme = self.peek().clone();
        self.fail(lexeme.at, format!("Syntax error: {how} input '{}' expecting {expected}", lexeme.text));
    }

    fn expr(&mut self) -> Expr {
        self.nested += 1;
        if self.nested > NESTED_MAX {
            let at = self.peek().at;
            self.fail(at, format!("expression recursion limit exceeded: {NESTED_MAX}"));
            self.nested -= 1;
            return self.make(at, Kind::Broken);
        }
        let condition = self.either("||", "_||_");
        let expr = match self.take("?") {
            None => condition,
            Some(at) => {
                let then = self.either("||", "_||_");
                self.need(":");
                let otherwise = self.expr();
                self.call(at, "_?_:_", vec![condition, then, otherwise])
            }
        };
        self.nested -= 1;
        expr
    }

    /// Terms joined by a logical operator, as a balanced tree.
    fn either(&mut self, symbol: &str, function: &str) -> Expr {
        let term = |parser: &mut Self| if symbol == "||" { parser.either("&&", "_&&_") } else { parser.relation() };
        let mut terms = vec![term(self)];
        let mut operators = Vec::new();
        while let Some(at) = self.take(symbol) {
            operators.push(at);
            terms.push(term(self));
        }
        self.balanced(function, &mut terms.into_iter(), &operators)
    }

    fn balanced(&mut self, function: &str, terms: &mut std::vec::IntoIter<Expr>, operators: &[usize]) -> Expr {
        if operators.is_empty() {
            return terms.next().expect("there is one term more than operators");
        }
        let middle = operators.len() / 2;
        let left = self.balanced(function, terms, &operators[..middle]);
        let right = self.balanced(function, terms, &operators[middle + 1..]);
        self.call(operators[middle], function, vec![left, right])
    }

    fn operator(&mut self, of: &[(&str, &'static str)]) -> Option<(usize, &'static str)> {
        let (_, function) = of.iter().find(|(symbol, _)| self.is(symbol))?;
        Some((self.advance().at, function))
    }

    fn chain(&mut self, of: &[(&str, &'static str)], part: fn(&mut Self) -> Expr) -> Expr {
        let mut left = part(self);
        while let Some((at, function)) = self.operator(of) {
            let right = part(self);
            left = self.call(at, function, vec![left, right]);
        }
        left
    }

    fn relation(&mut self) -> Expr {
        self.chain(&RELATIONS, |parser| parser.chain(&SUMS, |parser| parser.chain(&PRODUCTS, Self::unary)))
    }

    fn unary(&mut self) -> Expr {
        for (symbol, function) in [("!", "!_"), ("-", "-_")] {
            let mut places = Vec::new();
            while let Some(at) = self.take(symbol) {
                places.push(at);
            }
            let Some(at) = places.first().copied() else { continue };
            let negated = (symbol == "-").then(|| self.negative_literal()).flatten();
            if let Some(literal) = negated {
                let literal = self.literal(at, literal);
                let literal = self.members(literal);
                return if places.len() % 2 == 0 { self.call(at, function, vec![literal]) } else { literal };
            }
            let operand = self.primary();
            let operand = self.members(operand);
            return if places.len() % 2 == 0 { operand } else { self.call(at, function, vec![operand]) };
        }
        let operand = self.primary();
        self.members(operand)
    }

    fn negative_literal(&mut self) -> Option<Literal> {
        let literal = match &self.peek().token {
            Token::Literal(Literal::Int(value)) => Literal::Int(value.wrapping_neg()),
            Token::Literal(Literal::Double(value)) => Literal::Double(-value),
            _ => return None,
        };
        self.advance();
        Some(literal)
    }

    fn members(&mut self, mut operand: Expr) -> Expr {
        loop {
            if let Some(at) = self.take(".") {
                let optional = self.take("?").is_some();
                let Some(field) = self.name() else { return operand };
                operand = match self.take("(").filter(|_| !optional) {
                    Some(open) => {
                        let args = self.arguments(")");
                        macros::member(self, open, operand, &field, args)
                    }
                    None if optional => {
                        let place = self.lexemes[self.next - 1].at;
                        let field = self.literal(place, Literal::String(field));
                        self.call(at, "_?._", vec![operand, field])
                    }
                    None => self.make(at, Kind::Select { operand: Box::new(operand), field, test: false }),
                };
            } else if let Some(at) = self.take("[") {
                let optional = self.take("?").is_some();
                let index = self.expr();
                self.need("]");
                operand = self.call(at, if optional { "_[?_]" } else { "_[_]" }, vec![operand, index]);
            } else {
                return operand;
            }
        }
    }

    fn name(&mut self) -> Option<Arc<str>> {
        if let Token::Ident(name) = self.peek().token.clone() {
            self.advance();
            return Some(name);
        }
        if self.peek().token == Token::End || self.is("in") || matches!(self.peek().token, Token::Literal(_)) {
            let lexeme = self.peek().clone();
            let message = format!("Syntax error: no viable alternative at input '.{}'", lexeme.text);
            let message = match lexeme.token {
                Token::Literal(Literal::Bool(_) | Literal::Null) => {
                    format!("Syntax error: mismatched input '{}' expecting IDENTIFIER", lexeme.text)
                }
                _ => message,
            };
            self.fail(lexeme.at, message);
        } else {
            self.unexpected("mismatched", "IDENTIFIER");
        }
        None
    }

    fn arguments(&mut self, end: &str) -> Vec<Expr> {
        let mut args = Vec::new();
        if self.take(end).is_some() {
            return args;
        }
        loop {
            args.push(self.expr());
            if self.take(",").is_none() {
                self.need(end);
                return args;
            }
        }
    }

    fn primary(&mut self) -> Expr {
        let lexeme = self.peek().clone();
        match lexeme.token {
            Token::Literal(literal) => {
                self.advance();
                self.literal(lexeme.at, literal)
            }
            Token::Wrong(why) => {
                self.advance();
                self.found.report(lexeme.at, why);
                self.make(lexeme.at, Kind::Broken)
            }
            Token::Symbol("(") => {
                self.advance();
                let inner = self.expr();
                self.need(")");
                inner
            }
            Token::Symbol("[") => self.list(),
            Token::Symbol("{") => self.map(),
            Token::Symbol(".") => {
                self.advance();
                self.named(".", lexeme.at)
            }
            Token::Ident(_) => self.named("", lexeme.at),
            _ => {
                self.unexpected("mismatched", STARTS);
                self.make(lexeme.at, Kind::Broken)
            }
        }
    }

    /// A name, a call or a struct.
    fn named(&mut self, lead: &str, at: usize) -> Expr {
        let Some(name) = self.name() else { return self.make(at, Kind::Broken) };
        if let Some(open) = self.take("(") {
            let args = self.arguments(")");
            return macros::global(self, open, &format!("{lead}{name}"), args);
        }
        if let Some((type_name, open)) = self.struct_ahead(&name) {
            return self.fields(format!("{lead}{type_name}"), open);
        }
        if RESERVED.contains(&&*name) {
            self.found.report(at, format!("reserved identifier: {name}"));
        }
        self.ident(at, &format!("{lead}{name}"))
    }

    /// The name of the type whose fields follow, if it is one; what has been read is taken then.
    fn struct_ahead(&mut self, first: &str) -> Option<(String, usize)> {
        let (mut at, mut name) = (self.next, first.to_owned());
        loop {
            match (&self.lexemes.get(at)?.token, self.lexemes.get(at + 1).map(|l| &l.token)) {
                (Token::Symbol("{"), _) => {
                    self.next = at + 1;
                    return Some((name, self.lexemes[at].at));
                }
                (Token::Symbol("."), Some(Token::Ident(next))) => {
                    name = format!("{name}.{next}");
                    at += 2;
                }
                _ => return None,
            }
        }
    }

    fn fields(&mut self, name: String, open: usize) -> Expr {
        let mut fields = Vec::new();
        while !self.is("}") && !self.lost {
            let optional = self.take("?").is_some();
            let Some(field) = self.name() else { break };
            let colon = self.peek().at;
            self.need(":");
            let value = self.expr();
            let id = self.places.len();
            self.places.push(colon);
            fields.push(Field { id, name: field, value, optional });
            if self.take(",").is_none() {
                break;
            }
        }
        self.need("}");
        self.make(open, Kind::Struct { name: name.into(), fields })
    }

    fn list(&mut self) -> Expr {
        let open = self.advance().at;
        let mut items = Vec::new();
        while !self.is("]") && !self.lost {
            let optional = self.take("?").is_some();
            items.push(Item { value: self.expr(), optional });
            if self.take(",").is_none() {
                break;
            }
        }
        self.need("]");
        self.make(open, Kind::List(items))
    }

    fn map(&mut self) -> Expr {
        let open = self.advance().at;
        let mut entries = Vec::new();
        while !self.is("}") && !self.lost {
            let optional = self.take("?").is_some();
            let key = self.expr();
            self.need(":");
            entries.push(Entry { key, value: self.expr(), optional });
            if self.take(",").is_none() {
                break;
            }
        }
        self.need("}");
        self.make(open, Kind::Map(entries))
    }
}
