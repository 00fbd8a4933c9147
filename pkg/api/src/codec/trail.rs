//! Where a walk through a document is, and what it has found on its way.

use std::fmt::Write;

/// Findings that are told; more are counted as one.
const MOST: usize = 100;
/// Bytes of findings that are told: names may be as long as the document.
const LONGEST: usize = 64 << 10;

/// The path of a walk, and paths that were noted. Takes no more memory than a document and a bit.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    path: String,
    found: Vec<String>,
    bytes: usize,
}

impl Trail {
    /// Goes down to a member; gives the length to go back to.
    pub fn enter(&mut self, name: &str) -> usize {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        length
    }

    pub fn enter_item(&mut self, index: usize) -> usize {
        let length = self.path.len();
        // Writing to a string cannot fail.
        let _ = write!(self.path, "[{index}]");
        length
    }

    pub fn leave(&mut self, length: usize) {
        self.path.truncate(length);
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Keeps the present path.
    pub fn note(&mut self) {
        if self.found.len() < MOST && self.bytes < LONGEST {
            let end =
                (0..=LONGEST.min(self.path.len())).rev().find(|end| self.path.is_char_boundary(*end)).unwrap_or(0);
            self.bytes += end;
            self.found.push(self.path[..end].to_owned());
        }
    }

    pub fn found(self) -> Vec<String> {
        self.found
    }
}
