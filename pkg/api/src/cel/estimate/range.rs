//! Ranges of costs and sizes, which do not overflow.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cel) struct Range {
    pub min: u64,
    pub max: u64,
}

impl Range {
    pub const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    pub const fn fixed(value: u64) -> Self {
        Self { min: value, max: value }
    }

    /// What unions begin with.
    pub const fn empty(of_nothing: bool) -> Self {
        Self { min: if of_nothing { 0 } else { u64::MAX }, max: 0 }
    }

    pub fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    /// Rounded up.
    pub fn scaled(self, factor: f64) -> Self {
        Self { min: scale(self.min, factor), max: scale(self.max, factor) }
    }

    pub fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

fn scale(value: u64, factor: f64) -> u64 {
    // What is beyond the greatest integer becomes it.
    (value as f64 * factor).ceil() as u64
}
