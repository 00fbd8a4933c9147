//! Sets of completion indexes, as Jobs write them: `1,3-5`.

use std::collections::BTreeSet;
use std::fmt::Write;

pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Reads a set; unreadable parts and indexes beyond `end` are left out.
pub fn parse(text: Option<&str>, end: i32) -> BTreeSet<i32> {
    let mut set = BTreeSet::new();
    for part in text.unwrap_or("").split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            set.extend(first..=last.min(end - 1));
        }
    }
    set
}

/// Writes a set; runs of three and more are shortened, two are listed.
pub fn format(set: &BTreeSet<i32>) -> String {
    let mut text = String::new();
    let mut rest = set.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|n| *n == last + 1) {
            last = next;
        }
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a string cannot fail.
        let _ = match last - first {
            0 => write!(text, "{first}"),
            1 => write!(text, "{first},{last}"),
            _ => write!(text, "{first}-{last}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_survive_writing() {
        for text in ["", "3", "1,2", "0-2,5", "1,3-5,7,8,10-12"] {
            assert_eq!(format(&parse(Some(text), 100)), text);
        }
        assert_eq!(format(&parse(Some("1-9,x"), 4)), "1-3");
    }
}
