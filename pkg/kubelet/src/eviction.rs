//! `--eviction-hard`: how little may be left before pods are evicted.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use kube1_api::quantity::Quantity;

/// An amount, or a part of what there is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Amount {
    Bytes(u64),
    Percent(f64),
}

/// Thresholds of the node's resources, in upstream's form and with its defaults:
/// `memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%`.
#[derive(Clone, Debug, PartialEq)]
pub struct EvictionThresholds {
    memory: Amount,
    disk: Amount,
    inodes: Amount,
}

/// What is wrong with a text of thresholds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no eviction threshold: expected SIGNAL<AMOUNT with memory.available, nodefs.available or nodefs.inodesFree, \
     such as nodefs.available<10%"
)]
pub struct ThresholdError(String);

impl Default for EvictionThresholds {
    fn default() -> Self {
        Self { memory: Amount::Bytes(100 << 20), disk: Amount::Percent(10.0), inodes: Amount::Percent(5.0) }
    }
}

impl FromStr for EvictionThresholds {
    type Err = ThresholdError;

    /// Signals that are not named keep their defaults.
    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let mut thresholds = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || ThresholdError(part.to_owned());
            let (signal, amount) = part.split_once('<').ok_or_else(wrong)?;
            let amount = Amount::parse(amount).ok_or_else(wrong)?;
            match signal {
                "memory.available" => thresholds.memory = amount,
                "nodefs.available" => thresholds.disk = amount,
                "nodefs.inodesFree" => thresholds.inodes = amount,
                _ => return Err(wrong()),
            }
        }
        Ok(thresholds)
    }
}

impl EvictionThresholds {
    /// Each signal with its threshold, as they are written in configurations.
    pub fn by_signal(&self) -> BTreeMap<&'static str, String> {
        let all =
            [("memory.available", self.memory), ("nodefs.available", self.disk), ("nodefs.inodesFree", self.inodes)];
        all.into_iter().map(|(signal, amount)| (signal, amount.to_string())).collect()
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) if bytes % MIB == 0 => write!(f, "{}Mi", bytes / MIB),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

impl Amount {
    fn parse(text: &str) -> Option<Self> {
        if let Some(percent) = text.strip_suffix('%') {
            return percent.parse().ok().filter(|p| (0.0..=100.0).contains(p)).map(Self::Percent);
        }
        u64::try_from(Quantity::parse(text).ok()?.units()).ok().map(Self::Bytes)
    }

    fn of(self, all: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (all as f64 * percent / 100.0) as u64,
        }
    }
}

impl EvictionThresholds {
    /// Whether too little memory is left, in bytes.
    pub fn memory_is_short(&self, available: u64, all: u64) -> bool {
        available < self.memory.of(all)
    }

    /// Whether too little space is left on a disk, in bytes; a disk of unknown size is never short.
    pub fn disk_is_short(&self, available: u64, all: u64) -> bool {
        all > 0 && available < self.disk.of(all)
    }

    /// Whether too few inodes are left; file systems without a fixed number of them are never short.
    pub fn inodes_are_short(&self, free: u64, all: u64) -> bool {
        all > 0 && free < self.inodes.of(all)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_parts_or_amounts() {
        let defaults = EvictionThresholds::default();
        assert!(defaults.disk_is_short(9, 100) && !defaults.disk_is_short(10, 100) && !defaults.disk_is_short(0, 0));
        let set: EvictionThresholds = "nodefs.available<1Gi, memory.available<5%".parse().unwrap();
        assert!(set.disk_is_short((1 << 30) - 1, 1 << 40) && !set.disk_is_short(1 << 30, 1 << 40));
        assert!(set.memory_is_short(4, 100) && !set.memory_is_short(5, 100));
        assert_eq!(set.inodes, defaults.inodes);
        let told: Vec<String> = set.by_signal().into_values().collect();
        assert_eq!(told, ["5%", "1024Mi", "5%"]);
        for bad in ["nodefs.available", "nodefs.available<x", "cpu<1", "nodefs.available<101%", "nodefs.available<-1"] {
            assert!(bad.parse::<EvictionThresholds>().is_err(), "{bad}");
        }
    }
}
