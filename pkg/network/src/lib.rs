//! CNI plugin, pod address management, VXLAN overlay and the netlink code they share with the service proxy.

pub mod cni;
pub mod conntrack;
pub mod netns;
mod nfnl;
pub mod nft;
mod overlay;
mod policy;
pub mod rtnl;
mod service_changes;

pub use overlay::{Overlay, OverlayConfig, OverlayError, Peer, State, cleanup, set_up};
pub use policy::{Member, NetworkPolicies, PolicyError, World, policy_content};
pub use service_changes::{ServiceChanges, slices_of};

/// The node's bridge, which every pod is connected to.
pub const BRIDGE: &str = "kube1";
/// The tunnel to the other nodes' pods.
pub const TUNNEL: &str = "kube1-vx";
/// The interface that has the cluster's DNS address.
pub const DNS_INTERFACE: &str = "kube1-dns";
/// The nftables table of the overlay.
pub const TABLE: &str = "kube1-net";
/// The nftables table of services.
pub const PROXY_TABLE: &str = "kube1-proxy";
/// The nftables table of network policies.
pub const POLICY_TABLE: &str = "kube1-policy";
