//! The one-line form of label selectors, read token by token as upstream does: errors are in its words.

use super::{Requirement, SelectorError};
use crate::field::{FieldError, FieldPath};
use crate::validate::format;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A key, a value, `in` or `notin`.
    Word(&'a str),
    /// `=`, `==`, `!=`, `!`, `>`, `<`, `,`, `(` or `)`.
    Sign(&'a str),
    /// Signs that make no sense together.
    Nonsense(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> String {
        match self {
            Self::Word(text) | Self::Sign(text) => text.to_owned(),
            Self::Nonsense(text) => format!("error expected: keyword found '{text}'"),
            Self::End => String::new(),
        }
    }

    fn is(self, sign: &str) -> bool {
        self == Token::Sign(sign)
    }

    fn ends_requirement(self) -> bool {
        self == Self::End || self.is(",")
    }
}

const SIGNS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

fn is_sign(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut rest) = (Vec::new(), text.trim_start_matches(is_space));
    while let Some(first) = rest.chars().next() {
        let length = if !is_sign(first) {
            rest.find(|c| is_sign(c) || is_space(c)).unwrap_or(rest.len())
        } else {
            SIGNS.iter().find(|sign| rest.starts_with(**sign)).map_or(1, |sign| sign.len())
        };
        let (head, tail) = rest.split_at(length);
        tokens.push(match is_sign(first) {
            false => Token::Word(head),
            true if SIGNS.contains(&head) => Token::Sign(head),
            true => Token::Nonsense(head),
        });
        rest = tail.trim_start_matches(is_space);
    }
    tokens
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn take(&mut self) -> Token<'a> {
        self.at += 1;
        self.tokens.get(self.at - 1).copied().unwrap_or(Token::End)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.peek().is("!");
        if negated {
            self.take();
        }
        let key = match self.take() {
            Token::Word(key) => key.to_owned(),
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        let problems = format::qualified_name(&key);
        if !problems.is_empty() {
            let error = FieldError::invalid(&FieldPath::new("<nil>"), key, problems.join("; "));
            return Err(error.to_string());
        }
        if negated {
            return Ok(Requirement::NotExists(key));
        }
        if self.peek().ends_requirement() {
            return Ok(Requirement::Exists(key));
        }
        let operator = self.take();
        let values = match operator {
            Token::Word("in" | "notin") => self.values()?,
            Token::Sign("=" | "==" | "!=" | ">" | "<") => vec![self.value()?],
            other => return Err(format!("found '{}', expected: {OPERATORS}", other.text())),
        };
        let ordered = matches!(operator, Token::Sign(">" | "<"));
        check_values(&key, &values, ordered)?;
        let bound = || values[0].parse().unwrap_or(0);
        Ok(match operator {
            Token::Word("notin") | Token::Sign("!=") => Requirement::NotIn(key, values),
            Token::Sign(">") => Requirement::Greater(key, bound()),
            Token::Sign("<") => Requirement::Less(key, bound()),
            _ => Requirement::In(key, values),
        })
    }

    fn value(&mut self) -> Result<String, String> {
        if self.peek().ends_requirement() {
            return Ok(String::new());
        }
        match self.take() {
            Token::Word(value) => Ok(value.to_owned()),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    /// What is in parentheses, sorted; commas around nothing stand for the empty value.
    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.take() {
            open if open.is("(") => {}
            other => return Err(format!("found '{}' expected: '('", other.text())),
        }
        let mut values = Vec::new();
        let mut add = |value: &str| values.push(value.to_owned());
        let mut after_value = false;
        loop {
            match (self.take(), after_value) {
                (Token::Word(value), false) => {
                    add(value);
                    after_value = true;
                }
                (Token::Sign(")"), _) => {
                    if !after_value {
                        add("");
                    }
                    break;
                }
                (Token::Sign(","), true) => after_value = false,
                (Token::Sign(","), false) => add(""),
                (other, true) => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
                (other, false) => return Err(format!("found '{}', expected: ',', ')' or identifier", other.text())),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }
}

fn check_values(key: &str, values: &[String], ordered: bool) -> Result<(), String> {
    let mut errors = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let path = FieldPath::new("values").index(index);
        if ordered && value.parse::<i64>().is_err() {
            let why = "for 'Gt', 'Lt' operators, the value must be an integer";
            errors.push(FieldError::invalid(&path, value.as_str(), why).to_string());
        }
        let problems = format::label_value(value);
        if !problems.is_empty() {
            errors.push(FieldError::invalid(&path.key(key), value.as_str(), problems.join("; ")).to_string());
        }
    }
    match &errors[..] {
        [] => Ok(()),
        [one] => Err(one.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}

pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        let next = parser.peek();
        match next {
            Token::Word(_) | Token::Sign("!") => {}
            Token::End => return Ok(requirements),
            other => {
                return Err(SelectorError(format!(
                    "found '{}', expected: !, identifier, or 'end of string'",
                    other.text()
                )));
            }
        }
        let requirement = parser.requirement();
        requirements.push(requirement.map_err(|why| SelectorError(format!("unable to parse requirement: {why}")))?);
        match parser.take() {
            Token::End => return Ok(requirements),
            comma if comma.is(",") => match parser.peek() {
                Token::Word(_) | Token::Sign("!") => {}
                other => {
                    return Err(SelectorError(format!("found '{}', expected: identifier after ','", other.text())));
                }
            },
            other => return Err(SelectorError(format!("found '{}', expected: ',' or 'end of string'", other.text()))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_in_the_words_that_clients_know() {
        let value = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
        for (text, expected) in [
            ("a=b=c", "found '=', expected: ',' or 'end of string'".to_owned()),
            ("!", "unable to parse requirement: found '', expected: identifier".into()),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt".into()),
            ("a in b", "unable to parse requirement: found 'b' expected: '('".into()),
            ("a notin (b", "unable to parse requirement: found '', expected: ',' or ')'".into()),
            (",", "found ',', expected: !, identifier, or 'end of string'".into()),
            ("a,", "found '', expected: identifier after ','".into()),
            (
                "a>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer".into(),
            ),
            ("a=-b", format!("unable to parse requirement: values[0][a]: Invalid value: \"-b\": {value}")),
        ] {
            assert_eq!(requirements(text).unwrap_err().0, expected, "{text}");
        }
        assert!(
            requirements("-a=b")
                .unwrap_err()
                .0
                .starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of")
        );
        let values = |text: &str| match &requirements(text).unwrap()[..] {
            [Requirement::In(_, values)] => values.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(values("a in ()"), [""]);
        assert_eq!(values("a in (,b,,c)"), ["", "b", "c"]);
        assert_eq!(values("in in (in)"), ["in"]);
        assert_eq!(values("a="), [""]);
    }
}
