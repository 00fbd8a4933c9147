//! What is wrong with an expression, shown with the place.

use std::fmt;

/// Issues that are told of; a broken text has as many as characters.
const SHOWN: usize = 100;
/// Characters of the longest line that is shown.
const LINE_MAX: usize = 16_384;

/// Why an expression does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown}")]
pub struct Issues {
    shown: String,
    /// The text is right, but what it says of literals can never be evaluated.
    instantiation: bool,
}

impl Issues {
    /// One that is not about a place in the text.
    pub(super) fn plain(text: impl fmt::Display) -> Self {
        Self { shown: format!("ERROR: <input>:1:1: {text}"), instantiation: false }
    }

    /// The issues as most users of expressions tell them.
    pub fn detail(&self) -> String {
        let what = if self.instantiation { "program instantiation" } else { "compilation" };
        format!("{what} failed: {}", self.shown)
    }

    /// As [`Self::detail`], of an expression that makes the message of a rule.
    pub fn of_message(&self) -> String {
        let what = if self.instantiation { "instantiation" } else { "compilation" };
        format!("messageExpression {what} failed: {}", self.shown)
    }
}

/// Issues as they are found.
pub(super) struct Found<'t> {
    text: &'t [char],
    issues: Vec<(usize, String)>,
    more: usize,
    failure: Option<String>,
}

impl<'t> Found<'t> {
    pub fn new(text: &'t [char]) -> Self {
        Self { text, issues: Vec::new(), more: 0, failure: None }
    }

    /// An issue at a place, in characters from the start.
    pub fn report(&mut self, at: usize, message: impl fmt::Display) {
        if self.issues.len() < SHOWN {
            self.issues.push((at, message.to_string()));
        } else {
            self.more += 1;
        }
    }

    /// A part that fails whenever it is evaluated; only told where all else is right.
    pub fn fail(&mut self, why: impl fmt::Display) {
        self.failure.get_or_insert_with(|| why.to_string());
    }

    pub fn is_empty(&self) -> bool {
        self.issues.is_empty()
    }

    /// All of them in the order of the text.
    pub fn into_result(mut self) -> Result<(), Issues> {
        if self.is_empty() {
            return self.failure.map_or(Ok(()), |shown| Err(Issues { shown, instantiation: true }));
        }
        self.issues.sort_by_key(|(at, _)| *at);
        let mut shown: Vec<String> = self.issues.iter().map(|(at, message)| self.show(*at, message)).collect();
        if self.more > 0 {
            shown.push(format!("{} more errors were truncated", self.more));
        }
        Err(Issues { shown: shown.join("\n"), instantiation: false })
    }

    fn show(&self, at: usize, message: &str) -> String {
        let at = at.min(self.text.len());
        let start = self.text[..at].iter().rposition(|c| *c == '\n').map_or(0, |p| p + 1);
        let row = self.text[..at].iter().filter(|c| **c == '\n').count() + 1;
        let line: Vec<char> = self.text[start..].iter().copied().take_while(|c| *c != '\n').collect();
        let mut shown = format!("ERROR: <input>:{row}:{}: {message}", at - start + 1);
        if line.len() > LINE_MAX {
            return shown;
        }
        let mark = |c: Option<&char>, narrow, wide| if c.is_some_and(|c| c.len_utf8() > 1) { wide } else { narrow };
        let before = (0..at - start).map(|i| mark(line.get(i), '.', '\u{ff0e}'));
        let under: String = before.chain([mark(line.get(at - start), '^', '\u{ff3e}')]).collect();
        let line: String = line.into_iter().map(|c| if c == '\t' { ' ' } else { c }).collect();
        shown.push_str(&format!("\n | {line}\n | {under}"));
        shown
    }
}
