//! Nodes: their health, what it means for their pods, their pod ranges.

pub mod eviction;
pub mod ipam;
pub mod lifecycle;
pub mod pod_gc;
mod taint;
pub mod ttl;
