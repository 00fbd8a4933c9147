//! Choosing node ports: as addresses, from the upper part first.

use std::fmt;
use std::ops::RangeInclusive;

use rand::Rng;

pub(super) struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self { first: *range.start(), last: *range.end() }
    }

    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// How many at the lower end are left for users while others are free.
    fn reserved(&self) -> u32 {
        let size = u32::from(self.last.saturating_sub(self.first)) + 1;
        if size < 16 { 0 } else { (size / 32).clamp(16, 128).min(size) }
    }

    pub fn choose(&self, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        let (first, last) = (u32::from(self.first), u32::from(self.last));
        let split = first + self.reserved();
        let search = |from: u32, to: u32| {
            if from > to {
                return None;
            }
            let count = to - from + 1;
            let start = rand::rng().random_range(0..count);
            let mut ports = (0..count).filter_map(|step| u16::try_from(from + (start + step) % count).ok());
            ports.find(|port| is_free(*port))
        };
        search(split, last).or_else(|| search(first, (split).saturating_sub(1)))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}
