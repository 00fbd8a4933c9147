//! What may make a pod schedulable.

use std::ops::BitOr;

/// A set of kinds of cluster changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(pub(super) u16);

impl Events {
    pub const NONE: Self = Self(0);
    pub const NODE_ADDED: Self = Self(1);
    pub const NODE_LABELS: Self = Self(1 << 1);
    pub const NODE_TAINTS: Self = Self(1 << 2);
    pub const NODE_ALLOCATABLE: Self = Self(1 << 3);
    /// A pod on a node came, or changed its labels.
    pub const POD_PLACED: Self = Self(1 << 4);
    /// A pod left its node or asks for less.
    pub const POD_GONE: Self = Self(1 << 5);
    pub const VOLUMES: Self = Self(1 << 6);
    pub const NAMESPACES: Self = Self(1 << 7);
    pub const NODE_FEATURES: Self = Self(1 << 8);

    /// Upstream's name of the event; of several the first's.
    pub(super) fn name(self) -> &'static str {
        const NAMES: [&str; 9] = [
            "NodeAdd",
            "NodeLabelUpdate",
            "NodeTaintUpdate",
            "NodeAllocatableUpdate",
            "AssignedPodAdd",
            "AssignedPodDelete",
            "PersistentVolumeClaimUpdate",
            "NamespaceUpdate",
            "NodeDeclaredFeatureUpdate",
        ];
        NAMES.get(self.0.trailing_zeros() as usize).copied().unwrap_or("Unknown")
    }

    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Events {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
