//! Sets of completion indexes, as Jobs write them: `1,3-5`.

use std::fmt;
use std::ops::Range;

pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Indexes in ranges that neither touch nor overlap, the lowest first: a Job may have two thousand million of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<Range<i64>>);

impl Indexes {
    /// Reads a set; unreadable parts and indexes beyond `end` are left out.
    pub fn parse(text: Option<&str>, end: i32) -> Self {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse::<i32>().ok()?, last.parse::<i32>().ok()?);
            Some(first.into()..(i64::from(last) + 1).min(end.into()))
        };
        Self::of(text.unwrap_or("").split(',').filter_map(range).collect())
    }

    fn of(mut ranges: Vec<Range<i64>>) -> Self {
        ranges.retain(|range| !range.is_empty());
        ranges.sort_by_key(|range| range.start);
        ranges.dedup_by(|next, before| {
            let joined = next.start <= before.end;
            if joined {
                before.end = before.end.max(next.end);
            }
            joined
        });
        Self(ranges)
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|range| usize::try_from(range.end - range.start).unwrap_or(0)).sum()
    }

    pub fn insert(&mut self, index: i32) {
        let index = i64::from(index);
        let at = self.0.partition_point(|range| range.end < index);
        match self.0.get_mut(at) {
            Some(range) if range.contains(&index) => {}
            // Right after a range, perhaps between two.
            Some(range) if range.end == index => {
                range.end += 1;
                if self.0.get(at + 1).is_some_and(|next| next.start == index + 1) {
                    self.0[at].end = self.0.remove(at + 1).end;
                }
            }
            Some(range) if range.start == index + 1 => range.start = index,
            _ => self.0.insert(at, index..index + 1),
        }
    }

    /// Those that are in either.
    pub fn with(&self, other: &Self) -> Self {
        Self::of([&self.0[..], &other.0].concat())
    }

    /// Those that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for range in &self.0 {
            let mut start = range.start;
            let first = other.0.partition_point(|hole| hole.end <= start);
            for hole in other.0[first..].iter().take_while(|hole| hole.start < range.end) {
                left.push(start..hole.start);
                start = hole.end;
            }
            left.push(start..range.end);
        }
        Self::of(left)
    }

    /// Those below `end` that are not in the set, the lowest first.
    pub fn absent(&self, end: i32) -> impl Iterator<Item = i32> {
        let all = Self(std::iter::once(0..end.into()).collect()).without(self);
        all.0.into_iter().flatten().filter_map(|index| i32::try_from(index).ok())
    }
}

/// Runs of three and more are shortened, two are listed.
impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, range) in self.0.iter().enumerate() {
            let (comma, first, last) = (if number > 0 { "," } else { "" }, range.start, range.end - 1);
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Indexes {
        Indexes::parse(Some(text), i32::MAX)
    }

    #[test]
    fn sets_survive_writing() {
        for text in ["", "3", "1,2", "0-2,5", "1,3-5,7,8,10-12", "0-2147483646"] {
            assert_eq!(set(text).to_string(), text);
        }
        assert_eq!(Indexes::parse(Some("1-9,x,5-3,2"), 4).to_string(), "1-3");
    }

    #[test]
    fn sets_grow_shrink_and_are_counted() {
        for (text, index, expected) in
            [("", 3, "3"), ("1", 2, "1,2"), ("3", 2, "2,3"), ("0,1,3", 2, "0-3"), ("0-5", 2, "0-5"), ("7", 2, "2,7")]
        {
            let mut grown = set(text);
            grown.insert(index);
            assert_eq!(grown.to_string(), expected, "{index} into {text}");
        }
        for (all, holes, left) in
            [("0-9", "3-5,9", "0-2,6-8"), ("0-9", "", "0-9"), ("2,4", "0-9", ""), ("0-2,5-7", "2-5", "0,1,6,7")]
        {
            assert_eq!(set(all).without(&set(holes)).to_string(), left, "{all} without {holes}");
        }
        assert_eq!(set("0-2,7").with(&set("1-4,6")).to_string(), "0-4,6,7");
        assert_eq!(set("0-2147483646").len(), 2_147_483_647);
        assert_eq!(
            set("0-2147483640").absent(i32::MAX).collect::<Vec<_>>(),
            (2_147_483_641..i32::MAX).collect::<Vec<_>>()
        );
    }
}
