//! How long tasks waited for CPU, memory and disks: the kernel's pressure stall information (KEP-4205), with cgroup v2.

use serde_json::{Value, json};

/// The resources that the kernel tells of.
pub const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// Shares of the last 10, 60 and 300 seconds in percent, and microseconds in all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Stalls {
    avg: [f64; 3],
    total: u64,
}

/// What a group of tasks waited for a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// At least one task waited.
    some: Stalls,
    /// All tasks waited at once.
    full: Stalls,
}

impl Pressure {
    /// Reads a file such as `cpu.pressure`. `None` where it is none, as when the kernel does not account for pressure.
    pub fn parse(text: &str) -> Option<Self> {
        let stalls = |kind: &str| {
            let fields = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
            let value = |name: &str| {
                fields.split(' ').find_map(|f| f.split_once('=').filter(|(n, _)| *n == name)).map(|(_, v)| v)
            };
            let avg = ["avg10", "avg60", "avg300"].map(|name| value(name).and_then(|v| v.parse().ok()).unwrap_or(0.0));
            Some(Stalls { avg, total: value("total")?.parse().ok()? })
        };
        // Before Linux 5.13 there is no `full` for CPU.
        Some(Self { some: stalls("some")?, full: stalls("full").unwrap_or_default() })
    }

    /// As the stats API shows it.
    pub fn to_json(self) -> Value {
        let stalls = |s: Stalls| json!({"total": s.total, "avg10": s.avg[0], "avg60": s.avg[1], "avg300": s.avg[2]});
        json!({"full": stalls(self.full), "some": stalls(self.some)})
    }

    /// Seconds in which some and in which all tasks waited.
    pub fn seconds(self) -> (f64, f64) {
        let seconds = |s: Stalls| s.total as f64 / 1e6;
        (seconds(self.some), seconds(self.full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read() {
        let text =
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let pressure = Pressure::parse(text).expect("pressure");
        assert_eq!(pressure.seconds(), (2.5, 0.000_007));
        let some = json!({"total": 2_500_000, "avg10": 1.5, "avg60": 0.25, "avg300": 0.0});
        assert_eq!(pressure.to_json()["some"], some);
        let old = Pressure::parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n").expect("pressure");
        assert_eq!(old.seconds(), (0.000_001, 0.0));
        for text in ["", "some", "full avg10=0.00 total=1", "some avg10=0.00 total=x"] {
            assert_eq!(Pressure::parse(text), None, "{text}");
        }
    }
}
