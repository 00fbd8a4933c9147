//! How many seats a level could have used over a while, and what that makes of the seats it gets (KEP-1040).

use tokio::time::Instant;

/// How much of the smoothed demand stays when demand falls, at each adjustment.
const SMOOTHING: f64 = 0.977;

/// Follows a number over time.
#[derive(Debug)]
pub struct Demand {
    now: f64,
    at: Instant,
    since: Instant,
    sum: f64,
    squares: f64,
    high: f64,
}

/// What a number was over a while.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observed {
    pub high: f64,
    pub average: f64,
    pub deviation: f64,
}

impl Default for Demand {
    fn default() -> Self {
        let now = Instant::now();
        Self { now: 0.0, at: now, since: now, sum: 0.0, squares: 0.0, high: 0.0 }
    }
}

impl Demand {
    pub fn set(&mut self, value: f64, at: Instant) {
        self.advance(at);
        self.now = value;
        self.high = self.high.max(value);
    }

    fn advance(&mut self, at: Instant) {
        let passed = at.saturating_duration_since(self.at).as_secs_f64();
        self.sum += self.now * passed;
        self.squares += self.now * self.now * passed;
        self.at = self.at.max(at);
    }

    /// What was observed since this was last asked.
    pub fn take(&mut self, at: Instant) -> Observed {
        self.advance(at);
        let over = at.saturating_duration_since(self.since).as_secs_f64().max(1e-9);
        let average = self.sum / over;
        let deviation = (self.squares / over - average * average).max(0.0).sqrt();
        let observed = Observed { high: self.high, average, deviation };
        (self.sum, self.squares, self.high, self.since) = (0.0, 0.0, self.now, at);
        observed
    }
}

/// The seats of a level as its configuration sets them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    pub nominal: f64,
    /// What is left when others have borrowed all they may.
    pub least: f64,
    pub most: f64,
}

/// One level's part in sharing seats.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    pub bounds: Bounds,
    pub observed: Observed,
    /// In: that of the last adjustment; out: the present one.
    pub smoothed: f64,
    /// Out: what the level would get if nothing were scarce.
    pub target: f64,
    /// Out: the seats it gets.
    pub current: f64,
}

/// Shares `total` seats by demand; returns the fraction of their targets that levels get.
pub fn share(levels: &mut [Share], total: f64) -> f64 {
    let mut least = Vec::with_capacity(levels.len());
    for level in levels.iter_mut() {
        let envelope = level.observed.average + level.observed.deviation;
        level.smoothed = envelope.max(SMOOTHING * level.smoothed + (1.0 - SMOOTHING) * envelope);
        // Nobody lends what it used itself.
        let floor = level.bounds.least.max(level.bounds.nominal.min(level.observed.high));
        level.target = floor.max(level.smoothed);
        least.push(floor);
    }
    let given = |level: &Share, floor: f64, fraction: f64| {
        (level.target * fraction).max(floor).min(level.bounds.most.max(floor))
    };
    let sum = |fraction: f64| -> f64 { levels.iter().zip(&least).map(|(l, f)| given(l, *f, fraction)).sum() };
    let (mut low, mut high) = (0.0, 1.0);
    while sum(high) < total && high < 1e6 {
        high *= 2.0;
    }
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if sum(middle) > total { high = middle } else { low = middle }
    }
    for (level, floor) in levels.iter_mut().zip(&least) {
        level.current = given(level, *floor, low).round().max(1.0);
    }
    low
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn demand_is_averaged_over_time() {
        let start = Instant::now();
        let mut demand = Demand { at: start, since: start, ..Demand::default() };
        demand.set(4.0, start);
        demand.set(0.0, start + Duration::from_secs(5));
        let seen = demand.take(start + Duration::from_secs(10));
        assert!((seen.average - 2.0).abs() < 1e-6 && (seen.deviation - 2.0).abs() < 1e-6, "{seen:?}");
        assert!((seen.high - 4.0).abs() < 1e-9);
        assert!(demand.take(start + Duration::from_secs(20)).high.abs() < 1e-9);
    }

    #[test]
    fn idle_levels_lend_and_busy_ones_borrow_within_their_bounds() {
        let level = |nominal: f64, lendable: f64, borrowing: f64, used: f64| Share {
            bounds: Bounds { nominal, least: nominal - lendable, most: nominal + borrowing },
            observed: Observed { high: used, average: used, deviation: 0.0 },
            ..Share::default()
        };
        // The first wants much more than its own; the second is idle; the third may not borrow.
        let mut levels =
            [level(20.0, 0.0, f64::INFINITY, 100.0), level(60.0, 50.0, 0.0, 0.0), level(20.0, 10.0, 0.0, 100.0)];
        share(&mut levels, 100.0);
        let seats: Vec<f64> = levels.iter().map(|l| l.current).collect();
        assert_eq!(seats, [70.0, 10.0, 20.0]);
        // Demand that is gone is forgotten slowly.
        levels[0].observed = Observed::default();
        levels[1].observed = Observed { high: 60.0, average: 60.0, deviation: 0.0 };
        share(&mut levels, 100.0);
        assert!(levels[0].smoothed > 90.0);
        assert_eq!(levels[1].current, 60.0, "what a level uses itself is not lent");
    }
}
